"""One `llama_batch`, filled through numpy views on memory this module owns."""

from __future__ import annotations

import ctypes

import llama_cpp
import numpy as np

from server.core.plan import Row


class Batch:
    """Room for `capacity` tokens, each in exactly one sequence. Not thread-safe."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._token = np.zeros(capacity, np.int32)
        self._position = np.zeros(capacity, np.int32)
        self._n_seq_id = np.ones(capacity, np.int32)
        self._slot = np.zeros(capacity, np.int32)
        self._logits = np.zeros(capacity, np.int8)
        steps = np.arange(capacity, dtype=np.uint64) * np.uint64(self._slot.itemsize)
        self._slot_pointers = steps + np.uint64(self._slot.ctypes.data)
        self._batch = llama_cpp.llama_batch(
            n_tokens=0,
            token=_pointer(self._token, ctypes.c_int32),
            embd=None,
            pos=_pointer(self._position, ctypes.c_int32),
            n_seq_id=_pointer(self._n_seq_id, ctypes.c_int32),
            seq_id=_pointer(self._slot_pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self._logits, ctypes.c_int8),
        )

    def fill(self, rows: tuple[Row, ...]) -> tuple[llama_cpp.llama_batch, list[int]]:
        """The batch of `rows`, and for each row the index of its last token's logits."""
        end = 0
        outputs = []
        for row in rows:
            start, end = end, end + len(row.tokens)
            if end > self.capacity:
                raise ValueError(f"a step of more than {self.capacity} tokens")
            self._token[start:end] = row.tokens
            self._position[start:end] = np.arange(row.position, row.position + end - start)
            self._slot[start:end] = row.slot
            self._logits[start:end] = row.score
            self._logits[end - 1 - row.draft : end] |= row.sample
            outputs.append(end - 1)
        self._batch.n_tokens = end
        return self._batch, outputs


def _pointer(array: np.ndarray, kind: type) -> ctypes._Pointer:  # type: ignore[type-arg]
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))
