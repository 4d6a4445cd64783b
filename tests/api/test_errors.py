"""Every row of the error table through the real app: status, envelope, headers."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import openai
import pytest

from server.api.errors import body_of, response_of, status_of
from server.api.json_limits import MAX_DEPTH, MAX_KEYS, MAX_PARTS, MAX_VALUES
from server.core import errors
from server.core.config import ModelFacts
from server.core.errors import (
    BY_NAME,
    ContextOverflow,
    EngineDown,
    EngineError,
    IngleError,
    ModelLoading,
)
from tests.fakes import FakeEngine, model_info, says

from .conftest import PAGE, Serve, make_app

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
HI: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]}
JSON = {"content-type": "application/json"}
GZIP = JSON | {"content-encoding": "gzip"}
UNKNOWN_ENCODING = "unsupported_content_encoding"


def _error(response: httpx2.Response) -> dict[str, Any]:
    """The error of a response that has everything an error must have."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert response.headers["access-control-allow-origin"] == PAGE
    body = response.json()
    assert list(body) == ["error"]
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"]
    kind = "server_error" if response.status_code >= 500 else "invalid_request_error"
    assert error["type"] == kind
    assert error["code"] is None or isinstance(error["code"], str)
    assert "Traceback" not in response.text and "detail" not in body
    if response.status_code == 503:
        assert 1 <= int(response.headers["retry-after"]) <= 60
    return error


