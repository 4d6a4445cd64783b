"""What the server lets in and out: keys, names, templates, sockets, the words of errors."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from server.api.connection import LINGER_SECONDS
from tests.e2e.conftest import Server, Start, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0}
SLOW = (
    "{% set many = range(99999) | list %}"
    "{% for i in many %}{% for j in many %}{% endfor %}{% endfor %}"
)
HUNGRY = "{{ 'x' * 10 ** 9 }}"
CURIOUS = "{{ cycler.__init__.__globals__.os.system('touch %s') }}"


def _get(server: Server, head: bytes) -> int:
    """The status that raw bytes are answered with."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        raw.sendall(head + b"Connection: close\r\n\r\n")
        return int(b"".join(iter(lambda: raw.recv(65536), b"")).split()[1])


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n", 200),
        (b"GET /v1/models HTTP/1.1\r\nHost: [::1]:8000\r\n", 200),
        (b"GET /v1/models HTTP/1.1\r\nHost: evil.com\r\n", 403),
        (b"GET /health HTTP/1.1\r\nHost: evil.com\r\n", 200),
        (b"GET /v1/models HTTP/1.1\r\nHost: x/health?\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost:\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: evil.com\r\n", 400),
        (b"GET /v1/models HTTP/1.0\r\n", 200),
        (b"GET http://evil.com/v1/models HTTP/1.1\r\nHost: evil.com\r\n", 403),
    ],
)
def test_hosts_on_the_wire(server: Server, head: bytes, status: int) -> None:
    assert _get(server, head) == status


