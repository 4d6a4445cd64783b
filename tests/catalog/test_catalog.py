from __future__ import annotations

from pathlib import Path

import pytest

from server.catalog import Catalog, ModelStore, inspect, load_catalog, locate
from server.core.errors import ConfigError, ModelFileError
from server.core.types import SamplingParams
from tests.gguf_files import write_gguf

DEFAULT = "smollm2-135m-instruct"


@pytest.fixture
def catalog() -> Catalog:
    return load_catalog()


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path)


def test_the_default_model_is_pinned(catalog: Catalog) -> None:
    spec = catalog.find(DEFAULT)
    assert spec is not None
    assert spec.verified
    assert spec.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert spec.sampling == {"temperature": 0.2, "top_p": 0.9}


def test_the_entries_are_consistent(catalog: Catalog) -> None:
    words = [word for spec in catalog for word in (spec.name, *spec.aliases)]
    assert len(words) == len(set(words))
    assert len({spec.file for spec in catalog}) == len(list(catalog))
    for spec in catalog:
        assert set(spec.sampling) <= set(SamplingParams.__struct_fields__)
        assert not spec.verified or spec.sha256
        assert spec.source.endswith(spec.file)


def test_names_and_aliases_are_found_in_any_case(catalog: Catalog) -> None:
    assert catalog.find("SmolLM2") is catalog.find(DEFAULT)
    assert catalog.find("gpt-5") is None


@pytest.mark.parametrize(
    "text",
    [
        "models = 3",
        "[[models]]\nname = 'x'",
        "[[models]]\nnmae = 'x'",
        "not toml",
    ],
)
def test_a_wrong_catalogue_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not a valid catalogue"):
        load_catalog(path)


def test_a_catalogue_name_may_not_be_here_yet(catalog: Catalog, store: ModelStore) -> None:
    (target,) = locate(["smollm2"], catalog, store)
    assert target.name == DEFAULT
    assert target.spec is not None
    assert target.path == store.directory / target.spec.file
    assert not store.has(target.spec)


def test_a_verified_file_of_another_size_does_not_count(
    catalog: Catalog, store: ModelStore
) -> None:
    spec = catalog.find(DEFAULT)
    assert spec is not None
    write_gguf(store.path(spec))
    assert not store.has(spec)


def test_a_path_gives_its_stem_as_name(catalog: Catalog, store: ModelStore, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "My.Model-Q4.gguf")
    (target,) = locate([str(path)], catalog, store)
    model = inspect(target)
    assert (model.name, model.path, model.sampling) == ("My.Model-Q4", path, {})
    assert model.header.quantisation == "Q4_1"


@pytest.mark.parametrize("word", ["mine", "mine.gguf"])
def test_a_file_in_the_store_is_served_by_name(
    catalog: Catalog, store: ModelStore, word: str
) -> None:
    path = write_gguf(store.directory / "mine.gguf")
    assert locate([word], catalog, store)[0].path == path
    assert store.others(catalog) == [path]


def test_a_missing_path_is_a_file_error(catalog: Catalog, store: ModelStore) -> None:
    for word in ("./no.gguf", "no.gguf", "/no/where"):
        (target,) = locate([word], catalog, store)
        with pytest.raises(ModelFileError, match="does not exist; check the path"):
            inspect(target)


def test_an_unknown_name_lists_close_ones(catalog: Catalog, store: ModelStore) -> None:
    with pytest.raises(ConfigError) as caught:
        locate(["smolm2-135m"], catalog, store)
    assert f"unknown model smolm2-135m: did you mean {DEFAULT}" in caught.value.message
    assert "phi-4-mini-instruct" in caught.value.message


def test_two_models_may_not_share_a_name(
    catalog: Catalog, store: ModelStore, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    one, two = write_gguf(tmp_path / "a.gguf"), write_gguf(tmp_path / "other/a.gguf")
    with pytest.raises(ConfigError, match=r"two models are called a: .*rename one file"):
        locate([str(one), str(two)], catalog, store)
    with pytest.raises(ConfigError, match="is given twice"):
        locate(["smollm2", DEFAULT], catalog, store)
