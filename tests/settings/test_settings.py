from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from server.core.errors import ConfigError
from server.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(
    environ: Mapping[str, str] | None = None, config: Path | None = None, **flags: object
) -> Settings:
    return load_settings(flags, config, {"HOME": str(Path.cwd())} | dict(environ or {}))


def refusal(
    environ: Mapping[str, str] | None = None, config: Path | None = None, **flags: object
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(environ, config, **flags)
    assert "\n" not in caught.value.message
    return caught.value.message


def toml(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_defaults(empty_place: Path) -> None:
    settings = load()
    assert settings.models == ("smollm2-135m-instruct",)
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.models_dir == empty_place / ".local/share/ingle/models"
    assert (settings.ctx, settings.slots, settings.threads) == (None, None, None)
    assert not settings.has_keys
    assert settings.cors_origins == ("localhost",)


def test_flag_beats_variable_beats_file_beats_default(empty_place: Path) -> None:
    file = toml(empty_place / "some.toml", "port = 1111\nslots = 2\nthreads = 3\nmodels = ['a']")
    environ = {"INGLE_PORT": "2222", "INGLE_SLOTS": "4"}
    settings = load(environ, file, port=3333, slots=None)
    assert (settings.port, settings.slots, settings.threads) == (3333, 4, 3)
    assert settings.models == ("a",)
    assert settings.max_waiting == 256


def test_the_first_file_found_is_the_only_one_read(empty_place: Path) -> None:
    xdg = empty_place / "xdg"
    toml(xdg / "ingle/config.toml", "port = 1111\nslots = 5")
    environ = {"XDG_CONFIG_HOME": str(xdg)}
    assert load(environ).port == 1111
    toml(empty_place / "ingle.toml", "port = 2222")
    settings = load(environ)
    assert (settings.port, settings.slots) == (2222, None)


def test_a_variable_can_name_the_file_and_the_flag_beats_it(empty_place: Path) -> None:
    by_variable = toml(empty_place / "v.toml", "port = 1111")
    by_flag = toml(empty_place / "f.toml", "port = 2222")
    environ = {"INGLE_CONFIG": str(by_variable)}
    assert load(environ).port == 1111
    assert load(environ, by_flag).port == 2222


def test_a_named_file_must_exist() -> None:
    assert "nowhere.toml does not exist" in refusal(config=Path("nowhere.toml"))
    assert "gone.toml does not exist" in refusal({"INGLE_CONFIG": "gone.toml"})


def test_broken_toml_is_named_with_its_line(empty_place: Path) -> None:
    message = refusal(config=toml(empty_place / "bad.toml", "port = = 3"))
    assert "bad.toml is not valid TOML" in message
    assert "line 1" in message


@pytest.mark.parametrize(
    ("key", "hint"),
    [("prot", "port"), ("gpu-layers", "gpu_layers"), ("Slot", "slots"), ("modles", "models")],
)
def test_an_unknown_key_gets_a_hint(empty_place: Path, key: str, hint: str) -> None:
    file = toml(empty_place / "c.toml", f"{key} = 1")
    assert refusal(config=file) == f"unknown key {key} in {file} (did you mean {hint}?)"


def test_an_unknown_variable_gets_a_hint() -> None:
    message = "unknown variable INGLE_THREAD (did you mean INGLE_THREADS?)"
    assert refusal({"INGLE_THREAD": "2"}) == message
    assert refusal({"INGLE_ZZZ": "2"}) == "unknown variable INGLE_ZZZ"


def test_an_empty_variable_is_not_set() -> None:
    assert not load({"INGLE_API_KEY": "", "INGLE_PORT": "", "INGLE_WHATEVER": ""}).has_keys


def test_kubernetes_service_links_are_ignored() -> None:
    environ = {
        "INGLE_SERVICE_HOST": "10.0.0.1",
        "INGLE_SERVICE_PORT": "8000",
        "INGLE_SERVICE_PORT_HTTP": "8000",
        "INGLE_PORT": "tcp://10.0.0.1:8000",
        "INGLE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "INGLE_PORT_8000_TCP_ADDR": "10.0.0.1",
        "INGLE_METRICS_SERVICE_HOST": "10.0.0.2",
        "INGLE_METRICS_PORT": "tcp://10.0.0.2:9000",
    }
    assert load(environ).port == 8000
    assert load(environ | {"INGLE_PORT": "9000"}).port == 9000


@pytest.mark.parametrize(
    ("text", "models"),
    [("a", ("a",)), ("a, b ,c", ("a", "b", "c")), ('["a,b.gguf", "c"]', ("a,b.gguf", "c"))],
)
def test_models_in_a_variable(text: str, models: tuple[str, ...]) -> None:
    assert load({"INGLE_MODELS": text}).models == models


@pytest.mark.parametrize("text", [",", "[", "[]", '[""]', "[1]"])
def test_wrong_models_in_a_variable(text: str) -> None:
    assert f"INGLE_MODELS={text} is not valid" in refusal({"INGLE_MODELS": text})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("port", 0),
        ("port", 65_536),
        ("port", True),
        ("port", "http"),
        ("ctx", 63),
        ("slots", 0),
        ("slots", 257),
        ("threads", 0),
        ("gpu_layers", -2),
        ("target_step_ms", float("nan")),
        ("target_step_ms", 0),
        ("watchdog_seconds", 0.1),
        ("max_waiting", -1),
        ("max_body_bytes", 1),
        ("max_choices", 0),
        ("log_level", "loud"),
        ("host", ""),
        ("models", ()),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(key: str, value: object) -> None:
    message = refusal(**{key: value})
    assert f" is not valid: {key} is " in message
    assert message.endswith(str(Settings.model_fields[key].description))


def test_a_wrong_value_names_its_place(empty_place: Path) -> None:
    what = "is not valid: port is the TCP port to listen on, 1 to 65535"
    assert refusal(port="x y") == f"--port 'x y' {what}"
    assert refusal({"INGLE_PORT": "no"}) == f"INGLE_PORT=no {what}"
    file = toml(empty_place / "c.toml", "port = [1]")
    assert refusal(config=file) == f"port = [1] in {file} {what}"


@pytest.mark.parametrize("key", ["has space", "ключ", "line\nbreak"])
def test_a_key_that_cannot_be_a_header_is_refused_and_not_shown(key: str) -> None:
    message = refusal({"INGLE_API_KEY": key})
    assert "INGLE_API_KEY=*** is not valid" in message
    assert key not in message


def test_keys_are_not_shown() -> None:
    settings = load({"INGLE_API_KEY": "sk-secret, sk-two"})
    assert "sk-" not in repr(settings)
    assert [key.get_secret_value() for key in settings.api_key] == ["sk-secret", "sk-two"]
    assert settings.has_keys
    assert load(api_key=("sk,with,commas",)).api_key[0].get_secret_value() == "sk,with,commas"


@pytest.mark.parametrize(
    ("text", "aliases"),
    [
        ("a=b", {"a": "b"}),
        ("gpt-4o=m , org/x=./my=model.gguf", {"gpt-4o": "m", "org/x": "./my=model.gguf"}),
        ('{"a": "b,c"}', {"a": "b,c"}),
    ],
)
def test_aliases_in_a_variable(text: str, aliases: dict[str, str]) -> None:
    assert load({"INGLE_ALIASES": text}).aliases == aliases


def test_aliases_in_a_file(empty_place: Path) -> None:
    toml(empty_place / "ingle.toml", '[aliases]\n"gpt-4o" = "m"')
    assert load().aliases == {"gpt-4o": "m"}


@pytest.mark.parametrize("text", ["a", "a=", "=b", "a=b,c"])
def test_wrong_aliases_in_a_variable(text: str) -> None:
    assert f"INGLE_ALIASES={text} is not valid" in refusal({"INGLE_ALIASES": text})


def test_origins_in_a_variable() -> None:
    settings = load({"INGLE_CORS_ORIGINS": "localhost, https://a.example:8443,app://obsidian.md"})
    assert settings.cors_origins == ("localhost", "https://a.example:8443", "app://obsidian.md")


@pytest.mark.parametrize("text", ["a.example", "https://a.example/", "https://*.example", "**"])
def test_a_wrong_origin_is_refused(text: str) -> None:
    assert "cors_origins is the web origins" in refusal({"INGLE_CORS_ORIGINS": text})


def test_hosts_in_a_variable() -> None:
    settings = load({"INGLE_ALLOWED_HOSTS": "chat.example, *.lan,[::1],fd00::7,10.0.0.1,*"})
    assert settings.allowed_hosts == ("chat.example", "*.lan", "[::1]", "fd00::7", "10.0.0.1", "*")


@pytest.mark.parametrize("text", ["a:80", "http://a", "a/b", "*a", "a.*", "**", "[::1]:80", "a b"])
def test_a_wrong_host_is_refused(text: str) -> None:
    assert "allowed_hosts is the names" in refusal({"INGLE_ALLOWED_HOSTS": text})


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("off", False)])
def test_switches(text: str, value: bool) -> None:
    settings = load({"INGLE_STRICT_PARAMS": text, "INGLE_ACCEPT_ANY_MODEL": text})
    assert (settings.strict_params, settings.accept_any_model) == (value, value)
    assert "strict_params is true or false" in refusal({"INGLE_STRICT_PARAMS": "maybe"})


def test_directories_follow_xdg_and_tilde(empty_place: Path) -> None:
    assert load({"XDG_DATA_HOME": "/data"}).models_dir == Path("/data/ingle/models")
    relative = load({"XDG_DATA_HOME": "data"}).models_dir
    assert relative == empty_place / ".local/share/ingle/models"
    assert load(models_dir="~/m").models_dir == Path("~/m").expanduser()


def test_built_directly_it_reads_nothing_and_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "INGLE_PORT", "9999")
    toml(Path("ingle.toml"), "port = 7777")
    settings = Settings(slots=2)
    assert settings.port == 8000
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="extra"):
        Settings(nonsense=1)  # type: ignore[call-arg]


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())
