"""What the documentation must not forget."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.settings import Settings

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("key", Settings.model_fields)
def test_every_setting_has_a_row_in_the_readme(key: str) -> None:
    rows = [line for line in README.splitlines() if line.startswith(f"| `{key}` |")]
    assert len(rows) == 1
    assert f"`INGLE_{key.upper()}`" in rows[0]
