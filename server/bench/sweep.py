"""Cases at several numbers of clients, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.core.errors import ConfigError

from .cases import CASES, Workload, build
from .client import first_model
from .http import Endpoint
from .report import Row, summarise
from .run import Server

Points = tuple[tuple[str, int], ...]
"""Case and clients."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """None leaves a size to the case."""

    points: Points
    seed: int
    requests: int | None = None
    max_tokens: int | None = None

    async def run(
        self, endpoint: Endpoint, model: str | None, on_start: Callable[[Workload], None]
    ) -> tuple[Server, list[Row]]:
        """Raises ConfigError when there is no server to measure."""
        server = Server(endpoint, model or await first_model(endpoint))
        scale = await server.calibrate(self.seed)
        await server.warm_up(self.seed)
        rows = []
        for case, clients in self.points:
            workload = build(
                case,
                scale,
                clients=clients,
                requests=self.requests,
                max_tokens=self.max_tokens,
                seed=self.seed,
            )
            on_start(workload)
            rows.append(summarise(await server.run(workload)))
        return server, rows


def points(names: Sequence[str], concurrency: str | None) -> Points:
    """Every case with each number of clients; `all` is every case. Raises ConfigError."""
    chosen = list(CASES) if "all" in names else names
    unknown = [name for name in chosen if name not in CASES]
    if unknown:
        raise ConfigError(f"unknown case {unknown[0]}; give one of {', '.join(CASES)}, or all")
    if concurrency is None:
        return tuple((name, clients) for name in chosen for clients in CASES[name].clients)
    counts = [count.strip() for count in concurrency.split(",")]
    if not all(count.isdecimal() and int(count) > 0 for count in counts):
        raise ConfigError(f"--concurrency {concurrency} is not valid: give numbers such as 1,2,4,8")
    return tuple((name, int(count)) for name in chosen for count in counts)
