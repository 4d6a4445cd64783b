"""What a client may meet on every route, as data: the errors and the headers. API.md shows it."""

from __future__ import annotations

from typing import NamedTuple


class ErrorRow(NamedTuple):
    """One kind of error. SDKs retry 5xx by themselves, unless told not to."""

    status: int
    code: str | None
    when: str


class HeaderRow(NamedTuple):
    name: str
    what: str


ERRORS = (
    ErrorRow(400, None, "the body is not JSON, not an object, or not compressed as announced"),
    ErrorRow(400, "unsupported_content_type", "`Content-Type` is not `application/json`"),
    ErrorRow(400, "missing_required_parameter", "a required field is missing"),
    ErrorRow(400, "malformed_request", "the request is no HTTP, or has no Host header, or two"),
    ErrorRow(400, "json_too_deep", "the body is nested deeper than 64 levels"),
    ErrorRow(400, "invalid_type", "a field has the wrong JSON type"),
    ErrorRow(400, "decimal_above_max_value", "a number is too large"),
    ErrorRow(400, "decimal_below_min_value", "a number is too small"),
    ErrorRow(400, "integer_above_max_value", "an integer is too large"),
    ErrorRow(400, "integer_below_min_value", "an integer is too small"),
    ErrorRow(400, "array_above_max_length", "a list is too long, or an object has too many keys"),
    ErrorRow(400, "empty_array", "a list is empty and must not be"),
    ErrorRow(400, "invalid_value", "a value is wrong in another way, such as an unknown token id"),
    ErrorRow(400, "unknown_parameter", "a field is unknown and the server is strict"),
    ErrorRow(400, "unsupported_parameter", "a field of the API is not served; the message says"
             " what to do instead"),
    ErrorRow(400, "unsupported_value", "a field is served, but not this value or not beside"
             " another field or not by this model"),
    ErrorRow(400, "unsupported_content", "an image, audio or file for a model that reads text"),
    ErrorRow(400, "invalid_messages", "the model's chat template refuses the messages"),
    ErrorRow(400, "invalid_json_schema", "a JSON schema that is wrong or cannot be enforced"),
    ErrorRow(400, "invalid_grammar", "a grammar or regular expression that is wrong or too large"),
    ErrorRow(400, "context_length_exceeded", "the prompt does not fit in the model's context"),
    ErrorRow(400, "invalid_config", "the configuration that was to be read again is wrong"),
    ErrorRow(400, "pull_failed", "a model cannot be fetched"),
    ErrorRow(400, "invalid_host", "there is not one well-formed `Host` header"),
    ErrorRow(401, None, "no key was sent to a server that wants one"),
    ErrorRow(401, "invalid_api_key", "the key is wrong"),
    ErrorRow(403, "host_not_allowed", "the server is asked under a name that is not its own, as a"
             " web page may ask; see the setting `allowed_hosts`"),
    ErrorRow(403, "admin_only", "`/admin` is asked from elsewhere without the setting `admin_key`,"
             " with an API key only, or by a web page of another origin"),
    ErrorRow(404, None, "there is no such route"),
    ErrorRow(404, "model_not_found", "there is no such model; the message names those there are"),
    ErrorRow(404, "request_not_found", "there is no such request inside"),
    ErrorRow(405, "method_not_supported", "the route is there, but not with this method"),
    ErrorRow(408, "request_timeout", "the headers took over 10 s to come; or the body over 30 s, or"
             " that much between two pieces of it, or came with less than 16 KiB a second"),
    ErrorRow(409, "request_cancelled", "the server's administrator ended the request; comes with"
             " `x-should-retry: false`"),
    ErrorRow(409, "conflict", "things stand so that it cannot be done, as a pinned model cannot be"
             " unloaded"),
    ErrorRow(413, "request_too_large", "the body is larger than the setting `max_body_bytes`, or"
             " holds more than 20 000 objects and lists, 50 000 keys or 400 000 values"),
    ErrorRow(415, "unsupported_content_encoding", "the body is compressed with neither gzip nor"
             " deflate"),
    ErrorRow(429, "rate_limit_exceeded", "the key has as many requests inside as the setting"
             " `key_max_requests`, or used its `key_tokens_per_minute` up; comes with"
             " `Retry-After`"),
    ErrorRow(431, "headers_too_large", "the request line and the headers have over 16 KiB"),
    ErrorRow(500, "engine_error", "the engine failed; it is started again by itself"),
    ErrorRow(500, "numeric_error", "the model's numbers are not finite for this request; others go"
             " on"),
    ErrorRow(500, "internal_error", "a bug; comes with `x-should-retry: false`"),
    ErrorRow(503, "model_loading", "the model is not loaded yet; comes with `Retry-After`"),
    ErrorRow(503, "engine_unavailable", "the engine ended and cannot be loaded again; the server"
             " goes on trying; comes with `Retry-After`"),
    ErrorRow(503, "server_shutdown", "the server was told to stop; running requests end first"),
    ErrorRow(503, "server_overloaded", "as many requests as the setting `max_waiting` wait, or"
             " `max_waiting_tokens` of prompts do, or no slot came free within `queue_seconds`,"
             " or too many connections are open; comes with `Retry-After`"),
    ErrorRow(504, "timeout", "the answer took longer than the setting `request_seconds`; comes with"
             " `x-should-retry: false`"),
)  # fmt: skip
"""In the order in which requests are checked, as far as there is one."""

