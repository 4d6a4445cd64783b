"""States in files: what is not whole, ours and meant for us is never loaded."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.engine import volatile
from server.engine.state_files import FileState, StateFiles, Unusable

KEY = "model x, build 1"
STATE = bytes(range(256)) * 40
TOKENS = list(range(100))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "prefixes"


def files(root: Path, key: str = KEY, capacity: int = 1 << 20) -> StateFiles:
    return StateFiles(root, key, capacity)


def found(store: StateFiles) -> list[FileState]:
    return list(store.load())


def only(root: Path) -> Path:
    (path,) = root.rglob("*.state")
    return path


def test_what_is_kept_is_found_by_the_next_process(root: Path) -> None:
    assert files(root).keep(TOKENS, "scope", STATE)
    (state,) = found(files(root))
    assert (state.tokens, state.scope, bytes(state.state)) == (TOKENS, "scope", STATE)
    assert 0 <= state.age < 60
    assert files(root).keep(TOKENS, "scope", STATE) and only(root)


def test_nobody_else_can_read_it(root: Path) -> None:
    old = os.umask(0)
    try:
        files(root).keep(TOKENS, "scope", STATE)
    finally:
        os.umask(old)
    for path in [root, *root.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[random.Random(len(data)).randrange(len(data))] ^= 1
    path.write_bytes(data)


def cut(length: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, length if length >= 0 else path.stat().st_size + length)


def renamed(path: Path) -> None:
    path.rename(path.with_name("0" * 64 + ".state"))


def opened(path: Path) -> None:
    path.chmod(0o644)


def grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def other_version(path: Path) -> None:
    path.write_bytes(b"INGLEKV9" + path.read_bytes()[8:])


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (flipped, "damaged"),
        (grown, "damaged"),
        (cut(-1), "damaged"),
        (cut(-5000), "damaged"),
        (cut(50), "damaged"),
        (cut(20), "format"),
        (cut(0), "format"),
        (other_version, "format"),
        (renamed, "foreign"),
        (opened, "owner"),
    ],
)
def test_what_is_not_as_it_was_written_is_refused_counted_and_removed(
    root: Path, spoil: Callable[[Path], None], why: str
) -> None:
    files(root).keep(TOKENS, "scope", STATE)
    spoil(only(root))
    store = files(root)
    assert found(store) == [] and store.refused == {why: 1}
    assert not list(root.rglob("*.state"))


def test_every_single_flipped_bit_is_noticed(root: Path) -> None:
    files(root).keep([1, 2, 3], "s", b"state")
    path = only(root)
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        path.chmod(0o600)
        store = files(root)
        assert found(store) == [] and store.refused.total() == 1, position


def test_a_file_of_another_model_or_another_server_is_refused(root: Path, tmp_path: Path) -> None:
    """Put where ours are, under our name."""
    files(root).keep(TOKENS, "scope", STATE)
    ours = only(root)
    other_model = files(root, "model y, build 1")
    other_model.keep(TOKENS, "scope", STATE)
    theirs = next(path for path in root.rglob("*.state") if path != ours)
    shutil.copy(theirs, ours)
    store = files(root)
    assert found(store) == [] and store.refused == {"foreign": 1}

    files(root).keep(TOKENS, "scope", STATE)
    elsewhere = tmp_path / "elsewhere"
    files(elsewhere).keep(TOKENS, "scope", STATE)
    shutil.copy(only(elsewhere), ours)
    store = files(root)
    assert found(store) == [] and store.refused == {"damaged": 1}


def test_another_build_finds_nothing(root: Path) -> None:
    files(root).keep(TOKENS, "scope", STATE)
    assert found(files(root, "model x, build 2")) == []
    assert len(found(files(root))) == 1


def test_links_are_not_followed(root: Path, tmp_path: Path) -> None:
    files(root).keep(TOKENS, "scope", STATE)
    path = only(root)
    real = tmp_path / "real"
    path.rename(real)
    path.symlink_to(real)
    assert found(files(root)) == [] and real.exists()
    shutil.rmtree(root)
    root.symlink_to(tmp_path)
    with pytest.raises(Unusable, match="this user alone"):
        files(root)


def test_a_directory_that_others_may_use_is_not_used(root: Path) -> None:
    root.mkdir(mode=0o755)
    with pytest.raises(Unusable, match="chmod 700"):
        files(root)


def test_scopes_are_apart(root: Path) -> None:
    store = files(root)
    assert store.keep(TOKENS, "a", STATE) and store.keep(TOKENS, "b", STATE)
    assert sorted(state.scope for state in found(files(root))) == ["a", "b"]


def test_what_was_used_longest_ago_goes_whosever_it_is(root: Path) -> None:
    capacity = 5 * (len(STATE) + 600)
    for i in range(8):
        store = files(root, f"model {i % 2}", capacity)
        assert store.keep([i] * 100, "scope", STATE)
        for path in root.rglob("*.state"):
            os.utime(path, (time.time() - 10, path.stat().st_mtime - 10))
        assert store.size <= capacity
    left = [s.tokens[0] for i in (0, 1) for s in found(files(root, f"model {i}", capacity))]
    assert sorted(left) == [3, 4, 5, 6, 7] or sorted(left) == [4, 5, 6, 7]
    assert not files(root, capacity=100).keep(TOKENS, "scope", STATE)


def test_a_full_disk_keeps_nothing_and_harms_nothing(root: Path) -> None:
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from server.engine.state_files import StateFiles\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"store = StateFiles(Path(sys.argv[1]), {KEY!r}, 1 << 30)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "print(store.keep(list(range(100)), 's', bytes(100_000)))\n"
    )
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run(
        [sys.executable, "-c", script, str(root)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
    assert not list(root.rglob("*.state")) and not list(root.rglob("*.part"))


def test_a_process_that_dies_while_it_writes_leaves_nothing_to_load(root: Path) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from server.engine import state_files\n"
        f"store = state_files.StateFiles(Path(sys.argv[1]), {KEY!r}, 1 << 30)\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "store.keep(list(range(100)), 's', bytes(1_000_000))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(root)])
    assert done.returncode == -signal.SIGKILL
    (draft,) = root.rglob("*.part")
    assert found(files(root)) == [] and draft.exists()
    os.utime(draft, (1, 1))
    assert found(files(root)) == [] and not draft.exists()


def test_two_processes_at_once(root: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from server.engine.state_files import StateFiles\n"
        f"store = StateFiles(Path(sys.argv[1]), {KEY!r}, 60_000)\n"
        "for i in range(200):\n"
        "    store.keep([i % 7] * 50, 's', bytes(10_000))\n"
        "    assert all(bytes(s.state) == bytes(10_000) for s in store.load())\n"
        "print(dict(store.refused))\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(root)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in running] == [b"{}\n"] * 2


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    with contextlib.suppress(OSError):
        shutil.rmtree(tmp_path)


def test_what_a_killed_server_left_in_memory_is_removed_by_the_next(shared: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f"ingle-{ended.pid}", f"ingle-{os.getpid()}", "other"):
        (shared / name).mkdir()
    store = volatile.volatile_store(1000, shared)
    assert store is not None and (store.bytes, store.lasting) == (1000, False)
    assert sorted(path.name for path in shared.iterdir()) == [f"ingle-{os.getpid()}", "other"]
    volatile.remove(store)
    assert [path.name for path in shared.iterdir()] == ["other"]
    assert volatile.volatile_store(0, shared) is None
    assert volatile.volatile_store(1000, shared / "none") is None
