"""How far one model's predictions are from another's. Pure numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


def log_softmax(logits: Array) -> Array:
    """Rows of logits to rows of natural log-probabilities."""
    shifted: Array = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted, dtype=np.float32).sum(axis=-1, keepdims=True))
    return shifted


def divergences(reference: Array, other: Array) -> npt.NDArray[np.float64]:
    """KL(reference ‖ other) of each row of log-probabilities, in nats; never below zero."""
    # Minus infinity is a token that a model rules out: 0 · (−inf) is 0 here, not NaN.
    with np.errstate(invalid="ignore"):
        terms = np.exp(reference, dtype=np.float64) * (reference - other)
    terms[np.isneginf(reference)] = 0.0
    return np.asarray(np.maximum(terms.sum(axis=-1), 0.0), np.float64)


def agreements(reference: Array, other: Array) -> npt.NDArray[np.bool_]:
    """Whether both rows have the same most probable token."""
    return np.asarray(reference.argmax(axis=-1) == other.argmax(axis=-1))
