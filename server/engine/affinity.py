"""Which of several replicas has read a prompt's beginning. Pure.

By text and not by tokens, which are made in the engine processes: what a replica was sent is
remembered in blocks, each one's hash with those before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from server.core.types import GenerateRequest

BLOCK_CHARACTERS = 256
BLOCK_TOKENS = 64
ROOM = 1 << 16
"""Blocks remembered a replica: 16 MiB of text, which takes a few MiB here."""
REQUEST_BLOCKS = 2
"""What a request that runs delays another by, in blocks that could be read meanwhile."""
WAIT_BLOCKS = 64
"""The same of having no slot at all."""


class Affinity:
    def __init__(self, replicas: int, room: int = ROOM) -> None:
        self._read: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(replicas)]
        self._room = room

    def choose(
        self, blocks: Sequence[int], busy: Sequence[int], slots: int, able: Iterable[int]
    ) -> int:
        """Of the `able` replicas the one that should answer soonest, or the idlest such one.

        `busy`: how many requests each one has, of which `slots` run.
        """

        def cost(replica: int) -> tuple[int, int, int]:
            unread = len(blocks) - self._matched(replica, blocks)
            delay = REQUEST_BLOCKS * busy[replica] + WAIT_BLOCKS * (busy[replica] >= slots)
            return unread + delay, busy[replica], len(self._read[replica])

        return min(able, key=cost)

    def note(self, replica: int, blocks: Iterable[int]) -> None:
        """It was sent a prompt of these."""
        read = self._read[replica]
        for block in blocks:
            read[block] = None
            read.move_to_end(block)
        while len(read) > self._room:
            read.popitem(last=False)

    def forget(self, replica: int) -> None:
        """It was started again."""
        self._read[replica].clear()

    def _matched(self, replica: int, blocks: Sequence[int]) -> int:
        read = self._read[replica]
        return next((i for i, block in enumerate(blocks) if block not in read), len(blocks))


def blocks_of(request: GenerateRequest) -> list[int]:
    """Of its prompt; those of another scope are others."""
    content: str | tuple[int, ...] = request.prompt_tokens
    size = BLOCK_TOKENS
    if not content:
        content, size = "".join(piece.text for piece in request.prompt), BLOCK_CHARACTERS
    before, blocks = hash(request.scope), []
    for start in range(0, len(content), size):
        before = hash((before, content[start : start + size]))
        blocks.append(before)
    return blocks
