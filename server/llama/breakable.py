"""The runner with its native code made to fail. Loaded for tests alone; see `engine/faults.py`."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import llama_cpp
import numpy as np
from llama_cpp import _ggml

from server.core.plan import Row

from .runner import LlamaRunner

_NO_TOKEN = 1 << 30


class BreakableRunner(LlamaRunner):
    """See `Breakable`."""

    _not_finite: frozenset[int] = frozenset()
    _statuses: Mapping[int, int] = {}

    def abort(self) -> None:
        """What a failed GGML_ASSERT calls."""
        _ggml.libggml.ggml_abort(b"on purpose", 0, b"INGLE_FAULTS: abort")

    def terminate(self) -> None:
        """std::out_of_range, thrown by `std::vector::at`, finds nobody who catches it."""
        room = ctypes.create_string_buffer(8)
        vocabulary = llama_cpp.llama_model_get_vocab(llama_cpp.llama_get_model(self._context))
        llama_cpp.llama_token_to_piece(vocabulary, _NO_TOKEN, room, 8, 0, True)

    def spoil(self, *, not_finite: frozenset[int], statuses: Mapping[int, int]) -> None:
        self._not_finite, self._statuses = not_finite, statuses

    def _decode(self, rows: tuple[Row, ...]) -> tuple[int, list[int]]:
        status = next((self._statuses[r.slot] for r in rows if r.slot in self._statuses), None)
        if status is not None:
            return status, []
        status, outputs = super()._decode(rows)
        for row, output in zip(rows, outputs, strict=True):
            if row.slot in self._not_finite and row.sample:
                for index in range(output - row.draft, output + 1):
                    self._raw_logits(index).fill(np.nan)
        return status, outputs