@pytest.mark.parametrize(
    ("row", "content", "headers", "status", "code", "param"),
    [
        ("E-1 not JSON", b"{", JSON, 400, None, None),
        ("E-1 empty", b"", JSON, 400, None, None),
        ("E-1 not an object", b"[]", JSON, 400, None, None),
        ("E-1 not UTF-8", b'{"model": "\xff"}', JSON, 400, None, None),
        ("E-1 half a character", b'{"model": "\\ud800"}', JSON, 400, None, None),
        ("E-2", b"{}", {"content-type": "text/plain"}, 400, "unsupported_content_type", None),
        ("E-2 none", b"{}", {}, 400, "unsupported_content_type", None),
        ("E-3", {}, JSON, 400, "missing_required_parameter", "messages"),
        ("E-4", HI | {"n": "1"}, JSON, 400, "invalid_type", "n"),
        ("E-5", HI | {"temperature": 2.5}, JSON, 400, "decimal_above_max_value", "temperature"),
        ("E-5", HI | {"temperature": 3}, JSON, 400, "decimal_above_max_value", "temperature"),
        ("E-5", HI | {"mirostat": 3}, JSON, 400, "integer_above_max_value", "mirostat"),
        ("E-5", HI | {"top_p": -1}, JSON, 400, "decimal_below_min_value", "top_p"),
        ("E-5", HI | {"top_p": -0.1}, JSON, 400, "decimal_below_min_value", "top_p"),
        ("E-5", HI | {"max_tokens": 0}, JSON, 400, "integer_below_min_value", "max_tokens"),
        ("E-5 n", HI | {"n": 17}, JSON, 400, "integer_above_max_value", "n"),
        ("E-5 huge n", HI | {"n": 10**30}, JSON, 400, "integer_above_max_value", "n"),
        ("E-6", HI | {"stop": ["x"] * 65}, JSON, 400, "array_above_max_length", "stop"),
        ("E-6 empty", {"messages": []}, JSON, 400, "empty_array", "messages"),
        (
            "E-7",
            {"messages": [{"role": "user", "content": "a"}, {"role": "bot"}]},
            JSON,
            400,
            "invalid_value",
            "messages[1].role",
        ),
        ("E-8", HI | {"modalities": ["audio"]}, JSON, 400, "unsupported_parameter", "modalities"),
        ("E-10", HI | {"model": "gpt"}, JSON, 404, "model_not_found", None),
        ("E-16", b" " * 5000, JSON, 413, "request_too_large", None),
        ("gzip bomb", gzip.compress(b" " * 10**6), GZIP, 413, "request_too_large", None),
        ("no gzip", b"{}", GZIP, 400, None, None),
        ("cut gzip", gzip.compress(b"{}")[:-9], GZIP, 400, None, None),
        ("zstd", b"{}", JSON | {"content-encoding": "zstd"}, 415, UNKNOWN_ENCODING, None),
        ("twice", b"{}", JSON | {"content-encoding": "gzip, gzip"}, 415, UNKNOWN_ENCODING, None),
        (
            "E-20",
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            JSON,
            400,
            "unsupported_content",
            "messages[0].content[0]",
        ),
    ],
)
async def test_bad_requests(
    serve: Serve,
    row: str,
    content: object,
    headers: dict[str, str],
    status: int,
    code: str | None,
    param: str | None,
) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    engine = FakeEngine()
    async with serve(engine, max_body_bytes=4096) as client:
        response = await client.post(CHAT, content=body, headers=headers)
    error = _error(response)
    assert (response.status_code, error["code"], error["param"]) == (status, code, param), row
    assert engine.requests == (), "the engine was asked"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (ContextOverflow.of(70, 64), 400, "context_length_exceeded"),
        (EngineError("it died"), 500, "engine_error"),
        (EngineError("no numbers", code="numeric_error"), 500, "numeric_error"),
        (ModelLoading("restarting"), 503, "model_loading"),
        (EngineDown("it will not load"), 503, "engine_unavailable"),
        (ValueError("secret /path at 0xdeadbeef"), 500, "internal_error"),
    ],
)
async def test_the_engine_refuses_before_the_headers(
    serve: Serve, stream: bool, refusal: Exception, status: int, code: str
) -> None:
    async with serve(FakeEngine(lambda _: [refusal])) as client:
        response = await client.post(CHAT, json=HI | {"stream": stream})
    error = _error(response)
    assert (response.status_code, error["code"]) == (status, code)
    assert "secret" not in response.text
    assert (response.headers.get("x-should-retry") == "false") == (code == "internal_error")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "Invalid 'tools[0].function.name': string should match pattern"
            " '^[A-Za-z0-9_.-]{1,128}$'.",
        ),
        (
            {"logit_bias": {str(i): 0 for i in range(1025)}},
            "Invalid 'logit_bias': it has 1025 keys, more than the 1024 that are allowed.",
        ),
        (
            {"stop": ["x"] * 65},
            "Invalid 'stop': array too long. Expected an array with maximum length 64, but got an"
            " array with length 65 instead.",
        ),
        (
            {"temperature": 3},
            "Invalid 'temperature': decimal above maximum value. Expected a value <= 2.0, but got 3"
            " instead.",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_an_error_says_what_would_be_right(
    serve: Serve, changes: dict[str, Any], said: str
) -> None:
    async with serve(max_body_bytes=1 << 20) as client:
        response = await client.post(CHAT, json=HI | changes)
    assert response.status_code == 400
    assert _error(response)["message"] == said


async def test_an_overflow_says_both_numbers_and_the_words_clients_look_for(serve: Serve) -> None:
    async with serve(FakeEngine(lambda _: [ContextOverflow.of(5000, 4096)])) as client:
        message = _error(await client.post(CHAT, json=HI))["message"]
    assert message == (
        "This model's maximum context length is 4096 tokens. However, your messages resulted in "
        "5000 tokens (context_length_exceeded). Please reduce the length of the messages."
    )


async def test_a_model_that_loads_is_503(serve: Serve) -> None:
    engine = FakeEngine()
    engine.loaded = None
    async with serve(engine, ready=False) as client:
        refused = await client.post(CHAT, json=HI)
        health, ready = await client.get("/health"), await client.get("/readyz")
        assert (await client.get("/livez")).status_code == 200
        listed = await client.get("/v1/models")
    assert _error(refused)["code"] == "model_loading"
    assert refused.status_code == 503
    assert _error(health)["code"] == "model_loading"
    assert ready.status_code == 503
    assert [model["id"] for model in listed.json()["data"]] == ["fake"]


@pytest.mark.parametrize(
    ("template", "code"), [("{{ raise_exception('no') }}", "invalid_messages"), (None, None)]
)
async def test_a_template_that_refuses_is_the_clients_fault(
    serve: Serve, template: str | None, code: str | None
) -> None:
    engine = FakeEngine(info=model_info(chat_template=template))
    async with serve(engine) as client:
        response = await client.post(CHAT, json=HI)
    assert response.status_code == 400
    assert _error(response)["code"] == (code or "invalid_messages")


@pytest.mark.parametrize(
    "path",
    ["/v1/nope", "/nope", "/v1/chat/completions/x", "/v1", "/v1/", f"{CHAT}/", "/tokenize/"],
)
async def test_an_unknown_path_is_404(serve: Serve, path: str) -> None:
    async with serve() as client:
        response = await client.post(path, json=HI)
    error = _error(response)
    assert (response.status_code, error["code"]) == (404, None)
    assert f"POST {path}" in error["message"]
    assert "location" not in response.headers


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", CHAT), ("DELETE", "/v1/models/fake"), ("PUT", "/v1/models"), ("POST", "/health")],
)
async def test_a_wrong_method_is_405(serve: Serve, method: str, path: str) -> None:
    async with serve() as client:
        response = await client.request(method, path)
    assert response.status_code == 405
    assert _error(response)["code"] == "method_not_supported"
    assert response.headers["allow"]


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "APPLICATION/JSON", "application/json;v=1;charset=UTF-8"],
)
async def test_json_may_say_more_of_itself(serve: Serve, content_type: str) -> None:
    async with serve() as client:
        body = json.dumps(HI).encode()
        response = await client.post(CHAT, content=body, headers={"content-type": content_type})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
    ],
)
async def test_a_body_may_be_compressed(
    serve: Serve, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    content = compress(json.dumps(HI).encode())
    async with serve() as client:
        headers = JSON | {"content-encoding": encoding}
        response = await client.post(CHAT, content=content, headers=headers)
    assert response.status_code == 200


async def test_a_body_announced_too_large_is_not_read(serve: Serve) -> None:
    sent = []

    async def body() -> AsyncIterator[bytes]:
        sent.append(1)
        yield b"{}"

    async with serve(max_body_bytes=1024) as client:
        headers = JSON | {"content-length": "2000"}
        response = await client.post(CHAT, content=body(), headers=headers)
    assert _error(response)["code"] == "request_too_large"
    assert response.headers["connection"] == "close"


_PART = {"type": "text", "text": '{"\\'}


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"unknown": [[]] * (MAX_PARTS + 1)}, f"{MAX_PARTS} objects and lists"),
        ({"messages": [{"role": "user", "content": [_PART] * MAX_PARTS}]}, "objects and lists"),
        ({"unknown": {f"key {i}": "," for i in range(MAX_KEYS)}}, f"{MAX_KEYS} keys"),
        ({"unknown": [0] * (MAX_VALUES + 2)}, f"{MAX_VALUES} values"),
        ({"unknown": [""] * 1_000_000}, "values"),
    ],
    ids=["lists", "content", "keys", "numbers", "strings"],
)
async def test_a_body_of_too_many_parts_is_not_read_into_objects(
    serve: Serve, fields: dict[str, Any], what: str
) -> None:
    async with serve() as client:
        refused = await client.post(CHAT, json=HI | fields)
    assert refused.status_code == 413
    assert _error(refused)["code"] == "request_too_large"
    assert what in _error(refused)["message"]


