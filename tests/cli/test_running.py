"""`ingle ps`, `load`, `stop`, `cancel`, `reload`: against a server that answers as Ingle does."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.command import ingle, refusal
from tests.cli.fake_server import FakeServer


def lines(home: Path, fake: FakeServer, *words: str) -> list[str]:
    done = ingle(home, *words, "--url", fake.url)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_ps_shows_models_and_memory(home: Path, fake: FakeServer) -> None:
    title, tiny, large, _, memory = lines(home, fake, "ps")
    assert title.split("  ")[0] == "NAME"
    cells = [cell.strip() for cell in tiny.split("  ") if cell.strip()]
    assert cells == ["tiny", "loaded", "1.5 GB", "2, 1 waiting", "8 × 4096", "in 5 min"]
    cells = [cell.strip() for cell in large.split("  ") if cell.strip()]
    assert cells == ["large", "unloaded", "about 5 GB", "0", "-", "-"]
    assert memory == "1.5 GB of 8 GB are taken"


def test_ps_tells_when_a_model_goes_and_why_one_failed(home: Path, fake: FakeServer) -> None:
    tiny, large = fake.models
    tiny |= {"unloads_in_seconds": None, "waiting": 0}
    large |= {"status": "failed", "error": "too little memory"}
    shown = lines(home, fake, "ps")
    assert shown[1].endswith("10 min after its last request")
    assert shown[-1] == "large: too little memory"
    tiny |= {"keep_alive_seconds": None}
    assert lines(home, fake, "ps")[1].endswith("when others need the memory")
    tiny |= {"pinned": True, "replicas": tiny["replicas"] * 2}
    assert lines(home, fake, "ps")[1].endswith("2 × (8 × 4096)   never")


def test_ps_shows_requests(home: Path, fake: FakeServer) -> None:
    title, row = lines(home, fake, "ps", "--requests")
    assert title.startswith("REQUEST")
    assert row.split()[:5] == ["req_1", "tiny", "decode", "3", "s"]
    assert "24 tokens" in row and "7 tokens" in row


def test_ps_in_json_is_what_the_server_says(home: Path, fake: FakeServer) -> None:
    told = json.loads(ingle(home, "ps", "--json", "--url", fake.url).stdout)
    assert [model["id"] for model in told["data"]] == ["tiny", "large"]
    told = json.loads(ingle(home, "ps", "-r", "--json", "--url", fake.url).stdout)
    assert told["data"][0]["id"] == "req_1"


def test_a_model_is_loaded_and_stopped(home: Path, fake: FakeServer) -> None:
    assert lines(home, fake, "load", "large", "--keep-alive", "10m") == ["large is loaded"]
    assert fake.bodies("/admin/models/load") == [{"model": "large", "keep_alive": "10m"}]
    assert lines(home, fake, "stop", "tiny") == ["tiny is out of memory"]
    assert [model["status"] for model in fake.models] == ["unloaded", "loaded"]
    done = ingle(home, "load", "tiny", "--json", "--url", fake.url)
    assert json.loads(done.stdout)["status"] == "loaded"


def test_a_request_is_cancelled(home: Path, fake: FakeServer) -> None:
    assert lines(home, fake, "cancel", "req_1") == ["req_1 is cancelled"]
    assert fake.asked[-1][:2] == ("DELETE", "/admin/requests/req_1")
    message = refusal(home, "cancel", "../models", "--url", fake.url)
    assert message == "There is no such request inside."
    assert fake.asked[-1][1] == "/admin/requests/..%2Fmodels"


def test_what_the_server_refuses_is_told_in_its_words(home: Path, fake: FakeServer) -> None:
    fake.models[0]["pinned"] = True
    assert refusal(home, "stop", "tiny", "--url", fake.url) == "tiny is pinned."


def test_an_unknown_model_gets_a_hint(home: Path, fake: FakeServer) -> None:
    message = refusal(home, "stop", "tinny", "--url", fake.url)
    assert message == "the server has no model tinny; did you mean tiny?"
    message = refusal(home, "load", "zzz", "--url", fake.url)
    assert message == "the server has no model zzz; it has tiny, large"


def test_reload_tells_what_changed(home: Path, fake: FakeServer) -> None:
    shown = lines(home, fake, "reload")
    assert shown == ["changed: model.tiny.pin", "changed, and wants a restart: port"]
    fake.reloaded = {key: [] for key in fake.reloaded}
    assert lines(home, fake, "reload") == ["nothing has changed"]


def test_where_nobody_answers_the_remedy_is_told(home: Path) -> None:
    message = refusal(home, "ps", INGLE_PORT="9")
    assert message.startswith(
        "no server answers at http://127.0.0.1:9; start one with `ingle serve`"
    )
    assert refusal(home, "ps", "--url", "nowhere").startswith("nowhere is not a URL")


def test_a_wrong_key_is_told_with_its_remedy(home: Path, fake: FakeServer) -> None:
    fake.admin_key = "secret"
    message = refusal(home, "ps", "--url", fake.url)
    assert message == (
        "Incorrect key. Pass the server's key with --admin-key or in INGLE_ADMIN_KEY"
    )


def test_the_address_is_that_of_the_flag_the_variable_or_the_settings(
    home: Path, fake: FakeServer
) -> None:
    port = fake.url.rsplit(":", 1)[1]
    assert ingle(home, "ps", INGLE_PORT=port).returncode == 0
    assert ingle(home, "ps", INGLE_URL=f"{fake.url}/v1/").returncode == 0
    assert ingle(home, "ps", "--url", fake.url, INGLE_URL="http://127.0.0.1:9").returncode == 0


def test_a_proxy_is_not_asked_for_this_machine(home: Path, fake: FakeServer) -> None:
    done = ingle(home, "ps", "--url", fake.url, HTTP_PROXY="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr


def test_keys_of_the_settings_file_go_to_its_own_server_alone(home: Path, fake: FakeServer) -> None:
    port = fake.url.rsplit(":", 1)[1]
    (home / "ingle.toml").write_text(f'port = {port}\nadmin_key = "mine"\napi_key = "other"')
    assert ingle(home, "ps").returncode == 0
    assert fake.keys.pop() == "mine"
    (home / "ingle.toml").write_text('admin_key = "mine"')
    assert ingle(home, "ps", "--url", fake.url).returncode == 0
    assert fake.keys.pop() is None
    assert ingle(home, "ps", "--url", fake.url, INGLE_ADMIN_KEY="given").returncode == 0
    assert fake.keys.pop() == "given"
    assert ingle(home, "ps", "--url", fake.url, "--admin-key", "flag").returncode == 0
    assert fake.keys.pop() == "flag"
    assert ingle(home, "ps", "--url", fake.url, INGLE_API_KEY="a,b").returncode == 0
    assert fake.keys.pop() == "a", "a server without an admin key may want this one"
