"""`ingle run` for scripts: one answer, against a server that answers as Ingle does."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from tests.cli.command import command, environment, ingle, refusal
from tests.cli.fake_server import FakeServer
from tests.gguf_files import PLAIN, STRING, U32, gguf, write_gguf

CHAT = "/v1/chat/completions"


def asked(fake: FakeServer) -> dict[str, object]:
    return fake.bodies(CHAT)[-1]


def test_an_answer_is_all_that_standard_output_has(home: Path, fake: FakeServer) -> None:
    done = ingle(home, "run", "tiny", "say", "this", "--url", fake.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "say this\n", "")
    assert asked(fake)["messages"] == [{"role": "user", "content": "say this"}]


def test_what_is_piped_in_follows_the_prompt(home: Path, fake: FakeServer) -> None:
    done = ingle(home, "run", "tiny", "Summarise:", "--url", fake.url, piped="líne 1\nline 2\n")
    assert done.stdout == "Summarise:\n\nlíne 1\nline 2\n"
    done = ingle(home, "run", "tiny", "--url", fake.url, piped="alone\n")
    assert done.stdout == "alone\n"


def test_nothing_or_no_text_is_not_asked(home: Path, fake: FakeServer) -> None:
    words = ("run", "tiny", "--url", fake.url)
    assert refusal(home, *words).startswith("nothing is asked")
    done = ingle(home, *words, piped=b"\xff\xfe")
    assert (done.returncode, done.stderr) == (2, "error: what is piped in is not UTF-8 text\n")
    assert not fake.asked


def test_without_a_standard_input_the_prompt_is_asked(home: Path, fake: FakeServer) -> None:
    words = command("run", "tiny", "hello", "--url", fake.url)
    closing = ["sh", "-c", 'exec "$@" <&-', "sh", *words]
    done = subprocess.run(
        closing, cwd=home, env=environment(home), capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")


def test_options_reach_the_request(home: Path, fake: FakeServer) -> None:
    words = ("--system", "Be brief.", "--temperature", "0.5", "--max-tokens", "9", "--seed", "3")
    assert ingle(home, "run", "tiny", "x", *words, "--no-think", "--url", fake.url).returncode == 0
    body = asked(fake)
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "x"},
    ]
    wanted = {"temperature": 0.5, "max_tokens": 9, "seed": 3, "enable_thinking": False}
    assert wanted.items() <= body.items()
    assert ingle(home, "run", "tiny", "x", "--url", fake.url).returncode == 0
    assert asked(fake).keys() == {"model", "messages", "stream", "stream_options"}


def test_thoughts_stay_out_of_pipes(home: Path, fake: FakeServer) -> None:
    done = ingle(home, "run", "tiny", "think of it", "--verbose", "--url", fake.url)
    assert done.stdout == "think of it\n"
    assert done.stderr.startswith("4 tokens, ") and "first after" in done.stderr


def test_json_has_the_answer_and_its_figures(home: Path, fake: FakeServer) -> None:
    done = ingle(home, "run", "tiny", "think of it", "--json", "--url", fake.url)
    told = json.loads(done.stdout)
    assert (told["model"], told["content"]) == ("tiny", "think of it")
    assert (told["reasoning"], told["finish_reason"]) == ("let me see ", "stop")
    counts = (told["prompt_tokens"], told["cached_tokens"], told["completion_tokens"])
    assert counts == (9, 2, 4)
    assert 0 < told["first_token_seconds"] <= told["seconds"]


def test_what_goes_wrong_is_one_line_and_a_code(home: Path, fake: FakeServer) -> None:
    assert refusal(home, "run", "tiny", "refuse this", "--url", fake.url) == (
        "Invalid 'temperature'."
    )
    done = ingle(home, "run", "tiny", "break it", "--url", fake.url)
    assert (done.returncode, done.stdout) == (2, "half \n")
    assert done.stderr == "error: The engine ended.\n"
    message = refusal(home, "run", "tinny", "x", "--url", fake.url)
    assert message == f"the server at {fake.url} has no model tinny; did you mean tiny?"
    assert refusal(home, "run", "tiny", "x", INGLE_URL="http://127.0.0.1:9").startswith(
        "no server answers at http://127.0.0.1:9"
    )


def test_a_base_model_goes_on_with_the_text(home: Path, fake: FakeServer) -> None:
    done = ingle(home, "run", "large", "Once upon", "--system", "-", "--think", "--url", fake.url)
    assert done.stdout == "Once upon\n"
    (body,) = fake.bodies("/v1/completions")
    assert (body["prompt"], body["max_tokens"]) == ("Once upon", 256)
    assert "enable_thinking" not in body


def test_a_model_that_writes_nothing_is_refused(home: Path, fake: FakeServer) -> None:
    fake.capabilities["tiny"] = ["embedding"]
    assert refusal(home, "run", "tiny", "x", "--url", fake.url).startswith("tiny generates no text")
    meta = PLAIN | {
        "general.architecture": (STRING, "bert"),
        "bert.context_length": (U32, 512),
        "bert.pooling_type": (U32, 1),
    }
    path = write_gguf(home / "vectors.gguf", gguf(meta=meta))
    assert refusal(home, "run", str(path), "x").startswith("vectors generates no text")


def test_a_server_that_runs_and_has_the_model_is_asked(home: Path, fake: FakeServer) -> None:
    write_gguf(home / "tiny.gguf")
    port = fake.url.rsplit(":", 1)[1]
    done = ingle(home, "run", "./tiny.gguf", "hello", INGLE_PORT=port)
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert done.stderr == f"tiny is served at {fake.url}\n"


def test_the_catalogues_own_aliases_are_known_everywhere(home: Path, fake: FakeServer) -> None:
    name = "smollm2-135m-instruct"
    fake.models[0]["id"] = name
    fake.capabilities[name] = ["completion", "chat"]
    assert ingle(home, "run", "smollm2", "x", "--url", fake.url).returncode == 0
    assert asked(fake)["model"] == name


def test_an_alias_of_a_server_that_runs_is_asked_for(home: Path, fake: FakeServer) -> None:
    port = fake.url.rsplit(":", 1)[1]
    done = ingle(home, "run", "small", "hello", INGLE_PORT=port)
    assert (done.returncode, done.stdout) == (0, "hello\n")


def test_the_key_of_the_variable_is_sent(home: Path, fake: FakeServer) -> None:
    fake.api_key = "secret"
    words = ("run", "tiny", "x", "--url", fake.url)
    assert ingle(home, *words, INGLE_API_KEY="secret").returncode == 0
    assert ingle(home, *words, "--api-key", "secret").returncode == 0
    message = refusal(home, *words)
    assert message.endswith("Pass the server's key with --api-key or in INGLE_API_KEY")


def test_a_model_that_cannot_be_loaded_is_told_of(home: Path) -> None:
    path = write_gguf(home / "tiny.gguf", gguf()[:-100])
    assert f"{path} is truncated" in refusal(home, "run", str(path), "x")
    assert refusal(home, "run", "smolm2", "x").startswith("unknown model smolm2: did you mean")


def test_why_its_own_server_does_not_start_is_told(home: Path) -> None:
    """The file is sound, as far as its header goes, and is no model."""
    path = write_gguf(home / "tiny.gguf")
    done = ingle(home, "run", str(path), "x", "--ctx", "4096")
    assert (done.returncode, done.stdout) == (2, "")
    first, *_, last = done.stderr.splitlines()
    assert first == "loading tiny for this conversation"
    assert last.startswith("error: ") and "Traceback" not in done.stderr


def test_a_conversation_needs_a_terminal(home: Path, fake: FakeServer) -> None:
    """Standard input is one here, standard output is not."""
    import pty

    _terminal, there = pty.openpty()
    with subprocess.Popen(
        command("run", "tiny", "--url", fake.url),
        cwd=home,
        env=environment(home),
        stdin=there,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        _, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (
        2,
        "error: a conversation needs a terminal: give a PROMPT\n",
    )


def test_ctrl_c_ends_the_answer_at_the_server_too(home: Path, fake: FakeServer) -> None:
    with subprocess.Popen(
        command("run", "tiny", "for ever", "--url", fake.url),
        cwd=home,
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(10) == b"for ever 1"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (130, b"")
    assert fake.left.wait(10)


def test_a_reader_that_leaves_ends_it_quietly(home: Path, fake: FakeServer) -> None:
    with subprocess.Popen(
        command("run", "tiny", "for ever", "--url", fake.url),
        cwd=home,
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        told = process.stderr.read()
        assert process.wait(timeout=30) == 1
    assert b"Traceback" not in told
    assert fake.left.wait(10)