def _nested(levels: int, inner: str = "") -> bytes:
    """Beside the object itself."""
    head, _, tail = json.dumps(HI | {"unknown": 0}).partition(": 0")
    return f"{head}: {'[' * levels}{inner}{']' * levels}{tail}".encode()


async def test_a_body_is_as_deep_as_it_may_be(serve: Serve) -> None:
    shallow = ", ".join(['"[[[\\"[{", {}, []'] * 40)
    async with serve() as client:
        taken = await client.post(CHAT, content=_nested(MAX_DEPTH - 2, shallow), headers=JSON)
        refused = [
            await client.post(CHAT, content=_nested(levels), headers=JSON)
            for levels in (MAX_DEPTH, MAX_DEPTH + 1, 200, 9000)
        ]
    assert taken.status_code == 200, taken.text
    for response in refused:
        assert response.status_code == 400 and _error(response)["code"] == "json_too_deep"
        assert str(MAX_DEPTH) in _error(response)["message"]


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
async def test_what_is_no_number_is_no_json_wherever_it_stands(serve: Serve, word: str) -> None:
    body = json.dumps(HI).removesuffix("}").encode()
    async with serve() as client:
        refused = await client.post(
            CHAT, content=body + f', "unknown": [{word}]}}'.encode(), headers=JSON
        )
        taken = await client.post(
            CHAT, content=body + f', "unknown": "{word}"}}'.encode(), headers=JSON
        )
    assert (refused.status_code, _error(refused)["code"]) == (400, None)
    assert "no JSON" in _error(refused)["message"]
    assert taken.status_code == 200


