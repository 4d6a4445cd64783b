"""A deterministic runner without a model: it answers with the prompt's own words, in order.

Behind the same worker as the real runner, for tests and load tests. It keeps its own picture of
the KV memory and refuses a plan that does not fit it, so a scheduler bug fails loudly here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from server.core.config import RunnerConfig
from server.core.errors import ModelFileError
from server.core.plan import (
    BatchPlan,
    Copy,
    Forget,
    MemoryOp,
    MemoryTraits,
    Restore,
    Row,
    Save,
    StepResult,
    Trim,
)
from server.core.types import ModelInfo, SamplingParams, TextPiece

END = 256
BEGIN_TURN = 257
BYTES = 256
_SPECIAL = {"<|end|>": END, "<|turn|>": BEGIN_TURN}
_TEMPLATE = (
    "{% for message in messages %}<|turn|>{{ message['role'] }}\n{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
_KNOBS = re.compile(r"(\w+)=([\d.]+)")


class EchoRunner:
    """Tokens are bytes. A sequence repeats the last turn before its own, then ends.

    The model path carries the knobs: `echo:rate=50,load=0.5,prefill=2000` for decode steps a
    second, seconds to load, prefill tokens a second (0 is unlimited, the default); a sampling
    seed picks where in the turn the echo begins, so seeded choices differ.
    """

    info: ModelInfo
    memory = MemoryTraits()

    def load(self, config: RunnerConfig) -> None:
        if not config.path.startswith("echo:"):
            raise ModelFileError(f"{config.path}: the echo runner wants a path like echo:rate=50")
        found = knobs(config.path)
        self._rate, self._prefill = found.get("rate", 0.0), found.get("prefill", 0.0)
        time.sleep(found.get("load", 0.0))
        slots, context = config.slots or 4, config.context or 4096
        self._kv: list[list[int]] = [[] for _ in range(slots)]
        self._saved: dict[int, list[int]] = {}
        self._shift: dict[int, int] = {}
        self.info = ModelInfo(
            architecture="echo",
            description="echo",
            quantisation="none",
            parameters=0,
            size=0,
            vocabulary=BYTES + len(_SPECIAL),
            context_train=context,
            context=context,
            slots=slots,
            threads=1,
            kv_bytes=0,
            load_seconds=found.get("load", 0.0),
            resident_bytes=0,
            chat_template=_TEMPLATE,
            eos_token="<|end|>",
            special_tokens=_SPECIAL,
            fingerprint="fp_echo",
        )

    def tokenize(self, prompt: Sequence[TextPiece]) -> list[int]:
        return [token for piece in prompt for token in _tokenize(piece)]

    def fewest_tokens(self, prompt: Sequence[TextPiece]) -> int:
        return sum(len(piece.text) for piece in prompt) // max(map(len, _SPECIAL))

    def check(self, sampling: SamplingParams) -> None:
        pass

    def is_end(self, token: int) -> bool:
        return token == END

    def piece(self, token: int) -> bytes:
        return bytes([token]) if token < BYTES else b""

    def open(self, slot: int, sampling: SamplingParams, prompt: list[int]) -> None:
        del prompt
        self._shift[slot] = (sampling.seed or 0) if not sampling.greedy else 0

    def close(self, slot: int) -> None:
        self._shift.pop(slot, None)

    def run(self, plan: BatchPlan) -> StepResult:
        started = time.monotonic()
        for op in plan.memory:
            self._apply(op)
        sampled = {row.slot: self._sample(row) for row in plan.rows if self._compute(row)}
        wait = (1 / self._rate if self._rate and plan.decode_tokens else 0.0) + (
            plan.prefill_tokens / self._prefill if self._prefill else 0.0
        )
        if wait:
            time.sleep(wait)
        return StepResult(sampled, max(time.monotonic() - started, 1e-6))

    def _apply(self, op: MemoryOp) -> None:
        match op:
            case Copy(source, target, length):
                self._kv[target] = self._kv[source][:length]
            case Trim(slot, length):
                del self._kv[slot][length:]
            case Save(slot, key):
                self._saved[key] = list(self._kv[slot])
            case Restore(slot, key, length):
                self._kv[slot] = self._saved[key][:length]
            case Forget(key):
                del self._saved[key]

    def _compute(self, row: Row) -> bool:
        cells = self._kv[row.slot]
        if len(cells) != row.position or len(cells) + len(row.tokens) > self.info.context:
            raise RuntimeError(
                f"slot {row.slot} holds {len(cells)} tokens, the plan says {row.position}"
            )
        cells += row.tokens
        return row.sample

    def _sample(self, row: Row) -> list[int]:
        """The token after the row's own ones, and after each guess that is right."""
        cells = self._kv[row.slot]
        guesses = cells[len(cells) - row.draft :] if row.draft else []
        del cells[len(cells) - row.draft :]
        sampled = [self._next(row.slot)]
        for guess in guesses:
            if sampled[-1] != guess or guess == END:
                break
            cells.append(guess)
            sampled.append(self._next(row.slot))
        return sampled

    def _next(self, slot: int) -> int:
        """The next byte of the turn before the sequence's own."""
        cells = self._kv[slot]
        turns = [i for i, token in enumerate(cells) if token == BEGIN_TURN]
        if len(turns) < 2:
            return END
        said = _body(cells[turns[-2] : turns[-1]])
        done = len(_body(cells[turns[-1] :]))
        begin = self._shift[slot] % max(1, len(said))
        said = said[begin:] + said[:begin]
        return said[done] if done < len(said) else END


def knobs(path: str) -> dict[str, float]:
    """The numbers in a model path such as `echo:rate=50,load=0.5`."""
    return {name: float(value) for name, value in _KNOBS.findall(path)}


def _tokenize(piece: TextPiece) -> list[int]:
    if piece.plain:
        return list(piece.text.encode())
    parts = re.split("(" + "|".join(map(re.escape, _SPECIAL)) + ")", piece.text)
    return [t for p in parts for t in ([_SPECIAL[p]] if p in _SPECIAL else p.encode())]


def _body(turn: list[int]) -> list[int]:
    """A turn's bytes after the line that names its role."""
    try:
        start = turn.index(ord("\n")) + 1
    except ValueError:
        return []
    return [token for token in turn[start:] if token < BYTES]
