"""Model files: which are known, where they come from, which are here and sound."""

from .gguf import GGUFHeader, read_header
from .resolve import ResolvedModel, Target, inspect, locate
from .spec import Catalog, ModelSpec, load_catalog
from .store import ModelStore

__all__ = [
    "Catalog",
    "GGUFHeader",
    "ModelSpec",
    "ModelStore",
    "ResolvedModel",
    "Target",
    "inspect",
    "load_catalog",
    "locate",
    "read_header",
]
