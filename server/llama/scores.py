"""Natural logarithms of probability of single tokens, straight from a row of logits. Pure numpy."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from server.core.plan import TokenScore
from server.core.types import LEAST_LOGPROB

Logits = npt.NDArray[np.float32]
_BLOCK = 128


def score(logits: Logits, token: int, top: int) -> TokenScore:
    """`token` and the `top` likeliest ones, best first; equal ones by id."""
    greatest = float(logits.max())
    total = greatest + math.log(float(np.exp(logits - greatest).sum(dtype=np.float64)))

    def logprob(value: float) -> float:
        return max(LEAST_LOGPROB, min(0.0, float(value) - total))

    best = likeliest(logits, top)
    return TokenScore(
        token, logprob(logits[token]), tuple((int(i), logprob(logits[i])) for i in best)
    )


def likeliest(logits: Logits, count: int) -> npt.NDArray[np.intp]:
    """The ids of the `count` greatest, best first.

    The greatest of each block bound the last of them from below, so few are left to sort.
    """
    count = min(count, len(logits))
    if not count:
        return np.empty(0, np.intp)
    whole = len(logits) // _BLOCK
    blocks = logits[: whole * _BLOCK].reshape(whole, _BLOCK).max(axis=1) if whole else logits[:0]
    if len(blocks) > count:
        bound = np.partition(blocks, len(blocks) - count)[len(blocks) - count]
        found = np.flatnonzero(logits >= bound)
    else:
        found = np.arange(len(logits))
    return found[np.argsort(-logits[found], kind="stable")][:count]
