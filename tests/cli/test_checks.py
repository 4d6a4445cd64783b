from __future__ import annotations

import socket
from pathlib import Path

import pytest

from server.catalog import ResolvedModel, read_header
from server.cli import checks
from server.core.errors import ConfigError, OutOfMemory
from server.settings import Settings
from tests.gguf_files import write_gguf


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    checks.check_exposure(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7"])
def test_other_addresses_need_a_key(host: str) -> None:
    with pytest.raises(ConfigError, match="protect it with --api-key"):
        checks.check_exposure(Settings(host=host))
    checks.check_exposure(Settings(host=host, api_key="k"))
    checks.check_exposure(Settings(host=host, api_key_file="keys"))


@pytest.mark.parametrize("host", ["::", "0", "::ffff:192.0.2.7"])
def test_every_spelling_of_every_address_needs_one_too(host: str) -> None:
    with pytest.raises(ConfigError, match="opens the server to the network"):
        checks.check_exposure(Settings(host=host))


def test_without_a_key_it_must_be_wanted_and_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match="pass --insecure to let everybody in"):
        checks.check_exposure(Settings(host="0.0.0.0"))
    checks.check_exposure(Settings(host="0.0.0.0", insecure=True))
    assert "INSECURE: 0.0.0.0 is open to everybody" in caplog.text
    assert "any web page that one of them visits" in caplog.text
    caplog.clear()
    checks.check_exposure(Settings(host="0.0.0.0", insecure=True, allowed_hosts=("box.lan",)))
    assert "INSECURE" in caplog.text and "web page" not in caplog.text
    caplog.clear()
    checks.check_exposure(Settings(insecure=True))
    checks.check_exposure(Settings(host="0.0.0.0", insecure=True, api_key="k"))
    assert not caplog.text


def test_a_name_that_is_no_address_is_refused_whatever_protects_it() -> None:
    for settings in (Settings(host="no.such.invalid"), Settings(host="a b", api_key="k")):
        with pytest.raises(ConfigError, match="is not an address of this machine"):
            checks.check_exposure(settings)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_key_file_for_all_to_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    file = tmp_path / "keys"
    file.write_text("sk-1\n")
    file.chmod(mode)
    checks.check_keys(Settings(api_key_file=file))
    assert ("chmod o-r it" in caplog.text) == warned
    assert "sk-1" not in caplog.text
    with pytest.raises(ConfigError, match="cannot read the key file"):
        checks.check_keys(Settings(api_key_file=tmp_path / "none"))


def test_a_free_port_passes_and_stays_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = int(sock.getsockname()[1])
    checks.check_port("127.0.0.1", port)
    checks.check_port("127.0.0.1", port)


def test_the_port_proposed_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = int(sock.getsockname()[1])
        with pytest.raises(ConfigError) as caught:
            checks.check_port("127.0.0.1", port)
    proposed = int(caught.value.message.rsplit("--port ", 1)[1])
    assert proposed > port
    checks.check_port("127.0.0.1", proposed)


def test_weights_that_can_never_fit_are_refused(tmp_path: Path) -> None:
    """Several models take turns, but each of them alone must fit."""
    path = write_gguf(tmp_path / "m.gguf")
    model = ResolvedModel("m", path, {}, read_header(path))
    checks.check_memory([model, model], model.header.size)
    with pytest.raises(OutOfMemory, match=r"too little memory: m takes .* 1 kB may be taken"):
        checks.check_memory([model, model], 1000)
