"""The slots of an engine and what their KV holds. Pure bookkeeping; the runner follows the plan."""

from __future__ import annotations

from .sequence import Sequence


class Slot:
    """One KV stream. `tokens` are those it holds; they outlive the sequence, for the next."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.tokens: list[int] = []
        self.scope = ""
        self.sequence: Sequence | None = None
        self.used_at = 0.0

    def shared(self, tokens: list[int], scope: str) -> int:
        """How many leading tokens this slot could spare another sequence of the same scope."""
        return common_prefix(self.tokens, tokens) if scope == self.scope else 0


def common_prefix(a: list[int], b: list[int]) -> int:
    """Length of the common prefix, by growing slices, then halving: slices compare in C."""
    low, step, end = 0, 16, min(len(a), len(b))
    while low < end and a[low : low + step] == b[low : low + step]:
        low += step
        step *= 2
    if low >= end:
        return end
    high = min(low + step, end)
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