async def test_braces_in_a_text_are_no_parts(serve: Serve) -> None:
    text = '{"a": [1, "\\\\"]}' * MAX_PARTS
    engine = FakeEngine()
    async with serve(engine) as client:
        messages = [{"role": "user", "content": text}]
        answered = await client.post(CHAT, json={"messages": messages})
    assert answered.status_code == 200
    assert text in "".join(piece.text for piece in engine.requests[0].prompt)


async def test_a_full_server_says_when_to_come_back(serve: Serve) -> None:
    came, leave = asyncio.Event(), asyncio.Event()

    def waits(requests: Any) -> Any:
        came.set()
        return [leave, *says("Hello")(requests)]

    async with serve(FakeEngine(waits), max_waiting=1) as client:
        inside = asyncio.ensure_future(client.post(CHAT, json=HI))
        await came.wait()
        refused = await client.post(CHAT, json=HI)
        leave.set()
        assert (await inside).status_code == 200
        assert (await client.post(CHAT, json=HI)).status_code == 200
    assert (refused.status_code, _error(refused)["code"]) == (503, "server_overloaded")


async def test_strict_refuses_what_nobody_knows_and_names_it(serve: Serve) -> None:
    async with serve(strict_params=True) as client:
        unknown = await client.post(CHAT, json=HI | {"temprature": 1, "user": "u"})
        known = await client.post(CHAT, json=HI | {"user": "u", "metadata": {}, "logprobs": False})
        null = await client.post(CHAT, json=HI | {"temprature": None})
        inside = await client.post(
            CHAT, json={"messages": [{"role": "user", "content": "Hi", "name": "n", "x": 1}]}
        )
    error = _error(unknown)
    assert (unknown.status_code, error["code"]) == (400, "unknown_parameter")
    assert error["param"] == "temprature" and "temprature" in error["message"]
    assert [r.status_code for r in (known, null, inside)] == [200, 200, 200]
    assert known.headers["x-ignored-params"] == "metadata,user"


@pytest.mark.parametrize(
    ("body", "known", "unknown"),
    [
        ({"stream_options": {"zz": 1, "include_usage": True}}, None, "stream_options.zz"),
        (
            {"stream_options": {"include_obfuscation": False}},
            "stream_options.include_obfuscation",
            "",
        ),
        ({"response_format": {"type": "text", "q": 1}}, None, "response_format.q"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"q": 1}}},
            None,
            "response_format.json_schema.q",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "q": 1}, "r": 2}]},
            None,
            "tools[0].r,tools[0].function.q",
        ),
        ({"functions": [{"name": "f"}, {"name": "g", "q": 1}]}, None, "functions[1].q"),
        ({"stream_options": {"zz": None}}, None, ""),
    ],
    ids=str,
)
async def test_what_is_ignored_inside_a_field_is_named_too(
    serve: Serve, body: dict[str, Any], known: str | None, unknown: str
) -> None:
    async with serve() as client:
        lax = await client.post(CHAT, json=HI | body)
    async with serve(strict_params=True) as client:
        strict = await client.post(CHAT, json=HI | body)
    assert lax.status_code == 200, lax.text
    assert lax.headers.get("x-ignored-params") == (unknown or known)
    if unknown:
        error = _error(strict)
        assert (error["code"], error["param"]) == ("unknown_parameter", unknown.split(",")[0])
    else:
        assert strict.status_code == 200


