"""How many answers a request may have, and how each is sampled."""

from __future__ import annotations

from collections.abc import Mapping

from server.core.errors import InvalidRequest
from server.core.protocol import Engine
from server.core.types import SamplingParams
from server.schemas.sampling import SamplingFields


class Choices:
    """`recommended` is sampling by model name, used where a request leaves it open."""

    def __init__(self, most: int, recommended: Mapping[str, dict[str, float]]) -> None:
        self._most = most
        self._recommended = recommended

    def check(self, name: str, count: int) -> None:
        """Raises InvalidRequest for more than there may be, which the field `name` asks for."""
        if count > self._most:
            raise InvalidRequest(
                f"Invalid '{name}': {count} is more than this server's limit of {self._most}.",
                param=name,
                code="integer_above_max_value",
            )

    def samplings(
        self, request: SamplingFields, engine: Engine, count: int
    ) -> list[SamplingParams]:
        recommended = {**engine.info.sampling, **self._recommended.get(engine.name, {})}
        return [request.sampling(recommended, choice) for choice in range(count)]
