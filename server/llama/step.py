"""What a step brings, collected row by row."""

from __future__ import annotations

from server.core.errors import EngineError, IngleError
from server.core.plan import StepResult, TokenScore

NOT_FINITE = "The model's numbers are not finite for this request."


class Step:
    def __init__(self) -> None:
        self.sampled: dict[int, list[int]] = {}
        self.failed: dict[int, IngleError] = {}
        self.unsaved: list[int] = []
        self.lost: list[int] = []
        self.complete: set[int] = set()
        self.ended: set[int] = set()
        self.scores: dict[int, list[TokenScore]] = {}
        self.prompt_scores: dict[int, list[TokenScore]] = {}
        self.draws: dict[int, int] = {}
        self._blind: set[int] = set()

    @property
    def blind(self) -> int:
        """How many sequences have no numbers to choose from, where that is all."""
        return len(self._blind) if not self.sampled else 0

    def not_finite(self, slot: int) -> None:
        self._blind.add(slot)
        self.failed[slot] = EngineError(NOT_FINITE, code="numeric_error")

    def result(self, seconds: float) -> StepResult:
        return StepResult(
            self.sampled,
            seconds,
            self.failed,
            tuple(self.unsaved),
            tuple(self.lost),
            frozenset(self.complete),
            self.scores,
            self.prompt_scores,
            frozenset(self.ended),
            self.draws,
        )
