"""What each key may take: requests at once, and tokens a minute. Pure; times by a monotonic clock.

Without keys there is one scope, of everybody.
"""

from __future__ import annotations

import math
from typing import Literal

from server.core.errors import RateLimited

_MINUTE = 60.0
_MOST_SECONDS = 60.0


class Bucket:
    """Tokens that come back evenly, a minute's worth at most. Below zero they are a debt."""

    def __init__(self, per_minute: int, now: float) -> None:
        self._most = per_minute
        self._left = float(per_minute)
        self._at = now

    def left(self, now: float) -> float:
        self._left = min(self._most, self._left + (now - self._at) * self._most / _MINUTE)
        self._at = now
        return self._left

    def take(self, tokens: int, now: float) -> None:
        """`tokens` below zero are given back."""
        self._left = min(self._most, self.left(now) - tokens)

    def seconds_until(self, tokens: float, now: float) -> float:
        """Until so many are left."""
        return max(0.0, (tokens - self.left(now)) * _MINUTE / self._most)


class Quotas:
    """One of each key, by its scope. None is no limit."""

    def __init__(self, requests: int | None, tokens_per_minute: int | None) -> None:
        self._requests = requests
        self._tokens = tokens_per_minute
        self._inside: dict[str, int] = {}
        """By all the scopes there ever were, which are as many as keys."""
        self._buckets: dict[str, Bucket] = {}

    def change(self, requests: int | None, tokens_per_minute: int | None) -> None:
        """From now on these; tokens count anew."""
        if tokens_per_minute != self._tokens:
            self._buckets.clear()
        self._requests, self._tokens = requests, tokens_per_minute

    def check(self, scope: str, now: float) -> None:
        """Raises RateLimited when there is nothing left. What is asked for may be more than is."""
        if self._requests is not None and self.inside(scope) >= self._requests:
            raise _limited(
                f"Rate limit reached for requests: this key may have {self._requests} at once."
                " Please try again when one of them has ended.",
                "requests",
                1.0,
            )
        if self._tokens is not None:
            wait = self._bucket(scope, now).seconds_until(1, now)
            if wait > 0:
                raise _limited(
                    f"Rate limit reached for tokens per min (TPM): Limit {self._tokens}. Please try"
                    f" again in {_duration(wait)}.",
                    "tokens",
                    wait,
                )

    def inside(self, scope: str) -> int:
        """Requests of this key; it is one of `scopes` from now on."""
        return self._inside.setdefault(scope, 0)

    @property
    def scopes(self) -> int:
        return len(self._inside)

    def enter(self, scope: str) -> None:
        self._inside[scope] = self.inside(scope) + 1

    def leave(self, scope: str) -> None:
        self._inside[scope] -= 1

    def take(self, scope: str, tokens: int, now: float) -> None:
        """Below zero they are given back."""
        if self._tokens is not None and tokens:
            self._bucket(scope, now).take(tokens, now)

    def headers(self, scope: str, now: float) -> dict[str, str]:
        """OpenAI's names for what is set; only tokens come back by a clock."""
        told = {}
        if self._requests is not None:
            told["x-ratelimit-limit-requests"] = str(self._requests)
            left = max(0, self._requests - self.inside(scope))
            told["x-ratelimit-remaining-requests"] = str(left)
        if self._tokens is not None:
            bucket = self._bucket(scope, now)
            told["x-ratelimit-limit-tokens"] = str(self._tokens)
            told["x-ratelimit-remaining-tokens"] = str(max(0, int(bucket.left(now))))
            told["x-ratelimit-reset-tokens"] = _duration(bucket.seconds_until(self._tokens, now))
        return told

    def _bucket(self, scope: str, now: float) -> Bucket:
        assert self._tokens is not None
        if scope not in self._buckets:
            self._buckets[scope] = Bucket(self._tokens, now)
        return self._buckets[scope]


def _limited(message: str, kind: Literal["requests", "tokens"], seconds: float) -> RateLimited:
    error = RateLimited(message)
    error.kind = kind
    error.retry_after = min(max(seconds, 0.1), _MOST_SECONDS)
    return error


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `20ms`, `1.5s`, `2m3s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < _MINUTE:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s"
