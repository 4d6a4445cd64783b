"""Conversations go on after their engine, or the whole server, without being read again."""

from __future__ import annotations

import random
from pathlib import Path

import openai
import pytest

from .conftest import Server, Start, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

LONG = " ".join(random.Random(7).choices(("river", "stone", "garden", "window"), k=150))


def asked(
    server: Server, text: str, model: str = "echo", key: str | None = None
) -> tuple[int, int]:
    """Prompt tokens, and those that were not computed. The answer is what was said last."""
    more = {"api_key": key} if key else {}
    with server.client(**more) as client:
        answer = client.chat.completions.create(
            model=model,
            messages=[
                {"role": "system", "content": LONG},
                {"role": "user", "content": text},
            ],
            temperature=0,
        )
    assert answer.choices[0].message.content == text
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    return answer.usage.prompt_tokens_details.cached_tokens or 0


def refused(server: Server) -> dict[str, float]:
    lines = server.metrics().splitlines()
    found = [line for line in lines if line.startswith("ingle_prefix_store_refused_total{")]
    return {line.split('reason="')[1].split('"')[0]: float(line.split()[-1]) for line in found}


def kept(tmp_path: Path, **settings: object) -> dict[str, object]:
    return {"disk_cache_mb": 50, "cache_dir": tmp_path / "prefixes", "ctx": 4096, **settings}


def test_a_restart_finds_what_was_read_before(start: Start, tmp_path: Path) -> None:
    settings = kept(tmp_path)
    first = start("echo=echo:", **settings)
    assert asked(first, "hello") == 0
    assert first.stop() == 0
    second = start("echo=echo:", **settings)
    assert second.metric("ingle_prefix_store_restored_total") >= 1
    cached = asked(second, "hello again")
    assert cached > 0.9 * len(LONG)
    assert second.metric("ingle_reused_tokens_total") == cached
    assert refused(second) == {}


def test_a_swap_finds_it_too(start: Start, tmp_path: Path) -> None:
    server = start(
        "echo=echo:mb=100", "b=echo:mb=100,b=1", memory_mb=150, swap_seconds=0.1, **kept(tmp_path)
    )
    for model in ("echo", "b"):
        assert asked(server, "hello", model) == 0
    for model in ("echo", "b"):
        assert asked(server, "hello again", model) > 0.9 * len(LONG)
    assert len(server.engines()) == 1


def test_damaged_files_are_refused_counted_and_removed(start: Start, tmp_path: Path) -> None:
    settings = kept(tmp_path)
    server = start("echo=echo:", **settings)
    asked(server, "hello")
    assert server.stop() == 0
    (path,) = tmp_path.rglob("*.state")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    server = start("echo=echo:", **settings)
    assert not path.exists()
    assert refused(server) == {"damaged": 1}
    assert asked(server, "hello") == 0
    assert server.stop() == 0
    assert path.exists()


def test_keys_do_not_share_what_outlives(start: Start, tmp_path: Path) -> None:
    settings = kept(tmp_path, api_key="sk-one,sk-two")
    server = start("echo=echo:", **settings)
    asked(server, "hello", key="sk-one")
    assert server.stop() == 0
    server = start("echo=echo:", **settings)
    assert asked(server, "hello", key="sk-two") == 0
    assert asked(server, "hello again", key="sk-one") > 0.9 * len(LONG)
    assert all(b"sk-one" not in path.read_bytes() for path in tmp_path.rglob("*.state"))


def test_a_place_that_cannot_be_used_keeps_nothing_and_harms_nothing(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "prefixes").mkdir(mode=0o755)
    server = start("echo=echo:", **kept(tmp_path))
    asked(server, "hello")
    until(lambda: "prefixes are not kept" in server.log())
    assert server.stop() == 0
    assert list((tmp_path / "prefixes").iterdir()) == []


def test_an_engine_that_hangs_at_the_end_does_not_hold_up_the_server(
    start: Start, tmp_path: Path
) -> None:
    """What it knew is lost, and no more."""
    server = start(
        "echo=echo:rate=20", fault_injection="true", faults="spin@word=spin", watchdog_seconds=600,
        **kept(tmp_path, drain_seconds=0.5),
    )  # fmt: skip
    asked(server, "hello")
    with server.client() as client, pytest.raises(openai.APIError):
        client.with_options(timeout=1).completions.create(model="echo", prompt="spin")
    assert server.stop() == 0
