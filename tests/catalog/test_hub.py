"""Models pulled by reference from a stand-in for Hugging Face."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from server.catalog import (
    Elsewhere,
    ModelStore,
    Target,
    check_distinct,
    inspect,
    load_catalog,
    locate,
)
from server.catalog.https import Patience
from server.catalog.hub import read_repository
from server.catalog.plan import plan
from server.catalog.pull import pull_plan
from server.catalog.reference import HubReference, UrlReference
from server.catalog.store import PulledModel
from server.catalog.web import Web
from server.core.errors import ConfigError, IngleError, ModelFileError
from tests.catalog.sources import COMMIT, Hub, serve_hub
from tests.gguf_files import PLAIN, STRING, TENSORS, U32, gguf

QUICK = Patience(pauses=(0.0,) * 3, stall=5.0)
MODEL = gguf()
OTHER = gguf(meta=PLAIN | {"general.name": (STRING, "Other")})
PART = gguf(meta={"split.no": (U32, 1)}, tensors=TENSORS)
FILES = {"m-Q4_K_M.gguf": MODEL, "m-Q8_0.gguf": OTHER, "mmproj-m.gguf": b"GGUF"}
SPLIT = {
    "Q8_0/big-Q8_0-00001-of-00002.gguf": MODEL,
    "Q8_0/big-Q8_0-00002-of-00002.gguf": PART,
}


class Bench(NamedTuple):
    hub: Hub
    store: ModelStore
    home: Path
    seen: list[tuple[int, int | None]]

    @property
    def environ(self) -> dict[str, str]:
        return {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.home / "hf")}

    def pull(self, word: str, **environ: str) -> PulledModel:
        reference = self.locate(word).missing
        assert isinstance(reference, HubReference | UrlReference)
        variables = self.environ | environ
        wanted = plan(reference, load_catalog(), self.store, variables, QUICK)
        return pull_plan(wanted, self.store, self.report, variables, QUICK)

    def report(self, done: int, total: int | None) -> None:
        self.seen.append((done, total))

    def locate(self, *words: str) -> Target:
        elsewhere = Elsewhere(self.environ, self.home)
        return locate(words, load_catalog(), self.store, elsewhere)[0]

    def refusal(self, word: str, **environ: str) -> str:
        with pytest.raises(IngleError) as caught:
            self.pull(word, **environ)
        assert "\n" not in caught.value.message
        return caught.value.message

    def asked(self) -> list[str]:
        """The paths asked for since the last call."""
        paths = [path for path in self.hub.paths if not path.startswith("/storage")]
        self.hub.paths.clear()
        return paths


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with serve_hub(b"never asked for") as hub:
        hub.repositories = {"o/r": FILES, "p/r": {"m-Q4_K_M.gguf": OTHER}, "o/big": SPLIT}
        yield Bench(hub, ModelStore(tmp_path / "models"), tmp_path / "home", [])


def test_the_usual_quantisation_is_pulled_at_one_commit(bench: Bench) -> None:
    model = bench.pull("hf:o/r")
    assert model.record.name == "o/r:Q4_K_M"
    assert model.record.licence == "apache-2.0"
    assert model.record.files[0].sha256 == hashlib.sha256(MODEL).hexdigest()
    assert model.path == bench.store.directory / "hf/o/r/m-Q4_K_M.gguf"
    assert model.path.read_bytes() == MODEL
    assert bench.asked() == [
        "/api/models/o/r/revision/main?blobs=true",
        f"/o/r/resolve/{COMMIT}/m-Q4_K_M.gguf",
    ]
    assert bench.seen[-1] == (len(MODEL), len(MODEL))


def test_a_pulled_model_is_found_by_every_name_without_asking_the_hub(bench: Bench) -> None:
    model = bench.pull("hf:o/r")
    bench.asked()
    words = ["hf:o/r", "hf:o/r:Q4_K_M", "hf:o/r:q4_k_m", "hf:o/r/m-Q4_K_M.gguf", "o/r:Q4_K_M"]
    for word in [*words, "https://huggingface.co/o/r/blob/main/m-Q4_K_M.gguf"]:
        target = bench.locate(word)
        assert (target.name, target.path, target.missing) == ("o/r:Q4_K_M", model.path, None)
        assert inspect(target).name == "o/r:Q4_K_M"
    assert bench.asked() == []
    assert bench.locate("hf:o/r:Q8_0").missing == HubReference("o/r", quant="Q8_0")
    assert bench.locate("hf:p/r").missing is not None


def test_what_was_taken_for_want_of_the_usual_is_found_again(bench: Bench) -> None:
    bench.hub.repositories["o/odd"] = {"m-Q6_K.gguf": MODEL}
    assert bench.pull("hf:o/odd").record.name == "o/odd:Q6_K"
    assert bench.locate("hf:o/odd").name == "o/odd:Q6_K"


def test_files_of_one_name_in_two_repositories_do_not_collide(bench: Bench) -> None:
    one, two = bench.pull("hf:o/r"), bench.pull("hf:p/r")
    assert (one.path.name, two.path.name) == ("m-Q4_K_M.gguf",) * 2
    assert (one.path.read_bytes(), two.path.read_bytes()) == (MODEL, OTHER)
    check_distinct([bench.locate("hf:o/r"), bench.locate("hf:p/r")])
    assert [model.record.name for model in bench.store.pulled()] == ["o/r:Q4_K_M", "p/r:Q4_K_M"]
    with pytest.raises(ConfigError, match="is given twice"):
        bench.locate("hf:o/r", "hf:o/r:Q4_K_M")


def test_files_of_one_name_at_two_addresses_get_two_names(bench: Bench) -> None:
    bench.hub.content = MODEL
    sha256 = hashlib.sha256(MODEL).hexdigest()
    words = [f"{bench.hub.url}/{folder}/m.gguf#sha256={sha256}" for folder in "ab"]
    names = [bench.pull(word).record.name for word in words]
    assert names[0] == "m"
    assert names[1].startswith("m-")
    assert [bench.locate(word).name for word in words] == names
    assert [bench.locate(name).name for name in names] == names


def test_all_parts_of_a_split_model_are_pulled(bench: Bench) -> None:
    model = bench.pull("hf:o/big")
    assert [path.read_bytes() for path in model.files] == [MODEL, PART]
    assert model.size == len(MODEL) + len(PART)
    assert bench.seen[-1] == (model.size, model.size)
    assert [done for done, _ in bench.seen] == sorted(done for done, _ in bench.seen)
    resolved = inspect(bench.locate("hf:o/big:Q8_0"))
    assert resolved.name == "o/big:Q8_0"
    assert resolved.path == model.path
    assert (resolved.header.size, resolved.header.parameters) == (model.size, 2 * 4288)


def test_the_parts_beside_an_address_are_pulled_with_it(bench: Bench) -> None:
    bench.hub.repositories["o/big"] = {
        "b-00001-of-00002.gguf": MODEL,
        "b-00002-of-00002.gguf": PART,
    }
    first = "https://huggingface.co/o/big/resolve/v1/b-00001-of-00002.gguf"
    assert "it was removed" in bench.refusal(f"{first}#sha256={'0' * 64}")
    model = bench.pull(f"{first}#sha256={hashlib.sha256(MODEL).hexdigest()}")
    assert model.record.name == "b"
    assert [path.read_bytes() for path in model.files] == [MODEL, PART]
    plain = f"{bench.hub.url}/b-00001-of-00002.gguf#sha256={'0' * 64}"
    assert "is a part of a split model; these need https://" in bench.refusal(plain)


def test_a_split_model_goes_on_with_the_part_that_is_missing(bench: Bench) -> None:
    bench.hub.statuses = [200, 200, 200, 404]
    assert "does not exist" in bench.refusal("hf:o/big")
    assert bench.store.pulled() == []
    assert bench.locate("hf:o/big").missing is not None
    bench.asked()
    bench.pull("hf:o/big")
    assert [path[-13:] for path in bench.asked()] == ["in?blobs=true", "of-00002.gguf"]


def test_a_split_model_without_a_part_is_not_whole(bench: Bench) -> None:
    model = bench.pull("hf:o/big")
    model.files[1].unlink()
    assert bench.store.pulled() == []
    with pytest.raises(ModelFileError, match=r"00002-of-00002.gguf is missing; a split model"):
        inspect(bench.locate(str(model.path)))
    model.files[1].write_bytes(PART[:-200])
    with pytest.raises(ModelFileError, match="is truncated"):
        inspect(bench.locate(str(model.path)))
    with pytest.raises(ModelFileError, match="is a later part of a model; give the first"):
        inspect(bench.locate(str(model.files[1])))


def test_a_quantisation_that_is_not_there_names_those_that_are(bench: Bench) -> None:
    assert bench.refusal("hf:o/r:Q5_0") == "o/r has no Q5_0; it has Q4_K_M, Q8_0"
    assert "it has m-Q4_K_M.gguf, m-Q8_0.gguf" in bench.refusal("hf:o/r/x.gguf")
    assert "does not exist" in bench.refusal("hf:o/none")


@pytest.mark.parametrize(
    ("statuses", "code", "cause"),
    [
        ([200, 401], "GatedRepo", "accept the model's licence on its page and set HF_TOKEN"),
        ([200, 403], "GatedRepo", "accept the model's licence on its page and set HF_TOKEN"),
        ([401], "RepoNotFound", "the repository o/r does not exist, or is private"),
        ([401], None, "the repository o/r needs permission (401); check its name"),
        ([500] * 9, None, "the server answers 500"),
    ],
)
def test_closed_doors_name_the_remedy(
    bench: Bench, statuses: list[int], code: str | None, cause: str
) -> None:
    bench.hub.statuses, bench.hub.error_code = statuses, code
    assert cause in bench.refusal("hf:o/r")


def test_the_token_of_the_login_is_sent(bench: Bench, tmp_path: Path) -> None:
    (bench.home / "hf").mkdir(parents=True)
    (bench.home / "hf" / "token").write_text("hf_from_login\n")
    bench.pull("hf:o/r")
    assert bench.hub.tokens == ["Bearer hf_from_login"] * 3
    (tmp_path / "elsewhere").write_text("hf_by_path")
    bench.pull("hf:o/r:Q8_0", HF_TOKEN_PATH=str(tmp_path / "elsewhere"))
    assert bench.hub.tokens[3] == "Bearer hf_by_path"
    bench.pull("hf:p/r", HF_TOKEN="hf_set")
    assert bench.hub.tokens[6] == "Bearer hf_set"
    assert "HF_TOKEN is not a token" in bench.refusal("hf:o/big", HF_TOKEN="two words")


def test_offline_nothing_is_asked(bench: Bench) -> None:
    assert "HF_HUB_OFFLINE is set; unset it" in bench.refusal("hf:o/r", HF_HUB_OFFLINE="1")
    assert bench.asked() == []


def test_bytes_that_are_not_the_repositorys_are_removed(bench: Bench) -> None:
    bench.hub.repositories = {"o/r": {"m-Q4_K_M.gguf": MODEL}}
    reference = HubReference("o/r")
    wanted = plan(reference, load_catalog(), bench.store, bench.environ, QUICK)
    bench.hub.repositories = {"o/r": {"m-Q4_K_M.gguf": MODEL[:-1] + b"x"}}
    with pytest.raises(ModelFileError, match="it was removed"):
        pull_plan(wanted, bench.store, bench.report, bench.environ, QUICK)
    bench.hub.repositories = {"o/r": {"m-Q4_K_M.gguf": MODEL + b"x"}}
    with pytest.raises(ModelFileError, match=f"bytes instead of {len(MODEL)}"):
        pull_plan(wanted, bench.store, bench.report, bench.environ, QUICK)
    files = [path.name for path in bench.store.place(reference).iterdir() if path.is_file()]
    assert files == [".m-Q4_K_M.gguf.lock"]


def test_a_cut_answer_without_a_length_goes_on_where_it_stopped(bench: Bench) -> None:
    bench.hub.names_length = False
    bench.hub.cuts = [1000]
    assert bench.pull("hf:o/r").path.read_bytes() == MODEL
    assert bench.hub.ranges[-1] == "bytes=1000-"


def test_paths_that_leave_the_repository_are_not_seen(bench: Bench) -> None:
    bench.hub.repositories["o/evil"] = {
        "../../../m-Q4_K_M.gguf": MODEL,
        "/etc/m-Q4_K_M.gguf": MODEL,
        "a/../m-Q4_K_M.gguf": MODEL,
    }
    assert "o/evil holds no GGUF model" in bench.refusal("hf:o/evil")


def test_an_endpoint_that_is_no_hub_is_told() -> None:
    with serve_hub(b"<html>Sign in</html>") as portal:
        portal.location = "/portal"
        environ = {"HF_ENDPOINT": f"{portal.url}/x/resolve"}
        with Web(environ) as web, pytest.raises(ModelFileError, match="check HF_ENDPOINT"):
            read_repository("o/r", web, QUICK)


def test_two_pullers_of_a_reference_fetch_it_once(bench: Bench) -> None:
    reference = HubReference("o/r")
    wanted = plan(reference, load_catalog(), bench.store, bench.environ, QUICK)
    bench.asked()
    models = []

    def pull() -> None:
        models.append(pull_plan(wanted, bench.store, bench.report, bench.environ, QUICK))

    threads = [threading.Thread(target=pull) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert models == [models[0]] * 3
    assert len(bench.asked()) == 1


@pytest.mark.parametrize("text", ["", "{}", '{"name": 3}', "[]", "not json"])
def test_a_record_that_cannot_be_read_counts_for_nothing(bench: Bench, text: str) -> None:
    model = bench.pull("hf:o/r")
    model.path.with_name(f"{model.path.name}.json").write_text(text)
    assert bench.store.pulled() == []
    assert bench.pull("hf:o/r").path == model.path


def test_a_record_cannot_name_files_outside(bench: Bench) -> None:
    model = bench.pull("hf:o/r")
    record = model.path.with_name(f"{model.path.name}.json")
    outside = bench.store.directory / "outside.gguf"
    outside.write_bytes(MODEL)
    entry = f'{{"file":"../../../outside.gguf","size":{len(MODEL)},"sha256":""}}'
    record.write_text(record.read_text().replace('"files": [', f'"files": [{entry},'))
    assert bench.store.pulled() == []
