"""How long a step takes, learned from the steps before it. Pure arithmetic."""

from __future__ import annotations

import numpy as np

from server.core.plan import BatchPlan

PATIENCE, FIRST_PATIENCE = 20.0, 100.0
"""So many times longer than expected a step must take to be taken to hang; the second while nothing
is known yet."""
_MEMORY = 0.96
_TOO_SLOW, _TOO_FAST = 3.0, 1.5
_PACE = 0.2
_WARM = 8
_FIT_EVERY = 8
"""Steps between two fits once warm: a fit takes 4 % of a small model's step."""


class StepCost:
    """`seconds ≈ a + b·tokens + c·attended`, no coefficient negative.

    Least squares on relative error over the recent steps (older ones fade by 4 % a step), pulled
    towards `per_token` until enough has been seen; and a pace that follows a machine grown slower
    or faster within a few steps. A step far off the prediction counts as less far off, so one stall
    does not turn the model.
    """

    def __init__(self, per_token: float) -> None:
        self._prior = np.array([0.0, per_token, 0.0])
        self._weights = (0.0, per_token, 0.0)
        # Plain numbers: on so few of them numpy takes ten times as long.
        self._normal = [0.0] * 9
        self._target = [0.0] * 3
        self._pace = 1.0
        self.observed = 0

    def predict(self, tokens: float, attended: int) -> float:
        a, b, c = self._weights
        return (a + b * tokens + c * attended * 1e-3) * self._pace

    def observe(self, tokens: int, attended: int, seconds: float) -> None:
        if self.observed >= _WARM:
            expected = self.predict(tokens, attended)
            ratio = min(max(seconds / expected, 1 / _TOO_FAST), _TOO_SLOW)
            seconds = expected * ratio / self._pace
            self._pace *= ratio**_PACE
        row = (1.0 / seconds, tokens / seconds, attended * 1e-3 / seconds)
        pairs = (a * b for a in row for b in row)
        self._normal = [old * _MEMORY + new for old, new in zip(self._normal, pairs, strict=True)]
        self._target = [old * _MEMORY + new for old, new in zip(self._target, row, strict=True)]
        self.observed += 1
        if self.observed < 4 * _WARM or self.observed % _FIT_EVERY == 0:
            self._weights = self._fit()

    def _fit(self) -> tuple[float, float, float]:
        seen = np.array(self._normal).reshape(3, 3)
        ridge = np.diag(1e-3 * np.maximum(np.diag(seen), 1e-18))
        normal, target = seen + ridge, np.array(self._target) + ridge @ self._prior
        active = np.ones(3, bool)
        while True:
            weights = np.zeros(3)
            weights[active] = np.linalg.solve(normal[np.ix_(active, active)], target[active])
            if (weights >= 0).all() or active.sum() == 1:
                a, b, c = np.maximum(weights, 0.0).tolist()
                return a, b, c
            active &= weights > 0


class CostModel:
    """Decode steps, prefill steps and drafts, apart: they load the machine differently."""

    def __init__(self, decode_per_token: float = 0.02, prefill_per_token: float = 0.01) -> None:
        self.decode = StepCost(decode_per_token)
        self.prefill = StepCost(prefill_per_token)
        self._draft = StepCost(prefill_per_token)

    def longest(self, plan: BatchPlan) -> float:
        """Seconds after which a step must be taken to hang."""
        model = self.prefill if plan.kind == "prefill" else self.decode
        tokens = sum(len(row.tokens) for row in plan.rows)
        margin = PATIENCE if model.observed >= _WARM else FIRST_PATIENCE
        return margin * model.predict(tokens, plan.attended)

    def draft(self, tokens: int) -> float:
        """Seconds a decode step takes longer with so many guesses in it."""
        if not tokens:
            return 0.0
        known = self._draft if self._draft.observed else self.prefill
        return known.predict(tokens, 0)

    def observe_draft(self, tokens: int, seconds: float) -> None:
        self._draft.observe(tokens, 0, max(seconds, 1e-4))

    def prefill_room(self, context: int, seconds: float, most: int) -> int:
        """The most tokens from position `context` on expected to take at most `seconds`."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            if self.prefill.predict(middle, attended(context, middle)) <= seconds:
                low = middle
            else:
                high = middle - 1
        return low


def attended(position: int, tokens: int) -> int:
    """Token pairs attention looks at for `tokens` new ones from `position` on."""
    return tokens * position + tokens * (tokens + 1) // 2
