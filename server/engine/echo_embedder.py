"""A deterministic embedder without a model: a vector counts the pairs of bytes in a text.

Behind the same loop as the real one, for tests and load tests. Texts that share words have similar
vectors, and a document is scored by the words it shares with the query.
"""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from zlib import crc32

from server.core.config import RunnerConfig
from server.core.errors import ModelFileError
from server.core.plan import EmbedResult
from server.core.types import ModelInfo, TextPiece

from .echo import knobs

SEPARATOR = 256
VOCABULARY = 257
_CONTEXT = 512
_SLOTS = 8


class EchoEmbedder:
    """Tokens are bytes. The model path carries the knobs, as at EchoRunner.

    `echo:embed,size=32,tokens=5000,load=0.5` or `echo:rerank`: dimensions of a vector (64), tokens
    a second (0 is unlimited, the default), seconds to load.
    """

    info: ModelInfo

    def load(self, config: RunnerConfig) -> None:
        if not config.path.startswith(("echo:embed", "echo:rerank")):
            raise ModelFileError(
                f"{config.path}: the echo embedder wants echo:embed or echo:rerank"
            )
        found = knobs(config.path)
        self._rate, self._size = found.get("tokens", 0.0), int(found.get("size", 64))
        time.sleep(found.get("load", 0.0))
        rerank = config.path.startswith("echo:rerank")
        context = config.context or _CONTEXT
        self.info = ModelInfo(
            architecture="echo",
            description="echo",
            quantisation="none",
            parameters=0,
            size=int(found.get("mb", 0)) << 20,
            vocabulary=VOCABULARY,
            context_train=context,
            context=context,
            slots=config.slots or _SLOTS,
            threads=1,
            kv_bytes=0,
            load_seconds=found.get("load", 0.0),
            resident_bytes=0,
            fingerprint="fp_echo",
            kind="rerank" if rerank else "embed",
            embedding_size=0 if rerank else self._size,
            matryoshka=not rerank,
        )

    def fewest_tokens(self, text: str) -> int:
        return len(text)

    def tokenize(self, text: Sequence[TextPiece], *, begin: bool = True) -> list[int]:
        del begin
        return [token for piece in text for token in piece.text.encode()]

    def tokenize_pair(self, query: str, document: str) -> list[int]:
        return [*query.encode(), SEPARATOR, *document.encode()]

    def spelling(self, token: int) -> bytes:
        return bytes([token]) if token < SEPARATOR else b"<|separator|>"

    def run(self, batch: Sequence[Sequence[int]]) -> EmbedResult:
        started = time.monotonic()
        compute = self._score if self.info.kind == "rerank" else self._vector
        vectors = {index: compute(tokens) for index, tokens in enumerate(batch)}
        if self._rate:
            time.sleep(sum(map(len, batch)) / self._rate)
        return EmbedResult(vectors, max(time.monotonic() - started, 1e-6))

    def _vector(self, tokens: Sequence[int]) -> bytes:
        padded = [SEPARATOR, *tokens]
        pairs = Counter(crc32(repr(pair).encode()) % self._size for pair in pairwise(padded))
        return struct.pack(f"<{self._size}f", *(pairs[place] for place in range(self._size)))

    def _score(self, tokens: Sequence[int]) -> bytes:
        """The share of the query's words that the document has."""
        border = list(tokens).index(SEPARATOR)
        query, document = (
            set(bytes(side).split()) for side in (tokens[:border], tokens[border + 1 :])
        )
        return struct.pack("<f", len(query & document) / max(1, len(query)))