@pytest.mark.parametrize("query", ["?api-version=2024-10-21", "?beta=true", "?a&b=%ff&stream=1"])
async def test_query_parameters_are_ignored(serve: Serve, query: str) -> None:
    async with serve() as client:
        response = await client.post(CHAT + query, json=HI)
        listed = await client.get("/v1/models" + query)
    assert (response.status_code, listed.status_code) == (200, 200)
    assert response.headers["content-type"] == "application/json"


async def test_a_bug_anywhere_is_an_envelope_without_its_words(serve: Serve) -> None:
    class Broken(FakeEngine):
        @property
        def facts(self) -> ModelFacts:
            raise ZeroDivisionError("division")

    async with serve(Broken()) as client:
        response = await client.get("/v1/models")
    assert (response.status_code, _error(response)["code"]) == (500, "internal_error")
    assert response.headers["x-should-retry"] == "false"
    assert "division" not in response.text


@pytest.mark.parametrize(
    ("error", "attempts"), [(ZeroDivisionError("a bug"), 1), (ModelLoading("restarting"), 3)]
)
async def test_the_sdk_tries_again_where_that_may_help(error: Exception, attempts: int) -> None:
    asked = []

    def fails(requests: Any) -> Any:
        asked.append(requests)
        return [error]

    app, _ = make_app(FakeEngine(fails))
    web = httpx2.AsyncClient(transport=httpx2.ASGITransport(app))
    async with openai.AsyncOpenAI(
        base_url="http://localhost/v1", api_key="none", max_retries=2, http_client=web
    ) as client:
        client._calculate_retry_timeout = lambda *_, **__: 0.0  # type: ignore[method-assign]
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="fake", messages=HI["messages"])
    assert len(asked) == attempts


async def test_order_of_checks_auth_then_type_then_size_then_body(serve: Serve) -> None:
    async with serve(api_key="key", max_body_bytes=1024) as client:
        key = {"authorization": "Bearer key"}
        everything = await client.post(CHAT, content=b"{" * 2000)
        typed = await client.post(CHAT, content=b"{" * 2000, headers=key)
        sized = await client.post(CHAT, content=b"{" * 2000, headers=key | JSON)
        parsed = await client.post(CHAT, content=b"{", headers=key | JSON)
    assert [r.status_code for r in (everything, typed, sized, parsed)] == [401, 400, 413, 400]
    assert _error(typed)["code"] == "unsupported_content_type"


async def test_a_body_of_many_megabytes_is_no_problem(serve: Serve) -> None:
    async with serve() as client:
        message = {"role": "user", "content": "x" * 4_000_000}
        response = await client.post(CHAT, json={"messages": [message]})
    assert response.status_code == 200


async def test_names_of_unknown_fields_do_not_reach_the_headers_as_they_are(serve: Serve) -> None:
    fields = {"a\r\nx-evil: 1": 1, "中": 1, "cache_prompt": True, "x" * 5000: 1, "user": "u"}
    async with serve() as client:
        response = await client.post(CHAT, json=HI | fields)
        streamed = await client.post(CHAT, json=HI | fields | {"stream": True})
    for answer in (response, streamed):
        assert answer.status_code == 200
        assert answer.headers["x-ignored-params"] == "cache_prompt,user"
        assert "x-evil" not in answer.headers


async def test_numbers_of_any_size_are_no_internal_error(serve: Serve) -> None:
    async with serve() as client:
        for field in ("max_tokens", "max_completion_tokens", "top_k", "n", "seed", "min_p"):
            for value in (10**30, -(10**30), 2**63, 1e308):
                response = await client.post(CHAT, json=HI | {field: value})
                assert response.status_code in (200, 400), (field, value)


