"""What an engine process writes to standard error, as the log lines of this one."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from server.engine.output import Output

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
OURS = """
import logging
from server.engine import output
output.configure()
log = logging.getLogger("ingle.engine")
secret = "ca" + "nary"
"""


async def _told(code: str, caplog: pytest.LogCaptureFixture, *more: str) -> list[logging.LogRecord]:
    """Waits for the process in a thread: its output may be read meanwhile."""
    output = Output("tiny")
    command = [sys.executable, "-c", code, *more]
    with output.reading() as stderr:
        process = subprocess.Popen(command, stderr=stderr, cwd=ROOT)
    await asyncio.to_thread(process.wait, 30)
    output.close()
    assert all(record.model == "tiny" for record in caplog.records)  # type: ignore[attr-defined]
    return caplog.records


async def test_its_own_lines_keep_level_fields_and_trace(caplog: pytest.LogCaptureFixture) -> None:
    code = OURS + (
        "log.info('not told')\n"
        "log.error('a\\nthing', extra={'text': 'b\\x1e\\n', 'model': 'other', 'number': 3})\n"
        "try: int(secret)\n"
        "except ValueError: log.exception('a bug')\n"
    )
    thing, bug = await _told(code, caplog)
    assert (thing.levelno, thing.name, thing.getMessage()) == (40, "ingle.engine", "a\nthing")
    assert (thing.text, thing.number) == ("b\x1e\n", 3)  # type: ignore[attr-defined]
    without, whole = bug.traces  # type: ignore[attr-defined]
    assert without.endswith("ValueError") and "canary" not in without
    assert "canary" in whole


async def test_what_native_code_prints_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    code = OURS + (
        "import os\n"
        "os.write(2, b'ggml.c:7: GGML_ASSERT(x) failed\\n')\n"
        "os.write(2, b'no line end')\n"
        "log.error('a thing')\n"
        "os.write(2, b'{\"event\": 1}\\n\\n\\x1e{broken\\n\\xff' + b'x' * 5000)\n"
        "os.abort()\n"
    )
    records = await _told(code, caplog)
    printed = [r.text for r in records if r.getMessage() == "the engine printed"]  # type: ignore[attr-defined]
    assert printed[:3] == ["ggml.c:7: GGML_ASSERT(x) failed", "no line end", '{"event": 1}']
    assert printed[3] == "\ufffd" + "x" * 999
    assert [r.getMessage() for r in records].count("a thing") == 1
    assert len(records) == 5


async def test_much_of_it_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    code = "import os\nfor i in range(20000): os.write(2, b'line %d\\n' % i)"
    records = await _told(code, caplog)
    assert [r.text for r in records] == [f"line {i}" for i in range(20000)]  # type: ignore[attr-defined]


async def test_a_line_without_end_is_told_in_pieces(caplog: pytest.LogCaptureFixture) -> None:
    records = await _told("import os; os.write(2, b'x' * 1000000)", caplog)
    assert 1 < len(records) < 100


async def test_it_closes_while_children_of_the_engine_live_on() -> None:
    output = Output("tiny")
    with output.reading() as stderr:
        child = subprocess.Popen(["sleep", "60"], stderr=stderr)
    output.close()
    output.close()
    child.kill()
    await asyncio.to_thread(child.wait, 10)
