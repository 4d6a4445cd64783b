"""What no part of the server may do, whoever writes it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SERVER = Path(__file__).parents[1] / "server"
UNSAFE = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "multiprocessing"}
"""Their bytes are programs; `multiprocessing` sends them between processes."""


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def test_nothing_reads_bytes_that_could_be_a_program() -> None:
    found = {path: UNSAFE & {*_imported(path)} for path in SERVER.rglob("*.py")}
    assert len(found) > 100
    assert not {str(path): names for path, names in found.items() if names}
