"""Servers that cut, lie, stall and lead astray, and disks that fill up: over real HTTP."""

from __future__ import annotations

import hashlib
import multiprocessing
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from server.catalog import ModelStore, load_catalog
from server.catalog.https import Patience
from server.catalog.plan import plan
from server.catalog.pull import pull_plan
from server.catalog.reference import UrlReference
from server.catalog.store import PulledModel
from server.core.errors import ModelFileError
from tests.catalog.sources import Hub, serve_hub
from tests.gguf_files import gguf

CONTENT = gguf() + bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(pauses=(0.0,) * 3, stall=0.3)


class Bench(NamedTuple):
    hub: Hub
    store: ModelStore

    def reference(self, sha256: str | None = SHA256, path: str = "/tiny.gguf") -> UrlReference:
        return UrlReference(self.hub.url + path, sha256)

    def pull(self, reference: UrlReference | None = None, **environ: str) -> PulledModel:
        wanted = plan(reference or self.reference(), load_catalog(), self.store, environ, QUICK)
        return pull_plan(wanted, self.store, lambda _done, _total: None, environ, QUICK)

    def refusal(self, reference: UrlReference | None = None, **environ: str) -> str:
        with pytest.raises(ModelFileError) as caught:
            self.pull(reference, **environ)
        assert "\n" not in caught.value.message
        assert self.store.pulled() == [], "nothing that could be loaded"
        return caught.value.message

    def left(self) -> set[str]:
        files = self.store.directory.rglob("*")
        return {path.name for path in files if path.is_file() and path.suffix != ".lock"}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with serve_hub(CONTENT) as hub:
        yield Bench(hub, ModelStore(tmp_path / "models"))


def test_an_address_is_pulled_once(bench: Bench) -> None:
    model = bench.pull()
    assert model.path.read_bytes() == CONTENT
    assert model.record.name == "tiny"
    assert bench.left() == {"tiny.gguf", "tiny.gguf.json"}
    assert bench.store.pulled() == [model]
    asked = len(bench.hub.paths)
    assert bench.pull() == model
    assert len(bench.hub.paths) == asked


