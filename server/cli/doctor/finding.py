"""What a check found."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from server.core.errors import StartupError

Level = Literal["ok", "warn", "fail"]


class Finding(Struct, frozen=True):
    """`remedy` is there for what is not ok."""

    check: str
    level: Level
    message: str
    remedy: str | None = None


def ok(check: str, message: str) -> Finding:
    return Finding(check, "ok", message)


def warn(check: str, message: str, remedy: str) -> Finding:
    return Finding(check, "warn", message, remedy)


def fail(check: str, message: str, remedy: str) -> Finding:
    return Finding(check, "fail", message, remedy)


def refused(check: str, error: StartupError) -> Finding:
    """What would keep the server from starting; its message ends with the remedy."""
    for mark in ("; ", ": "):
        message, _, remedy = error.message.partition(mark)
        if remedy:
            return fail(check, message, remedy)
    return fail(check, error.message, "change it")
