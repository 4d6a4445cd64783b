"""What the scheduler asks of a runner in one step, and what comes back."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from .errors import IngleError

StepKind = Literal["decode", "prefill"]


class MemoryTraits(Struct, frozen=True):
    """What a model's memory allows. Never guessed: the runner reports it.

    `trim`: a sequence may be cut at any position. `copy`: a slot may be copied to another one.
    A slot's state in host memory takes `state_bytes`, and `token_bytes` more a token; there is
    room for `spare_bytes` in all. `key` is the same where a state means the same: for this model,
    in this build of the engine, with this form of memory; "" where it means nothing elsewhere.
    """

    trim: bool = True
    copy: bool = True
    token_bytes: int = 1
    state_bytes: int = 0
    spare_bytes: int = 1 << 62
    key: str = ""


class Copy(Struct, frozen=True, tag="copy"):
    """Replace all of `target` by `source`'s first `length` tokens."""

    source: int
    target: int
    length: int


class Trim(Struct, frozen=True, tag="trim"):
    """Forget all tokens of `slot` from position `length` on."""

    slot: int
    length: int


class Save(Struct, frozen=True, tag="save"):
    """Keep the state of `slot` in host memory under `key`."""

    slot: int
    key: int


class Restore(Struct, frozen=True, tag="restore"):
    """Replace all of `slot` by the first `length` tokens of what was saved under `key`."""

    slot: int
    key: int
    length: int


class Forget(Struct, frozen=True, tag="forget"):
    key: int


MemoryOp = Copy | Trim | Save | Restore | Forget


class Row(Struct, frozen=True):
    """`tokens` to compute in `slot` from `position` on; `sample` asks for the token after them.

    The last `draft` tokens are guesses: they are kept as far as sampling after each token before
    them gives the same. A `filler` is computed for its place in the batch and forgotten again.
    `score` asks how likely each next token of the prompt was.
    """

    slot: int
    position: int
    tokens: list[int]
    sample: bool = False
    draft: int = 0
    filler: bool = False
    score: bool = False


class BatchPlan(Struct, frozen=True):
    """One step: memory operations first, in order, then all rows in one batch, ascending by slot.

    A decode step takes answers further, a prefill step prompts; tokens of prompts may fill gaps in
    a decode step too. `attended` is the work of attention: for each token computed, the tokens it
    looks back on.
    """

    memory: tuple[MemoryOp, ...] = ()
    rows: tuple[Row, ...] = ()
    kind: StepKind = "decode"
    decode_tokens: int = 0
    prefill_tokens: int = 0
    draft_tokens: int = 0
    attended: int = 0


class TokenScore(Struct, frozen=True, array_like=True):
    """A token's natural logarithm of probability, and the likeliest tokens with theirs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class StepResult(Struct, frozen=True):
    """`sampled`: slot to the tokens sampled in it, all but the last of them right guesses.

    When all guesses were right, tokens that a grammar forces may follow. `complete`: slots whose
    grammar allows nothing after those tokens; `ended`: slots whose last token ends the sequence.
    `scores`: of the sampled tokens, where asked; `prompt_scores`: of the tokens after each one of a
    row, as far as the prompt goes. `draws`: slot to the random numbers that its sequence has taken
    so far, where its seed was given. `failed`: slot to the error that its sequence ends with.
    `unsaved`: keys whose state could not be kept. `lost`: slots whose memory operation did not
    work; their rows were not computed.
    """

    sampled: dict[int, list[int]]
    seconds: float
    failed: dict[int, IngleError] = {}
    unsaved: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()
    complete: frozenset[int] = frozenset()
    scores: dict[int, list[TokenScore]] = {}
    prompt_scores: dict[int, list[TokenScore]] = {}
    ended: frozenset[int] = frozenset()
    draws: dict[int, int] = {}


class EmbedResult(Struct, frozen=True):
    """What became of a batch: by input, its raw vector (float32, little-endian) or why it failed.

    A reranker's vector is one score.
    """

    vectors: dict[int, bytes]
    seconds: float
    failed: dict[int, str] = {}