async def test_a_stream_that_breaks_ends_with_an_error_frame_and_done(serve: Serve) -> None:
    def dies(requests: Any) -> Any:
        return [*list(says("Hello")(requests))[:3], EngineError("it died")]

    async with serve(FakeEngine(dies)) as client:
        response = await client.post(CHAT, json=HI | {"stream": True})
    *before, error, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    assert json.loads(error[6:]) == body_of(EngineError("it died"))
    assert not any('"finish_reason": "' in frame for frame in before)


@pytest.mark.parametrize("given", ["my-id.1", "Root=1-67891233-abc;Parent=53", "x" * 512])
@pytest.mark.parametrize("name", ["x-request-id", "X-Client-Request-Id"])
async def test_a_sane_request_id_comes_back(serve: Serve, name: str, given: str) -> None:
    async with serve() as client:
        for response in (
            await client.get("/livez", headers={name: given}),
            await client.post(CHAT, json={}, headers={name: given}),
            await client.post(CHAT, json=HI | {"stream": True}, headers={name: given}),
        ):
            assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 513, "é".encode("latin-1")])
async def test_another_request_id_is_replaced(serve: Serve, given: str | bytes) -> None:
    async with serve() as client:
        for kept in ({}, {"x-client-request-id": "mine"}):
            response = await client.get("/livez", headers={"x-request-id": given, **kept})
            found = response.headers["x-request-id"]
            assert found == "mine" if kept else found.startswith("req_")


async def test_responses_say_what_openais_say(serve: Serve) -> None:
    async with serve() as client:
        for response in (
            await client.post(CHAT, json=HI),
            await client.post(CHAT, json=HI | {"stream": True}),
            await client.post(CHAT, json={}),
            await client.get("/no"),
        ):
            assert int(response.headers["openai-processing-ms"]) >= 0
            assert response.headers["openai-version"] == "2020-10-01"
            assert response.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("path", "allow"),
    [(CHAT, "POST, OPTIONS"), ("/v1/models", "GET, HEAD, OPTIONS"), ("/", "GET, HEAD, OPTIONS")],
)
async def test_options_says_which_methods_there_are(serve: Serve, path: str, allow: str) -> None:
    async with serve(api_key="key") as client:
        response = await client.options(path)
        unknown = await client.options("/no")
    assert (response.status_code, response.headers["allow"]) == (204, allow)
    assert unknown.status_code == 404


async def test_head_answers_as_get_does(serve: Serve) -> None:
    async with serve() as client:
        for path in ("/", "/health", "/v1/models", "/v1/models/fake", "/metrics"):
            head, get = await client.head(path), await client.get(path)
            assert (head.status_code, head.headers["content-type"]) == (
                200,
                get.headers["content-type"],
            )
        refused = await client.head(CHAT)
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST, OPTIONS")


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_error_has_a_status_and_an_envelope(name: str) -> None:
    error = BY_NAME[name]("what happened")
    assert isinstance(error, IngleError)
    status = status_of(error)
    expected = (
        400
        if isinstance(
            error,
            errors.InvalidRequest | errors.UnsupportedContentType | errors.MalformedRequest,
        )
        else 409
        if isinstance(error, errors.Conflict | errors.RequestCancelled)
        else 401
        if isinstance(error, errors.Unauthorized)
        else 403
        if isinstance(error, errors.HostRefused | errors.AdminRefused)
        else 404
        if isinstance(error, errors.ModelNotFound | errors.RequestNotFound)
        else 413
        if isinstance(error, errors.BodyTooLarge)
        else 415
        if isinstance(error, errors.UnsupportedEncoding)
        else 408
        if isinstance(error, errors.RequestTimedOut)
        else 431
        if isinstance(error, errors.HeadersTooLarge)
        else 503
        if isinstance(error, errors.Unavailable)
        else 429
        if isinstance(error, errors.RateLimited)
        else 504
        if isinstance(error, errors.DeadlineExceeded)
        else 500
    )
    assert status == expected or name == "RequestError"
    assert ("retry-after" in response_of(error).headers) == (status in (429, 503))
    assert ("x-should-retry" in response_of(error).headers) == (status in (409, 504))
