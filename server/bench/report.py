"""From answers to figures. Tokens are what the server's usage blocks say, never chunks."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import Struct

from .client import Answer
from .run import Outcome


class Spread(Struct, frozen=True):
    """Seconds, over `count` observations."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        ranked = sorted(values)
        if not ranked:
            return None
        p50, p95, p99 = (percentile(ranked, share) for share in (0.5, 0.95, 0.99))
        return cls(len(ranked), p50, p95, p99, ranked[-1])


class Row(Struct, frozen=True):
    """One workload on one server. Seconds, tokens, tokens a second.

    `itl` is the gap between two chunks of an answer, what a reader feels. For an intrusion `ttft`
    and `e2e` are of the running streams, `itl` of their gaps from the intruders' arrival on.
    """

    case: str
    clients: int
    requests: int
    errors: int
    first_error: str | None
    wall: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    output_rate: float
    client_rate: float | None
    decode_rate: float | None
    request_rate: float
    ttft: Spread | None
    itl: Spread | None
    e2e: Spread | None
    intruder_ttft: Spread | None = None
    intruder_prompt_tokens: int | None = None
    valid_json: int | None = None

    @property
    def cached_share(self) -> float:
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


def percentile(ranked: Sequence[float], share: float) -> float:
    """Linear between the neighbours, as numpy's default."""
    place = share * (len(ranked) - 1)
    low = int(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (ranked[high] - ranked[low]) * (place - low)


def summarise(outcome: Outcome) -> Row:
    """Errors count as requests and as errors; every other figure is of complete answers."""
    streams = [answer for answer in outcome.answers if answer.error is None]
    intruders = [answer for answer in outcome.intruders if answer.error is None]
    every = streams + intruders
    failed = [a.error for a in outcome.answers + outcome.intruders if a.error is not None]
    wall = outcome.ended - outcome.started
    output = sum(_tokens(answer) for answer in every)
    rates = [rate for answer in streams if (rate := _rate(answer)) is not None]
    sessions = outcome.workload.sessions
    return Row(
        case=outcome.workload.case,
        clients=outcome.workload.clients,
        requests=len(every) + len(failed),
        errors=len(failed),
        first_error=failed[0] if failed else None,
        wall=wall,
        prompt_tokens=sum(answer.usage.prompt_tokens for answer in every if answer.usage),
        cached_tokens=sum(answer.usage.cached_tokens for answer in every if answer.usage),
        output_tokens=output,
        output_rate=output / wall if wall else 0.0,
        client_rate=sum(rates) / len(rates) if rates else None,
        decode_rate=decode_rate(streams),
        request_rate=len(every) / wall if wall else 0.0,
        ttft=Spread.of(_present(answer.ttft for answer in streams)),
        itl=Spread.of(gap for answer in streams for gap in gaps(answer, outcome.arrived)),
        e2e=Spread.of(answer.ended - answer.started for answer in streams),
        intruder_ttft=Spread.of(_present(answer.ttft for answer in intruders)),
        intruder_prompt_tokens=max(
            (answer.usage.prompt_tokens for answer in intruders if answer.usage), default=None
        ),
        valid_json=_valid_json(streams) if any(s.schema for s in sessions) else None,
    )


def gaps(answer: Answer, since: float | None = None) -> Iterator[float]:
    """Seconds between two chunks that follow each other, the later one after `since`."""
    for earlier, later in pairwise(answer.chunks):
        if since is None or later > since:
            yield later - earlier


def decode_rate(answers: Sequence[Answer]) -> float | None:
    """Tokens a second of all answers together while every one of them was being written."""
    if not answers or any(len(answer.chunks) < 2 for answer in answers):
        return None
    begin = max(answer.chunks[0] for answer in answers)
    end = min(answer.chunks[-1] for answer in answers)
    if end <= begin:
        return None
    tokens = 0.0
    for answer in answers:
        inside = sum(begin < moment <= end for moment in answer.chunks)
        tokens += _tokens(answer) * inside / len(answer.chunks)
    return tokens / (end - begin)


def as_json(about: dict[str, Any], rows: Sequence[Row]) -> str:
    return json.dumps({**about, "rows": msgspec.to_builtins(rows)}, indent=2)


def as_csv(rows: Sequence[Row]) -> str:
    """One line a row; a spread becomes `ttft_p50` and so on."""
    flat = [_flat(row) for row in rows]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


_SPREADS = ("ttft", "itl", "e2e", "intruder_ttft")


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name in row.__struct_fields__:
        value = getattr(row, name)
        if name not in _SPREADS:
            flat[name] = value
            continue
        for part in ("p50", "p95", "p99", "max"):
            flat[f"{name}_{part}"] = getattr(value, part, None)
    return flat


def _present(values: Iterable[float | None]) -> Iterator[float]:
    return (value for value in values if value is not None)


def _tokens(answer: Answer) -> int:
    return answer.usage.completion_tokens if answer.usage else 0


def _rate(answer: Answer) -> float | None:
    seconds = answer.ended - answer.started
    return _tokens(answer) / seconds if seconds > 0 else None


def _valid_json(answers: Sequence[Answer]) -> int | None:
    """How many are JSON objects; None where the limit cut every one."""
    if all(answer.finish_reason == "length" for answer in answers):
        return None
    return sum(map(_is_json_object, answers))


def _is_json_object(answer: Answer) -> bool:
    try:
        return isinstance(json.loads(answer.text), dict)
    except ValueError:
        return False