def test_what_is_cut_in_the_middle_goes_on_there(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.hub.cuts = [len(CONTENT) // 2]
    assert bench.pull().path.read_bytes() == CONTENT
    assert bench.hub.ranges == [None, f"bytes={len(CONTENT) // 2}-"]
    assert "trying again in 0 s" in caplog.text


def test_a_server_that_ignores_ranges_is_read_from_the_start(bench: Bench) -> None:
    bench.hub.ignores_ranges = True
    bench.hub.cuts = [len(CONTENT) // 2]
    assert bench.pull().path.read_bytes() == CONTENT
    assert bench.hub.ranges[1] is not None


def test_a_server_that_never_gets_further_is_given_up(bench: Bench) -> None:
    bench.hub.ignores_ranges = True
    bench.hub.cuts = [len(CONTENT) // 2] * 100
    assert "run the command again" in bench.refusal()
    assert len(bench.hub.paths) == 5, "the first try came further, four more did not"


def test_another_range_than_asked_for_is_not_appended(bench: Bench) -> None:
    bench.hub.cuts = [len(CONTENT) // 2]
    bench.hub.shifts_ranges = 1
    assert bench.pull().path.read_bytes() == CONTENT
    assert bench.hub.ranges[-1] is None


def test_a_file_that_changes_between_tries_is_read_anew(bench: Bench) -> None:
    bench.hub.etags = ['"v1"', '"v2"']
    bench.hub.cuts = [len(CONTENT) // 2]
    assert bench.pull().path.read_bytes() == CONTENT
    assert bench.hub.ranges == [None, f"bytes={len(CONTENT) // 2}-"]


def test_wrong_bytes_are_removed(bench: Bench) -> None:
    bench.hub.content = CONTENT[:-1] + b"x"
    assert f"instead of {SHA256}; it was removed" in bench.refusal()
    assert bench.left() == set()


def test_a_claimed_length_that_does_not_come_is_told(bench: Bench) -> None:
    bench.hub.claims = len(CONTENT) + 10
    assert "run the command again" in bench.refusal()


def test_a_file_that_ends_too_early_is_removed(bench: Bench) -> None:
    bench.hub.content = CONTENT[:600]
    assert "is truncated" in bench.refusal(bench.reference(sha256=None))
    assert bench.left() == set()


def test_a_dripping_server_is_given_up(bench: Bench) -> None:
    bench.hub.drips = 0.02
    assert "bytes came in 0 s; check the network" in bench.refusal()
    assert len(bench.hub.paths) == 4


def test_a_silent_server_is_given_up(bench: Bench) -> None:
    bench.hub.drips = 30.0
    assert "timed out; check the network" in bench.refusal()


def test_trouble_of_the_server_is_waited_for(bench: Bench) -> None:
    bench.hub.statuses = [503, 500, 429]
    assert bench.pull().path.read_bytes() == CONTENT
    bench.hub.statuses = [503] * 10
    with pytest.raises(ModelFileError, match="the server answers 503"):
        bench.pull(bench.reference(path="/other.gguf"))


@pytest.mark.parametrize("status", [401, 403])
def test_a_closed_door_that_is_no_hubs_names_no_token(bench: Bench, status: int) -> None:
    bench.hub.statuses = [status]
    told = bench.refusal()
    assert f"answers {status}; fetch the .gguf file yourself" in told
    assert "HF_TOKEN" not in told


def test_a_failed_pull_leaves_an_earlier_file_alone(bench: Bench) -> None:
    model = bench.pull()
    bench.hub.content = CONTENT + b"newer, and not what was asked for"
    with pytest.raises(ModelFileError, match="it was removed"):
        bench.pull(bench.reference(sha256="0" * 64))
    assert bench.store.pulled() == [model]
    assert model.path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("location", "cause"),
    [
        ("file:///etc/passwd", "which is not followed"),
        ("ftp://example.org/a.gguf", "which is not followed"),
        ("/again/resolve/x", "redirects more than 10 times"),
    ],
)
def test_redirects_that_are_not_followed(bench: Bench, location: str, cause: str) -> None:
    bench.hub.location = location
    assert cause in bench.refusal(bench.reference(path="/resolve/tiny.gguf"))
    assert bench.left() == set()


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "localhost", "169.254.169.254", "10.0.0.1", "[::1]", "[::ffff:192.168.1.1]"],
)
def test_a_public_source_does_not_lead_into_the_network(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """The source is public by its name: a proxy, the hub of the test, stands in for it."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, bench.hub.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    bench.hub.location = f"http://{address}/secret.gguf"
    source = UrlReference("http://models.example.org/resolve/tiny.gguf", SHA256)
    assert "an address of a private network" in bench.refusal(source)
    assert bench.hub.paths == [source.url], "the proxy saw the first request and no second"


def test_a_private_source_may_redirect_within_its_network(bench: Bench) -> None:
    assert bench.pull(bench.reference(path="/resolve/tiny.gguf")).path.read_bytes() == CONTENT


def test_the_token_stays_at_its_hub(bench: Bench) -> None:
    with serve_hub(CONTENT) as storage:
        bench.hub.location = f"{storage.url}/elsewhere"
        repository = "https://huggingface.co/o/r/resolve/v1/tiny.gguf"
        bench.pull(UrlReference(repository), HF_ENDPOINT=bench.hub.url, HF_TOKEN="hf_secret")
        assert bench.hub.tokens == ["Bearer hf_secret"]
        assert storage.tokens == [None]
    bench.hub.location = "/storage"
    bench.pull(bench.reference(path="/other.gguf"), HF_TOKEN="hf_secret")
    assert bench.hub.tokens[1:] == [None], "an address of one's own is no hub"


def _pull_within(limit: int, url: str, directory: Path) -> None:
    """In a process of its own: no file may grow beyond `limit` bytes, as on a disk that fills."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    store = ModelStore(directory)
    wanted = plan(UrlReference(url, SHA256), load_catalog(), store, {}, QUICK)
    try:
        pull_plan(wanted, store, lambda _done, _total: None, {}, QUICK)
    except ModelFileError as error:
        (directory / "told").write_text(error.message)


def test_a_disk_that_fills_up_gives_the_space_back(bench: Bench) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=_pull_within, args=(100_000, f"{bench.hub.url}/tiny.gguf", bench.store.directory)
    )
    process.start()
    process.join(60)
    assert process.exitcode == 0
    told = (bench.store.directory / "told").read_text()
    assert "MB free, 0 MB are needed; make room, or choose another disk" in told
    assert bench.left() == {"told"}


def test_a_small_disk_is_told_before_and_while_it_fills(bench: Bench, tmp_path: Path) -> None:
    """On a file system of 1 MB: what does not fit is not begun."""
    script = tmp_path / "small.sh"
    script.write_text(
        f"mount -t tmpfs -o size=1m none {tmp_path}/disk && exec {sys.executable} -m server pull "
        f"{bench.hub.url}/tiny.gguf#sha256={SHA256} --models-dir {tmp_path}/disk/models"
    )
    (tmp_path / "disk").mkdir()
    bench.hub.content = CONTENT + bytes(1 << 20)
    done = subprocess.run(
        ["unshare", "-rm", "sh", str(script)], capture_output=True, text=True, timeout=60
    )
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip("needs unshare -rm to mount a small file system")
    assert done.returncode == 2
    assert "has 1 MB free, 1 MB are needed; make room" in done.stderr
