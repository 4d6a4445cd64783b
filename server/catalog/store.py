"""Where model files lie on this machine, and which are there."""

from __future__ import annotations

from pathlib import Path

from .spec import Catalog, ModelSpec


class ModelStore:
    """One directory of .gguf files. A file under its final name is always whole."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, spec: ModelSpec) -> Path:
        return self.directory / spec.file

    def part(self, spec: ModelSpec) -> Path:
        """The unfinished download."""
        return self.directory / f"{spec.file}.part"

    def has(self, spec: ModelSpec) -> bool:
        path = self.path(spec)
        return path.is_file() and (not spec.verified or path.stat().st_size == spec.size)

    def named(self, word: str) -> Path | None:
        """A file put here by hand, by its name with or without .gguf."""
        path = self.directory / (word if word.endswith(".gguf") else f"{word}.gguf")
        return path if path.parent == self.directory and path.is_file() else None

    def others(self, catalog: Catalog) -> list[Path]:
        """The .gguf files here that the catalogue does not know."""
        known = {spec.file for spec in catalog}
        return sorted(path for path in self.directory.glob("*.gguf") if path.name not in known)
