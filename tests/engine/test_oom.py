"""Where the kernel counts whom it ended for memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.engine.oom import kills


@pytest.mark.parametrize(
    ("own", "file"),
    [
        ("0::/system.slice/ingle.service\n", "system.slice/ingle.service/memory.events"),
        ("0::/\n", "memory.events"),
        ("0::/not/mounted/here\n", "memory.events"),
        ("8:cpu:/x\n4:memory:/docker/abc\n0::/\n", "memory/docker/abc/memory.oom_control"),
        ("4:cpu,memory:/docker/abc\n", "memory/memory.oom_control"),
    ],
)
def test_it_is_found(tmp_path: Path, own: str, file: str) -> None:
    (tmp_path / "own").write_text(own)
    counters = tmp_path / "mount" / file
    counters.parent.mkdir(parents=True)
    counters.write_text("low 0\noom 7\nunder_oom 0\noom_kill 3\n")
    assert kills(tmp_path / "mount", tmp_path / "own") == 3


def test_where_nobody_counts_there_are_none(tmp_path: Path) -> None:
    assert kills(tmp_path, tmp_path / "none") == 0
    (tmp_path / "own").write_text("0::/\n")
    assert kills(tmp_path, tmp_path / "own") == 0