def test_a_body_without_the_key_is_not_received(start: Start) -> None:
    server = start(api_key="sk-right")
    size, piece, sent = 30 << 20, b"x" * 4096, 0
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(
            f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer sk-wrong\r\n"
            f"Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        answer = raw.recv(65536)
        assert answer.startswith(b"HTTP/1.1 401 ") and b"connection: close" in answer
        before = psutil.Process(server.process.pid).memory_info().rss
        refused_at = time.monotonic()
        with pytest.raises(OSError):
            while sent < size:  # at a pace that would take minutes
                sent += raw.send(piece)
                time.sleep(0.05)
        assert time.monotonic() - refused_at < LINGER_SECONDS + 3, "it may go on"
        grown = psutil.Process(server.process.pid).memory_info().rss - before
        raw.settimeout(10)
        with contextlib.suppress(ConnectionError):
            while raw.recv(65536):  # up to its end: a client could read why
                pass
    assert grown < 4 << 20, "what comes all the same is thrown away"


@pytest.mark.parametrize("source", [SLOW, HUNGRY, CURIOUS], ids=["slow", "hungry", "curious"])
def test_a_hostile_template_hurts_its_own_model_alone(
    start: Start, tmp_path: Path, source: str
) -> None:
    marker, file = tmp_path / "run", tmp_path / "template.jinja"
    file.write_text(source.replace("%s", str(marker)))
    server = start("echo=echo:rate=50", f"hostile=echo:template={file}")
    said = "many words " * 20
    with httpx2.Client(base_url=server.base, timeout=30) as client:
        ask = {"model": "echo", "messages": [{"role": "user", "content": said}], "stream": True}
        with client.stream("POST", CHAT, json=ask | {"temperature": 0}) as neighbour:
            lines = neighbour.iter_lines()
            for _ in range(20):
                next(lines)
            tried = time.monotonic()
            refused = httpx2.post(server.base + CHAT, json=HI | {"model": "hostile"}, timeout=10)
            took = time.monotonic() - tried
            text = "".join(lines)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "invalid_messages"
        assert took < 1.5, took
        assert text.endswith("[DONE]") and '"finish_reason": "stop"' in text
        other = client.post(CHAT, json=HI | {"model": "echo"})
        assert other.json()["choices"][0]["message"]["content"] == "Hi"
        completion = {"model": "hostile", "prompt": "<|turn|>user\nHi<|end|><|turn|>"}
        assert client.post("/v1/completions", json=completion).status_code == 200
    assert not marker.exists()
    resident = psutil.Process(server.process.pid).memory_info().rss
    assert resident < 300 << 20


def test_one_socket_listens_and_engines_have_none(start: Start) -> None:
    server = start("a=echo:", "b=echo:", "embed=echo:embed")
    httpx2.post(server.base + CHAT, json=HI | {"model": "a", "guided_choice": ["Hi"]}, timeout=10)
    api = psutil.Process(server.process.pid)
    children = api.children(recursive=True)
    assert len(server.engines()) == 3 and len(children) > 3, "those that check and render too"
    try:
        listening = [c for c in api.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert [c.laddr for c in listening] == [("127.0.0.1", server.port)]
        for child in children:
            assert not child.net_connections("inet"), child
    except psutil.AccessDenied:
        pytest.skip("only root may look into processes that leave no dumps")


def test_no_process_leaves_a_core_file(start: Start) -> None:
    server = start()
    httpx2.post(server.base + CHAT, json=HI | {"guided_choice": ["Hi"]}, timeout=10)
    api = psutil.Process(server.process.pid)
    for process in (api, *api.children(recursive=True)):
        assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0), process.cmdline()


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_the_memory_of_a_process_is_its_own() -> None:
    asked = (
        "import ctypes; from server.core.secrecy import leave_no_dump; "
        "print(ctypes.CDLL(None).prctl(3)); leave_no_dump(); print(ctypes.CDLL(None).prctl(3))"
    )
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["1", "0"]


_TELLTALE = re.compile(
    r"/(home|root|usr|tmp|work|site-packages|server)/|\.py\b|0x[0-9a-fA-F]{6,}|Traceback"
)


def _provoked() -> Iterator[tuple[str, str, Any]]:
    """Method, path and body of a request for every kind of error there is."""
    say = HI["messages"]
    yield "GET", "/nowhere", None
    yield "DELETE", CHAT, None
    yield "GET", "/v1/models/none", None
    for body in (b"", b"{", b"\xff", b"[]", b"{}", b'{"messages": NaN}', b"[" * 100_000):
        yield "POST", CHAT, body
    deep: Any = "x"
    for _ in range(150):
        deep = {"a": deep}
    yield "POST", CHAT, {"messages": say, "tools": [{"type": "function", "function": deep}]}
    wrong: list[dict[str, Any]] = [
        {"model": "none"},
        {"model": "embed"},
        {"model": "bad"},
        {"model": "worse"},
        {"n": 10**9},
        {"temperature": "hot"},
        {"max_tokens": -5},
        {"stop": ["x"] * 99},
        {"logit_bias": {"x": 1}},
        {"logit_bias": {"999999": 1}},
        {"response_format": {"type": "xml"}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "s", "schema": {"$ref": "/etc/passwd"}},
            }
        },
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "s", "schema": {"type": "x"}},
            }
        },
        {"grammar": "root ::= ("},
        {"grammar": "root ::= <[99999]>"},
        {"guided_regex": "("},
        {"guided_regex": "(?<=x)"},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": 1}}}]},
        {"tool_choice": "required"},
        {"chat_template": "{{ 1 }}"},
        {"chat_template_kwargs": {"messages": []}},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
                }
            ]
        },
        {"messages": [{"role": "user", "content": "word " * 100_000}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": []},
    ]
    for more in wrong:
        yield "POST", CHAT, {"model": "echo"} | HI | more
        yield "POST", CHAT, {"model": "echo", "stream": True} | HI | more
    yield "POST", "/v1/completions", {"model": "echo", "prompt": [10**9]}
    yield "POST", "/v1/completions", {"model": "echo", "prompt": "x", "suffix": "y"}
    yield "POST", "/v1/embeddings", {"model": "embed", "input": []}
    yield "POST", "/v1/embeddings", {"model": "echo", "input": "x"}
    yield "POST", "/v1/rerank", {"model": "embed", "query": "x", "documents": ["y"]}
    yield "POST", "/detokenize", {"model": "echo", "tokens": [-1]}


def test_no_error_tells_of_the_inside(start: Start, tmp_path: Path) -> None:
    """No path, no address, no trace: the words are for whoever asked."""
    bad, worse = tmp_path / "bad.jinja", tmp_path / "worse.jinja"
    bad.write_text("{{ raise_exception(raise_exception) }}")
    worse.write_text("{% include '/etc/passwd' %}{{ cycler }}")
    server = start(
        "echo=echo:", f"bad=echo:template={bad}", f"worse=echo:template={worse}", "embed=echo:embed"
    )
    tried = 0
    with httpx2.Client(base_url=server.base, timeout=30) as client:
        for method, path, body in _provoked():
            content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            headers = {"content-type": "application/json"}
            response = client.request(method, path, content=content, headers=headers)
            assert 400 <= response.status_code < 500, (path, body, response.text)
            error = response.json()["error"]
            assert not _TELLTALE.search(error["message"].replace("/etc/passwd", "")), error
            tried += 1
    assert tried > 60


def test_nor_does_the_error_of_an_engine_that_died(start: Start) -> None:
    server = start("echo=echo:rate=20")
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(httpx2.Client(base_url=server.base, timeout=30))
        said = {"messages": [{"role": "user", "content": "word " * 100}], "stream": True}
        stream = stack.enter_context(client.stream("POST", CHAT, json=said))
        for restarts in (1, 2):
            until(lambda: server.metric("ingle_requests_running") == 1)
            server.engines()[0].kill()
            until(lambda n=restarts: server.metric("ingle_engine_restarts_total") == n, 20)
        text = stream.read().decode()
    error = json.loads(text.split("data: ")[-2])["error"]
    assert error["code"] == "engine_error" and not _TELLTALE.search(error["message"])


_SPELLED = "<|end|>"
"""One token where it is special, seven where it is text."""


def _asks(word: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The routes that read what people wrote, and the places in them for it."""
    user = {"role": "user", "content": "Hi"}
    tool = {"name": "f", "description": word, "parameters": {"type": "object"}}
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "f", "arguments": f'{{"a": "{word}"}}'},
    }
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    chats: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": word}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": word}]}]},
        {"messages": [{"role": "system", "content": word}, user]},
        {"messages": [{"role": "assistant", "content": word}, user]},
        {"messages": [user, called, {"role": "tool", "tool_call_id": "c1", "content": word}]},
        {"messages": [user], "tools": [{"type": "function", "function": tool}]},
    ]
    for chat in chats:
        yield CHAT, {"model": "echo", "max_tokens": 1, **chat}
    yield "/v1/embeddings", {"model": "embed", "input": word}
    yield "/v1/rerank", {"model": "rank", "query": word, "documents": ["x"]}
    yield "/v1/rerank", {"model": "rank", "query": "x", "documents": [word]}


def test_special_spellings_of_people_are_text_on_every_route(start: Start) -> None:
    """Completions take a prompt as the model reads it: there they are what they spell."""
    server = start("echo=echo:", "embed=echo:embed", "rank=echo:rerank")
    with httpx2.Client(base_url=server.base, timeout=30) as client:

        def tokens(path: str, body: dict[str, Any]) -> int:
            answer = client.post(path, json=body).json()
            usage = answer["usage"]
            return int(usage.get("prompt_tokens", usage["total_tokens"]))

        plain, spelled = list(_asks("x" * len(_SPELLED))), list(_asks(_SPELLED))
        for (path, other), (_, body) in zip(plain, spelled, strict=True):
            assert tokens(path, body) == tokens(path, other), body
        prompt = {"model": "echo", "max_tokens": 1}
        raw = [tokens("/v1/completions", prompt | {"prompt": p}) for p in (_SPELLED, "x" * 7)]
        assert raw == [1, 7]


def test_a_prefix_is_shared_within_a_key_and_never_across(start: Start) -> None:
    server = start("echo=echo:", api_key="sk-ada,sk-bob", slots=4)
    body = {"messages": [{"role": "user", "content": "the same words " * 50}], "max_tokens": 4}

    def cached(key: str) -> int:
        headers = {"authorization": f"Bearer {key}"}
        answer = httpx2.post(server.base + CHAT, json=body, headers=headers, timeout=10).json()
        return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

    first, other, others, again = (cached(key) for key in ("sk-ada", "sk-bob", "sk-bob", "sk-ada"))
    assert (first, other) == (0, 0)
    assert others > 700 and again > 700
