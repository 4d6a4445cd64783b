"""The tokens a sampler chain chooses from, in memory this module owns."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from .grammar import GrammarBroken

_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Candidates:
    """Room for a whole vocabulary. Not thread-safe."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self._data = np.zeros(vocabulary, _DATA)
        self._ids = np.arange(vocabulary, dtype=np.int32)

    def choose(
        self,
        chain: Any,
        logits: npt.NDArray[np.float32],
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> int:
        """What `chain` takes among the `allowed` tokens, at least one. It is not accepted."""
        ids = self._ids if allowed is None else self._ids[allowed]
        data = self._data[: len(ids)]
        data["id"], data["p"] = ids, 0.0
        data["logit"] = logits if allowed is None else logits[ids]
        array = self._array(len(ids))
        llama_cpp.llama_sampler_apply(chain, ctypes.byref(array))
        if not 0 <= array.selected < array.size:
            raise GrammarBroken("no token was chosen")
        return int(data["id"][array.selected])

    def draw(self, chooser: Any, count: int) -> None:
        """Let a stage that draws one random number a choice take `count` of them."""
        for _ in range(count):
            llama_cpp.llama_sampler_apply(chooser, ctypes.byref(self._array(1)))

    def _array(self, size: int) -> Any:
        return llama_cpp.llama_token_data_array(
            data=ctypes.cast(self._data.ctypes.data, llama_cpp.llama_token_data_p),
            size=size,
            selected=-1,
            sorted=False,
        )
