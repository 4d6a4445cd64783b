"""Which sequence states are kept in host memory, and for how long. Pure bookkeeping of bytes.

The runner holds the states themselves; the plan tells it what to save, restore and forget.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from server.core.plan import MemoryTraits

from .radix import RadixTree


class Snapshot(Struct):
    key: int
    tokens: list[int]
    scope: str
    size: int
    used_at: float


class SnapshotStore:
    """At most `capacity` bytes; the least recently used go first."""

    def __init__(self, capacity: int, traits: MemoryTraits) -> None:
        self._capacity = capacity
        self._traits = traits
        self._snapshots: dict[int, Snapshot] = {}
        self._trees: dict[str, RadixTree] = {}
        self._next_key = 0
        self.size = 0

    def __len__(self) -> int:
        return len(self._snapshots)

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(self._snapshots.values())

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def keeps(self) -> bool:
        """Whether anything can be kept at all."""
        return self._capacity > 0

    def find(self, tokens: list[int], scope: str) -> tuple[Snapshot | None, int]:
        """The snapshot that spares the most leading tokens, and how many.

        A state that cannot be cut spares all of its tokens or none.
        """
        tree = self._trees.get(scope)
        if tree is None:
            return None, 0
        if self._traits.trim:
            key, shared = tree.longest(tokens)
            return (self._snapshots[key], shared) if key is not None else (None, 0)
        whole = tree.prefixes(tokens)
        found = self._snapshots[whole[-1]] if whole else None
        return found, len(found.tokens) if found else 0

    def touch(self, snapshot: Snapshot, now: float) -> None:
        snapshot.used_at = now

    def add(self, tokens: list[int], scope: str, now: float) -> tuple[Snapshot | None, list[int]]:
        """A place for the state of `tokens`, and the keys that have to go for it.

        None when it would not fit at all. Where states can be cut, those that are prefixes of it
        are no longer needed.
        """
        size = self._traits.state_bytes + len(tokens) * self._traits.token_bytes
        if size > self._capacity:
            return None, []
        tree = self._trees.setdefault(scope, RadixTree())
        whole = tree.prefixes(tokens)
        length = len(tokens)
        gone = [k for k in whole if self._traits.trim or len(self._snapshots[k].tokens) == length]
        for key in gone:
            self.forget(key)
        while self.size + size > self._capacity:
            oldest = min(self._snapshots.values(), key=lambda s: s.used_at)
            gone.append(oldest.key)
            self.forget(oldest.key)
        snapshot = Snapshot(self._next_key, tokens, scope, size, now)
        self._next_key += 1
        self._snapshots[snapshot.key] = snapshot
        self._trees.setdefault(scope, tree).insert(tokens, snapshot.key)
        self.size += size
        return snapshot, gone

    def discard(self, key: int) -> None:
        """Forget the key if it is still known."""
        if key in self._snapshots:
            self.forget(key)

    def forget(self, key: int) -> None:
        snapshot = self._snapshots.pop(key)
        tree = self._trees[snapshot.scope]
        tree.remove(key)
        if not len(tree):
            del self._trees[snapshot.scope]
        self.size -= snapshot.size
