"""Sequence states in host memory: KV cells out of one slot and into another."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from server.core.plan import MemoryTraits

_SLACK, _CELL_SLACK = 64 << 10, 16
"""Bytes that a state may take beyond what was measured with two tokens, in all and a token."""
_MOST_SCRATCH = 64 << 20

State = npt.NDArray[np.uint8]


class States:
    """States by key. `False` from a method means that llama.cpp refused and nothing is sure."""

    def __init__(self, context: Any, memory: Any, traits: MemoryTraits) -> None:
        self._context = context
        self._memory = memory
        self._traits = traits
        self._kept: dict[int, State] = {}
        self._scratch: State = np.empty(0, np.uint8)

    def save(self, slot: int, key: int) -> bool:
        room = np.empty(self._room(slot), np.uint8)
        written = self._read(slot, room)
        if written:
            self._kept[key] = room[:written]
        return written > 0

    def restore(self, slot: int, key: int, length: int) -> bool:
        """Replace the slot by the first `length` tokens of a kept state."""
        state = self._kept.get(key)
        return state is not None and self._write(slot, state, length)

    def forget(self, key: int) -> None:
        self._kept.pop(key, None)

    def of(self, slot: int) -> memoryview | None:
        """The slot's state; None when llama.cpp refuses."""
        room = np.empty(self._room(slot), np.uint8)
        written = self._read(slot, room)
        return room[:written].data if written else None

    def kept(self, key: int) -> memoryview | None:
        state = self._kept.get(key)
        return None if state is None else state.data

    def keep(self, key: int, state: memoryview) -> None:
        self._kept[key] = np.frombuffer(state, np.uint8)

    def copy(self, source: int, target: int, length: int) -> bool:
        """Through host memory: across streams llama.cpp itself copies all cells, used or not."""
        room = self._room(source)
        if len(self._scratch) < room:
            self._scratch = np.empty(room, np.uint8)
        scratch = self._scratch
        if room > _MOST_SCRATCH:
            self._scratch = np.empty(0, np.uint8)
        written = self._read(source, scratch)
        return written > 0 and self._write(target, scratch[:written], length)

    def _read(self, slot: int, state: State) -> int:
        """Bytes written to `state`; 0 when llama.cpp refused."""
        return int(
            llama_cpp.llama_state_seq_get_data(self._context, _pointer(state), len(state), slot)
        )

    def _room(self, slot: int) -> int:
        """An upper bound, where one is known: asking llama.cpp costs as much as the copy."""
        if not self._traits.trim:
            return int(llama_cpp.llama_state_seq_get_size(self._context, slot))
        tokens = int(llama_cpp.llama_memory_seq_pos_max(self._memory, slot)) + 1
        measured = self._traits.state_bytes + tokens * self._traits.token_bytes
        return measured + _SLACK + tokens * _CELL_SLACK

    def _write(self, slot: int, state: State, length: int) -> bool:
        llama_cpp.llama_memory_seq_rm(self._memory, slot, -1, -1)
        if not llama_cpp.llama_state_seq_set_data(self._context, _pointer(state), len(state), slot):
            return False
        end = int(llama_cpp.llama_memory_seq_pos_max(self._memory, slot)) + 1
        return end == length or (
            (end > length) and bool(llama_cpp.llama_memory_seq_rm(self._memory, slot, length, -1))
        )


def _pointer(state: State) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
