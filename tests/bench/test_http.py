"""Bytes come in any pieces; what is read from them does not depend on the pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.bench.http import Chunked, Endpoint, HttpError, Identity, parse_head
from server.bench.sse import EventParser
from server.core.errors import ConfigError

STREAM = (
    'data: {"choices": [{"delta": {"content": "né"}}]}\n\n'
    ": a comment\n\n"
    "event: x\r\ndata:no space\r\nid: 1\r\n\r\n"
    "data: first\ndata: second\n\n"
    "data: [DONE]\n\n"
).encode()
EVENTS = [
    '{"choices": [{"delta": {"content": "né"}}]}'.encode(),
    b"no space",
    b"first\nsecond",
    b"[DONE]",
]


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    return [whole[a:b] for a, b in pairwise(edges)]


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@given(st.lists(st.integers(0, 1000)))
def test_events_in_any_pieces(places: list[int]) -> None:
    parser = EventParser()
    assert [event for piece in cut(STREAM, places) for event in parser.feed(piece)] == EVENTS


def test_an_event_is_there_with_its_last_byte() -> None:
    parser = EventParser()
    assert list(parser.feed(b"data: a\n")) == []
    assert list(parser.feed(b"\n")) == [b"a"]


@given(st.lists(st.binary(min_size=1, max_size=40)), st.lists(st.integers(0, 5000)))
def test_chunked_in_any_pieces(parts: list[bytes], places: list[int]) -> None:
    body = Chunked()
    fed = [body.feed(piece) for piece in cut(chunked(parts), places)]
    assert b"".join(fed) == b"".join(parts)
    assert body.complete


def test_a_chunk_is_passed_on_before_it_is_whole() -> None:
    body = Chunked()
    assert body.feed(b"5\r\nhel") == b"hel"
    assert body.feed(b"lo\r") == b"lo"
    assert body.feed(b"\n0\r\n") == b""
    assert body.complete


@pytest.mark.parametrize("body", [Chunked(), Identity(5)])
def test_a_cut_body_is_an_error(body: Chunked | Identity) -> None:
    body.feed(b"3\r\n"[:3])
    with pytest.raises(HttpError, match="cut short"):
        body.end()


def test_broken_chunk_sizes_are_an_error() -> None:
    with pytest.raises(HttpError, match="chunked"):
        Chunked().feed(b"hello\r\n")


def test_a_body_without_length_ends_with_the_connection() -> None:
    status, body = parse_head(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    assert (status, body.feed(b"abc"), body.complete) == (503, b"abc", False)
    body.end()


def test_the_head_decides_how_the_body_is_read() -> None:
    _, sized = parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
    assert (sized.feed(b"abcd"), sized.complete) == (b"abc", True)
    _, streamed = parse_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n")
    assert isinstance(streamed, Chunked)
    with pytest.raises(HttpError, match="not an HTTP server"):
        parse_head(b"SSH-2.0-OpenSSH\r\n\r\n")


def test_urls() -> None:
    endpoint = Endpoint.parse("https://[::1]/api/v1/", "key")
    assert (endpoint.port, endpoint.prefix, endpoint.tls) == (443, "/api/v1", True)
    head = endpoint.head("POST", "/chat/completions", 2)
    assert head.startswith(b"POST /api/v1/chat/completions HTTP/1.1\r\nHost: [::1]:443\r\n")
    assert b"Authorization: Bearer key\r\n" in head
    assert endpoint.root.prefix == ""


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://", "http://x:port"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is not a URL"):
        Endpoint.parse(url)
