"""The web page and the pages of the API's document: files of this package, and nothing else.

They are read once and found by their names, so no path that a client writes reaches a disk.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from msgspec import Struct
from starlette.exceptions import HTTPException

from .auth import require_key

_DIRECTORY = Path(__file__).parents[1] / "web"
_KINDS = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".html": "text/html",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing is loaded from elsewhere, nothing is sent elsewhere, and no text becomes code."""
_DOCS_POLICY = _POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
"""Swagger UI writes styles into its elements."""
_HEADERS = {
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}

router = APIRouter(include_in_schema=False)


class _File(Struct, frozen=True):
    content: bytes
    kind: str
    etag: str


@cache
def files() -> dict[str, _File]:
    """By their paths below the directory. Called once before requests come: it reads 2 MB."""
    found = {}
    for path in sorted(_DIRECTORY.rglob("*")):
        if kind := _KINDS.get(path.suffix):
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[path.relative_to(_DIRECTORY).as_posix()] = _File(content, kind, etag)
    return found


@router.get("/")
async def root(request: Request) -> Response:
    """The page for browsers; for others, that there is a server."""
    if "text/html" in request.headers.get("accept", ""):
        return _answer(request, "index.html", _POLICY)
    return JSONResponse({"name": "ingle", "docs": "/docs"}, headers={"vary": "accept"})


@router.get("/docs")
async def docs(request: Request) -> Response:
    return _answer(request, "docs.html", _DOCS_POLICY)


@router.get("/web/{name:path}")
async def file(request: Request, name: str) -> Response:
    """Raises HTTPException where there is no such file."""
    if name not in files() or name.endswith(".html"):
        raise HTTPException(404)
    return _answer(request, name, _POLICY)


@router.get("/openapi.json", dependencies=[Depends(require_key)])
def document(request: Request) -> Response:
    """In a thread: it is made at the first time, which takes longer than a stream may wait."""
    return JSONResponse(request.app.openapi())


def _answer(request: Request, name: str, policy: str) -> Response:
    file = files()[name]
    headers = {**_HEADERS, "content-security-policy": policy, "etag": file.etag, "vary": "accept"}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.kind, headers=headers)
