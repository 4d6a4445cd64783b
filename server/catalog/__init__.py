"""Model files: which are known, where they come from, which are here and sound."""

from .elsewhere import Elsewhere
from .gguf import GGUFHeader, read_header
from .resolve import ResolvedModel, Target, check_distinct, inspect, locate
from .spec import Catalog, ModelSpec, load_catalog
from .store import ModelStore

__all__ = [
    "Catalog",
    "Elsewhere",
    "GGUFHeader",
    "ModelSpec",
    "ModelStore",
    "ResolvedModel",
    "Target",
    "check_distinct",
    "inspect",
    "load_catalog",
    "locate",
    "read_header",
]