REQUEST_HEADERS = (
    HeaderRow("Content-Type", "`application/json`, with any parameters"),
    HeaderRow("Content-Encoding", "`gzip` or `deflate`, if the body is compressed"),
    HeaderRow("Authorization", "`Bearer KEY`; or `x-api-key: KEY`, or `api-key: KEY`"),
    HeaderRow("X-Request-Id", "up to 512 visible ASCII characters, sent back; or"
              " `X-Client-Request-Id`"),
    HeaderRow("Host", "a name of this machine or one of the setting `allowed_hosts`"),
    HeaderRow("Origin", "of a web page: answered if the setting `cors_origins` has it"),
    HeaderRow("anthropic-version", "the model routes then add what Anthropic's clients read"),
)  # fmt: skip

RESPONSE_HEADERS = (
    HeaderRow("x-request-id", "on every response: the client's own or a new one"),
    HeaderRow(
        "x-ignored-params",
        "names of what was ignored: request fields, and keywords of"
        " schemas that are not strict, such as `response_format.uniqueItems`; at most 32",
    ),
    HeaderRow(
        "Retry-After",
        "whole seconds, 1 to 60: with 503 and 429; from how fast requests end,"
        " prompts are read or the model loaded",
    ),
    HeaderRow("retry-after-ms", "the same in milliseconds, which the openai package prefers"),
    HeaderRow(
        "x-queue-position",
        "where the request stood among those that waited for a slot of"
        " its model when it came, 1 for the next; keys take turns, so it may be earlier. None"
        " where there was a slot at once",
    ),
    HeaderRow("x-queue-estimate-ms", "how long it was expected to wait, once that is measured"),
    HeaderRow(
        "x-ratelimit-limit-requests",
        "how many requests of a key may be inside: the setting `key_max_requests`, if set",
    ),
    HeaderRow("x-ratelimit-remaining-requests", "how many more may come in now"),
    HeaderRow(
        "x-ratelimit-limit-tokens",
        "tokens of a key in a minute: the setting `key_tokens_per_minute`, if set",
    ),
    HeaderRow("x-ratelimit-remaining-tokens", "those left now"),
    HeaderRow("x-ratelimit-reset-tokens", "until all are back, such as `1.5s` or `2m3s`"),
    HeaderRow("x-should-retry", "`false`: the same request would fail again"),
    HeaderRow("openai-processing-ms", "milliseconds until the headers were sent"),
    HeaderRow("openai-version", "`2020-10-01`, as OpenAI sends it; means nothing"),
)
