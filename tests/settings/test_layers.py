"""Where a setting is from, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.core.errors import ConfigError
from server.settings import Origin, Settings, read_settings


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "ingle.toml"


def test_each_value_knows_its_place(file: Path) -> None:
    file.write_text("port = 1111\nslots = 2")
    environ = {"HOME": str(file.parent), "INGLE_PORT": "2222", "INGLE_THREADS": "3"}
    loaded = read_settings({"threads": "4", "models": ("a",), "ctx": None}, None, environ)
    settings, origins, path = loaded
    assert (settings.port, settings.threads, settings.slots) == (2222, 4, 2)
    assert path == Path("ingle.toml")
    assert origins["models"] == Origin("flag", "MODEL")
    assert origins["threads"] == Origin("flag", "--threads")
    assert origins["port"] == Origin("variable", "INGLE_PORT")
    assert origins["slots"] == Origin("file", "ingle.toml")
    assert origins["ctx"] == origins["models_dir"] == Origin("default")
    assert set(origins) == set(Settings.model_fields)


def test_without_a_file_there_is_none(file: Path) -> None:
    assert read_settings({}, None, {"HOME": str(file.parent)}).file is None


def test_the_address_of_a_server_to_ask_is_no_setting_and_no_mistake(file: Path) -> None:
    read_settings({}, None, {"HOME": str(file.parent), "INGLE_URL": "http://somewhere"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "slot = 2",
            'unknown key slot in [model."a.b"] of ingle.toml (did you mean slots?)',
        ),
        (
            "slots = 900",
            'slots = 900 in [model."a.b"] of ingle.toml is not valid: slots is how many sequences'
            " run at once, 1 to 256",
        ),
    ],
)
def test_a_models_own_table_is_explained(file: Path, text: str, message: str) -> None:
    file.write_text(f'[model."a.b"]\n{text}')
    with pytest.raises(ConfigError) as caught:
        read_settings({}, None, {"HOME": str(file.parent)})
    assert caught.value.message == message


@pytest.mark.parametrize("key", ["api_key", "admin_key"])
def test_a_wrong_key_is_not_shown(file: Path, key: str) -> None:
    environ = {"HOME": str(file.parent), f"INGLE_{key.upper()}": "se cret"}
    with pytest.raises(ConfigError) as caught:
        read_settings({}, None, environ)
    assert "cret" not in caught.value.message
    assert f"INGLE_{key.upper()}=*** is not valid" in caught.value.message
