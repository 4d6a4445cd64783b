"""Ten thousand requests at random, and what they broke: `python -m tests.faults fuzz`."""

from __future__ import annotations

import sys
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from tests.e2e import strategies
from tests.e2e.conftest import Server, _serving
from tests.e2e.referee import Referee

from .table import Row

MODELS = ("echo=echo:", "embed=echo:embed", "rank=echo:rerank")
TRIED: dict[str, tuple[st.SearchStrategy[Any], int]] = {
    "/v1/chat/completions": (strategies.chats, 4000),
    "/v1/completions": (strategies.completions, 3000),
    "/v1/embeddings": (strategies.embeddings, 1500),
    "/v1/rerank": (strategies.rerankings, 1000),
}
DAMAGED = 500


def rows() -> list[Row]:
    with _serving() as start:
        server = start(*MODELS, accept_any_model=True, ctx=1024)
        referee = Referee(server)
        wrong = sum(_fuzz(referee, path, *what) for path, what in TRIED.items())
        wrong += _fuzz(referee, "/v1/chat/completions", strategies.damaged(), DAMAGED)
        restarts = sum(_restarts(server))
        referee.close()
        tried = referee.sent + wrong
        return [
            Row("requests fuzzed", f"{tried}", "≥ 10 000", tried >= 10_000),
            Row("… answered neither rightly nor with a clear 4xx", f"{wrong}", "0", not wrong),
            Row("… engines started again", f"{restarts}", "0", not restarts),
        ]


def _fuzz(referee: Referee, path: str, bodies: st.SearchStrategy[Any], count: int) -> int:
    """How many answers were wrong; each is printed."""
    wrong = 0

    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(bodies)
    def send(body: Any) -> None:
        nonlocal wrong
        try:
            referee.post(path, body)
        except Exception as error:
            wrong += 1
            print(path, error, *getattr(error, "__notes__", ()), file=sys.stderr)

    send()
    return wrong


def _restarts(server: Server) -> list[int]:
    models = (model.partition("=")[0] for model in MODELS)
    return [int(server.metric("ingle_engine_restarts_total", model)) for model in models]
