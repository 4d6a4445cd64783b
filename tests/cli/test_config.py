"""`ingle config`: what holds here, where it is from, and what a settings file may say."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from server.cli.config import schema, settings_values
from server.settings import Settings, load_settings
from tests.cli.command import ingle, refusal


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def shown(home: Path, *words: str, **variables: str) -> str:
    done = ingle(home, "config", *words, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_what_is_shown_is_a_settings_file_that_says_the_same(home: Path) -> None:
    file = home / "ingle.toml"
    file.write_text(
        'port = 9000\nkeep_alive = "10m"\naliases = {a = "b", "c d" = "e"}\n'
        'cors_origins = "https://x.example, localhost"\nmodels_dir = "/m"\n'
        '[model."hf:o/r:Q4_K_M"]\nslots = 2\nkeep_alive = -1\npin = true\n'
    )
    before = load_settings({}, file, {"HOME": str(home)})
    told = shown(home, "show")
    assert "port = 9000\n" in told and "keep_alive = 600.0\n" in told
    assert "# ctx is not set\n" in told
    copy = home / "copy.toml"
    copy.write_text(told)
    assert load_settings({}, copy, {"HOME": str(home)}) == before


def test_each_value_with_its_origin(home: Path) -> None:
    (home / "ingle.toml").write_text("port = 9000\nslots = 2")
    told = shown(home, "show", "--origin", INGLE_SLOTS="3")
    origins = {line.rpartition("  # ")[2]: line for line in told.splitlines()}
    assert {"default", "ingle.toml", "INGLE_SLOTS"} == set(origins)
    assert origins["INGLE_SLOTS"].startswith("slots = 3 ")
    values = json.loads(shown(home, "show", "--origin", "--json", INGLE_SLOTS="3"))
    assert values["port"] == {"value": 9000, "kind": "file", "place": "ingle.toml"}
    assert values["slots"] == {"value": 3, "kind": "variable", "place": "INGLE_SLOTS"}
    assert values["host"] == {"value": "127.0.0.1", "kind": "default", "place": ""}
    assert values.keys() == Settings.model_fields.keys()
    plain = json.loads(shown(home, "show", "--json"))
    assert (plain["port"], plain["keep_alive"], plain["ctx"]) == (9000, -1, None)


def test_keys_are_not_shown_and_not_read_back(home: Path) -> None:
    given = {"INGLE_API_KEY": "my-secret,other", "INGLE_ADMIN_KEY": "top-secret"}
    for words in (
        ("show",),
        ("show", "--origin"),
        ("show", "--json"),
        ("show", "--json", "--origin"),
    ):
        told = shown(home, *words, **given)
        assert "secret" not in told and "***" in told
    read = tomllib.loads(shown(home, "show", **given))
    assert not {"api_key", "admin_key"} & read.keys()


def test_a_wrong_file_is_told_of(home: Path) -> None:
    (home / "ingle.toml").write_text("prot = 1")
    assert refusal(home, "config", "show").startswith("unknown key prot in ingle.toml")


def test_where_the_file_is(home: Path) -> None:
    done = ingle(home, "config", "path")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"  {home}/.config/ingle/config.toml\n" in done.stderr
    (home / "ingle.toml").write_text("")
    assert shown(home, "path") == f"{home}/ingle.toml\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        'models = ["a", "b"]\nport = 8001\ngpu_layers = -1\nwatchdog_seconds = 0.5',
        'models = "a, b"\naliases = "x=a"\ncors_origins = ["*"]\nkeep_alive = "1h30m"',
        'keep_alive = -1\naliases = {x = "a"}\nlog_level = "debug"\n[model.a]\nkeep_alive = "5m"',
    ],
)
def test_the_schema_takes_what_the_server_takes(home: Path, text: str) -> None:
    file = home / "x.toml"
    file.write_text(text)
    load_settings({}, file, {"HOME": str(home)})
    jsonschema.validate(tomllib.loads(text), schema())


@pytest.mark.parametrize(
    "text",
    [
        "prot = 1",
        "port = 0",
        "port = 70000",
        'log_level = "loud"',
        "watchdog_seconds = 0.1",
        "strict_params = 3",
        "[model.a]\nslot = 1",
        "[model.a]\nslots = 0",
    ],
)
def test_the_schema_refuses_what_the_server_refuses(home: Path, text: str) -> None:
    file = home / "x.toml"
    file.write_text(text)
    with pytest.raises(Exception, match=r"unknown key|is not valid"):
        load_settings({}, file, {"HOME": str(home)})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(text), schema())


def test_the_schema_is_sound_and_says_what_each_setting_is(home: Path) -> None:
    told = json.loads(shown(home, "schema"))
    jsonschema.Draft202012Validator.check_schema(told)
    assert told == json.loads(json.dumps(schema(), allow_nan=False)), "no Infinity: JSON has none"
    assert told["properties"].keys() == Settings.model_fields.keys()
    assert all(one["description"] for one in told["properties"].values())
    jsonschema.validate(_set(settings_values(Settings())), told)


def _set(values: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}
