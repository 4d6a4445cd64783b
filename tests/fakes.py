"""The stand-ins of all tests, each a small honest implementation of one border of core/protocol."""

from __future__ import annotations

import asyncio
import json
import math
import struct
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from server.core.config import ModelFacts
from server.core.errors import EngineError, InvalidRequest, ModelLoading, ModelNotFound
from server.core.plan import (
    BatchPlan,
    Copy,
    EmbedResult,
    Forget,
    MemoryOp,
    MemoryTraits,
    Restore,
    Row,
    Save,
    StepResult,
    Trim,
)
from server.core.stats import ModelStatus, RequestRecord, ResidentState, Reuse, StepStats
from server.core.types import (
    Admitted,
    Embedded,
    EmbedRequest,
    EngineEvent,
    Finished,
    FinishReason,
    GenerateRequest,
    ModelInfo,
    ModelKind,
    PromptScored,
    Scored,
    TextPiece,
    TokenDelta,
    Tokenized,
    TokenLogprob,
    Usage,
)
from server.engine.echo import EchoRunner
from server.engine.echo_embedder import EchoEmbedder
from server.schemas.output import CallArguments, CallStart, Content, Part, Reasoning
from server.services.formats.base import Ask, Rendered, Turn

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
)


def model_info(**changes: object) -> ModelInfo:
    """A small model; `changes` are its fields."""
    info = ModelInfo(
        architecture="fake",
        description="a fake",
        quantisation="F16",
        parameters=1000,
        size=2000,
        vocabulary=300,
        context_train=4096,
        context=1024,
        slots=4,
        threads=2,
        kv_bytes=0,
        load_seconds=0.5,
        resident_bytes=1 << 20,
        chat_template=TEMPLATE,
        special_tokens={"<|end|>": 256, "<|user|>": 257},
        fingerprint="fp_fake",
    )
    return msgspec.structs.replace(info, **changes)


def step_stats(**changes: object) -> StepStats:
    """A step that decoded two sequences; `changes` are its fields."""
    numbers = dict.fromkeys(StepStats.__struct_fields__, 0)
    numbers |= {"step_seconds": 0.02, "run_seconds": 0.019, "kv_total": 4096, "slots_total": 4}
    numbers |= {"decode_tokens": 2, "batch_size": 2, "running": 2, "slots_busy": 2}
    return StepStats(**{**numbers, "reused": Reuse(), **changes})


# The engine as services and routes see it.

Moment = Iterable[EngineEvent] | Exception | asyncio.Event
"""What a script does next: send these events together, raise, or wait for a sign."""
Script = Callable[[tuple[GenerateRequest, ...]], Iterable[Moment]]
VectorScript = Callable[[EmbedRequest], Iterable[Moment]]


def says(text: str, reason: FinishReason = "stop", *, prompt: int = 7, cached: int = 0) -> Script:
    """Every choice says `text`, a character a step, with scores where they are asked for."""

    def script(requests: tuple[GenerateRequest, ...]) -> Iterable[Moment]:
        yield [Admitted(r.id, prompt) for r in requests]
        for i, character in enumerate(text):
            yield [
                TokenDelta(r.id, character, (ord(character),), _ranked(r, character, i))
                for r in requests
            ]
        usage = Usage(prompt, cached, len(text))
        yield [Finished(r.id, reason, usage, 0.25) for r in requests]

    return script


def _ranked(request: GenerateRequest, character: str, offset: int) -> tuple[TokenLogprob, ...]:
    """The character itself and the ones after it, each half as likely as the one before."""
    if request.logprobs is None:
        return ()
    first = ord(character)
    ranked = [
        Scored(first + i, chr(first + i), chr(first + i).encode(), math.log(0.5) * (i + 1))
        for i in range(max(1, request.logprobs))
    ]
    return (TokenLogprob(ranked[0], tuple(ranked[: request.logprobs]), offset),)


def scored(text: str, logprob: float, offset: int, *others: tuple[str, float]) -> TokenLogprob:
    """A token of one character with its alternatives."""
    one = [Scored(ord(t[0]), t, t.encode(), value) for t, value in ((text, logprob), *others)]
    return TokenLogprob(one[0], tuple(sorted(one[1:], key=lambda s: -s.logprob)), offset)


def writes(*texts: str, prompt: str = "Say", read: str = "Say") -> Script:
    """Choice i says text i (again from the first), a character a step, as far as it may.

    `read` is the text of what the model read, BOS spelled out.
    Character j of text i has the logprob -(i + 1) - j / 8; each has "~" beside it, at -9.
    """

    def script(requests: tuple[GenerateRequest, ...]) -> Iterable[Moment]:
        yield [Admitted(r.id, len(prompt)) for r in requests]
        yield [
            PromptScored(r.id, read, tuple(scored(c, -2.0, j) for j, c in enumerate(read) if j))
            for r in requests
            if r.prompt_logprobs
        ]
        said = {r.id: texts[i % len(texts)][: r.max_tokens] for i, r in enumerate(requests)}
        for j in range(max(map(len, said.values()))):
            yield [
                TokenDelta(r.id, c, (ord(c),), _scores(r, i % len(texts), j, c))
                for i, r in enumerate(requests)
                for c in said[r.id][j : j + 1]
            ]
        for r in requests:
            reason: FinishReason = "length" if len(said[r.id]) == r.max_tokens else "stop"
            yield [Finished(r.id, reason, Usage(len(prompt), 1, len(said[r.id])), 0.0)]

    return script


def vectors(*rows: tuple[float, ...], tokens: int = 7) -> VectorScript:
    """Every input gets the next row, (1, 0) when there are none, in batches of two."""

    def script(request: EmbedRequest) -> Iterable[Moment]:
        inputs = len(request.texts) + len(request.tokens)
        found = rows or ((1.0, 0.0),) * inputs
        yield [Admitted(request.id, tokens)]
        for start in range(0, inputs, 2):
            batch = found[start : min(start + 2, inputs)]
            data = b"".join(struct.pack(f"<{len(row)}f", *row) for row in batch)
            yield [Embedded(request.id, len(batch), data)]
        yield [Finished(request.id, "stop", Usage(tokens, 0, 0), 0.25)]

    return script


def _scores(
    request: GenerateRequest, text: int, position: int, character: str
) -> tuple[TokenLogprob, ...]:
    if request.logprobs is None:
        return ()
    others = [("~", -9.0)] if request.logprobs else []
    return (scored(character, -(text + 1) - position / 8, position, *others),)


class FakeEngine:
    """An `Engine` that follows a script and keeps what it was asked."""

    def __init__(
        self, script: Script | None = None, *, name: str = "fake", info: ModelInfo | None = None
    ) -> None:
        self.name = name
        self.loaded: ModelInfo | None = info or model_info()
        self.script = script or says("Hello")
        self.vectors: VectorScript = vectors()
        self.requests: tuple[GenerateRequest, ...] = ()
        self.embedded: EmbedRequest | None = None
        self.closed = asyncio.Event()

    @property
    def info(self) -> ModelInfo:
        if self.loaded is None:
            raise ModelLoading("still loading")
        return self.loaded

    @property
    def kind(self) -> ModelKind:
        return "generate" if self.loaded is None else self.loaded.kind

    @property
    def facts(self) -> ModelFacts:
        return ModelFacts(self.kind, "fake", "F16", chats=True)

    async def load(self) -> None:
        """Never comes true of itself."""
        assert self.info

    async def generate(self, *requests: GenerateRequest) -> AsyncGenerator[list[EngineEvent]]:
        self.requests = requests
        try:
            for moment in self.script(requests):
                if isinstance(moment, Exception):
                    raise moment
                if isinstance(moment, asyncio.Event):
                    await moment.wait()
                else:
                    yield list(moment)
        finally:
            self.closed.set()

    async def tokenize(self, text: tuple[TextPiece, ...], *, begin: bool = False) -> Tokenized:
        """Bytes; token 1 is before them all, and special tokens are what the model info says."""
        special = {} if self.loaded is None else self.loaded.special_tokens
        tokens = [1] if begin else []
        for piece in text:
            known = not piece.plain and piece.text in special
            tokens += [special[piece.text]] if known else piece.text.encode()
        return await self.detokenize(tuple(tokens))

    async def detokenize(self, tokens: tuple[int, ...]) -> Tokenized:
        spelled = {token: text.encode() for text, token in self.info.special_tokens.items()}
        return Tokenized("t", tokens, tuple(spelled.get(t) or bytes([t]) for t in tokens))

    async def embed(self, request: EmbedRequest) -> AsyncGenerator[list[EngineEvent]]:
        self.embedded = request
        try:
            for moment in self.vectors(request):
                if isinstance(moment, Exception):
                    raise moment
                if isinstance(moment, asyncio.Event):
                    await moment.wait()
                else:
                    yield list(moment)
        finally:
            self.closed.set()


class FakePool:
    def __init__(self, *engines: FakeEngine) -> None:
        self._engines = {engine.name: engine for engine in engines}
        self.ready = True
        self.asked: list[tuple[str, str, float | None]] = []
        self.slots = self.tokens = 0

    def names(self) -> Sequence[str]:
        return list(self._engines)

    def __contains__(self, name: object) -> bool:
        return name in self._engines

    def get(self, name: str, kind: ModelKind = "generate") -> FakeEngine:
        del kind
        if name not in self._engines:
            raise ModelNotFound(f"The model `{name}` does not exist. Available: …")
        return self._engines[name]

    def status(self, name: str) -> ModelStatus:
        engine = self.get(name)
        state: ResidentState = "unloaded" if engine.loaded is None else "loaded"
        return ModelStatus(name, state, 2000, True, False, 0, 0, None)

    @property
    def memory(self) -> tuple[int, int]:
        return 10_000, 2000

    async def load(self, name: str, keep: float | None = None) -> None:
        self.asked.append(("load", name, keep))

    async def unload(self, name: str) -> None:
        self.asked.append(("unload", name, None))


@dataclass
class Recorder:
    """A `StatsSink` that remembers."""

    models: set[str] = field(default_factory=set)
    requests: list[RequestRecord] = field(default_factory=list)
    gaps: list[tuple[float, int]] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    loads: list[ModelInfo] = field(default_factory=list)
    unloads: list[str] = field(default_factory=list)
    failed_loads: int = 0
    steps: list[StepStats] = field(default_factory=list)

    def on_load(self, model: str, info: ModelInfo) -> None:
        self.models.add(model)
        self.loads.append(info)

    def on_load_failed(self, model: str) -> None:
        self.models.add(model)
        self.failed_loads += 1

    def on_unload(self, model: str) -> None:
        self.models.add(model)
        self.unloads.append(model)

    def on_step(self, model: str, stats: StepStats) -> None:
        self.models.add(model)
        self.steps.append(stats)

    def on_restart(self, model: str, reason: str) -> None:
        self.models.add(model)
        self.restarts.append(reason)

    def on_gap(self, model: str, seconds: float, tokens: int) -> None:
        self.models.add(model)
        self.gaps.append((seconds, tokens))

    def on_request(self, record: RequestRecord) -> None:
        self.models.add(record.model)
        self.requests.append(record)


# A model family as the chat service sees it.


class FakeParser:
    """Reads a markup of its own: `‹reasoning›content«name:arguments»`. Holds back only names.

    Without `calls` there is none.
    """

    def __init__(self, format: FakeFormat, *, calls: bool = True) -> None:
        self.complete_calls = 0
        self._reads_calls = calls
        self._format = format
        self._at = 0
        self._mode = "content"
        self._name = ""
        self._calls = 0

    def push(self, text: str) -> list[Part]:
        return [part for character in text for part in self._read(character)]

    def finish(self, reason: FinishReason) -> list[Part]:
        del reason
        return []

    def _read(self, character: str) -> list[Part]:
        start, self._at = self._at, self._at + 1
        if character in "«»" and not self._reads_calls:
            return [Content(character, start)]
        if character in "‹›«":
            self._mode = {"‹": "reasoning", "›": "content", "«": "name"}[character]
            return []
        if character == "»":
            self._mode, self.complete_calls = "content", self.complete_calls + 1
            return []
        if self._mode == "name":
            return self._read_name(character)
        if self._mode == "arguments":
            return [CallArguments(self._calls - 1, character)]
        return [Reasoning(character) if self._mode == "reasoning" else Content(character, start)]

    def _read_name(self, character: str) -> list[Part]:
        if character != ":":
            self._name += character
            return []
        name, self._name, self._mode = self._name, "", "arguments"
        self._calls += 1
        return [CallStart(self._calls - 1, self._format.next_id(), name)]


class FakeFormat:
    """A `ChatFormat` that keeps what it was asked, and whose grammar says what it stands for."""

    def __init__(self) -> None:
        self.turns: Sequence[Turn] = ()
        self.ask = Ask()
        self.refusal: InvalidRequest | None = None
        self._ids = 0

    def next_id(self) -> str:
        self._ids += 1
        return f"call_{self._ids}"

    def render(self, turns: Sequence[Turn], ask: Ask) -> Rendered:
        self.turns, self.ask = turns, ask
        if self.refusal is not None:
            raise self.refusal
        prompt = (TextPiece(json.dumps(list(turns))),)
        constrained = ask.body or ask.mode == "required"
        return Rendered(
            prompt,
            lambda: FakeParser(self, calls=ask.mode != "none"),
            grammar=f"start: body\n{ask.body}" if constrained else "",
            shown=(256,),
            ends=(257,),
            hidden=(("‹", "›"),),
        )


# The runner as the scheduler's plans see it.


@dataclass(frozen=True)
class Machine:
    """Seconds of a step: linear in tokens and in the work of attention."""

    step: float = 0.004
    token: float = 0.003
    attended: float = 1e-7

    def seconds(self, plan: BatchPlan) -> float:
        tokens = sum(len(row.tokens) for row in plan.rows)
        return self.step + self.token * tokens + self.attended * plan.attended


Cells = list[tuple[int, str]]
"""A token and the scope that computed it, for every position."""


class SimulatedRunner:
    """The KV memory of each slot as it would be, and the states kept in host memory.

    Follows a plan to the letter and fails where llama.cpp would compute nonsense or refuse.
    """

    def __init__(
        self,
        slots: int,
        context: int,
        traits: MemoryTraits,
        machine: Machine,
        *,
        refuse_every: int | None = None,
    ) -> None:
        """Of copies, saves and restores every so many fail."""
        self.cells: list[Cells] = [[] for _ in range(slots)]
        self.saved: dict[int, Cells] = {}
        self._context = context
        self._traits = traits
        self._machine = machine
        self._refuse_every = refuse_every
        self._moves = 0

    def run(
        self,
        plan: BatchPlan,
        scopes: dict[int, str],
        say: Callable[[int, int], int],
        forced: Callable[[int], int],
    ) -> StepResult:
        """`scopes`: of the sequence in each slot; `say(slot, ahead)`: what it samples next.

        `ahead` counts the tokens before it in this step; `forced(slot)` more come without being
        sampled.
        """
        lost: list[int] = []
        unsaved: list[int] = []
        for op in plan.memory:
            if not self._refused(op):
                self._apply(op)
            elif isinstance(op, Save):
                unsaved.append(op.key)
            elif isinstance(op, Copy | Restore):
                slot = op.target if isinstance(op, Copy) else op.slot
                self.cells[slot] = []
                lost.append(slot)
        slots = [row.slot for row in plan.rows]
        assert slots == sorted(set(slots)), "rows are not one a slot, ascending"
        for row in plan.rows:
            if row.slot in lost:
                continue
            if row.filler:
                assert self._traits.trim and len(self.cells[row.slot]) == row.position
                assert len(row.tokens) == 1 and row.position < self._context
            else:
                self._compute(row, scopes[row.slot])
        sampled = {
            row.slot: self._sample(row, say, forced)
            for row in plan.rows
            if row.sample and row.slot not in lost
        }
        seconds = self._machine.seconds(plan)
        return StepResult(sampled, seconds, unsaved=tuple(unsaved), lost=tuple(lost))

    def _refused(self, op: MemoryOp) -> bool:
        if self._refuse_every is None or not isinstance(op, Copy | Save | Restore):
            return False
        self._moves += 1
        unknown = isinstance(op, Restore) and op.key not in self.saved
        return unknown or self._moves % self._refuse_every == 0

    def _apply(self, op: MemoryOp) -> None:
        match op:
            case Copy(source, target, length):
                assert self._traits.copy, "this memory cannot copy"
                assert source != target
                self.cells[target] = self._cut(self.cells[source], length)
            case Restore(slot, key, length):
                self.cells[slot] = self._cut(self.saved[key], length)
            case Trim(slot, length):
                self.cells[slot] = self._cut(self.cells[slot], length) if length else []
            case Save(slot, key):
                assert key not in self.saved and self.cells[slot]
                self.saved[key] = list(self.cells[slot])
            case Forget(key):
                assert key in self.saved or self._refuse_every is not None
                self.saved.pop(key, None)

    def _cut(self, cells: Cells, length: int) -> Cells:
        assert 0 < length <= len(cells)
        assert self._traits.trim or length == len(cells), "this memory cannot be cut"
        return cells[:length]

    def _compute(self, row: Row, scope: str) -> None:
        cells = self.cells[row.slot]
        assert len(row.tokens) > row.draft, "a row with nothing but guesses"
        assert not row.draft or (row.sample and self._traits.trim)
        assert row.position == len(cells), "the row does not continue the slot"
        assert len(cells) + len(row.tokens) <= self._context, "the slot overflows"
        cells += [(token, scope) for token in row.tokens]

    def _sample(
        self, row: Row, say: Callable[[int, int], int], forced: Callable[[int], int]
    ) -> list[int]:
        """Guesses stay as far as they are what would have been said."""
        cells = self.cells[row.slot]
        guesses = cells[len(cells) - row.draft :]
        del cells[len(cells) - row.draft :]
        sampled = [say(row.slot, 0)]
        for guess in guesses:
            if guess[0] != sampled[-1]:
                break
            cells.append(guess)
            sampled.append(say(row.slot, len(sampled)))
        if len(sampled) > row.draft:
            sampled += [say(row.slot, len(sampled) + n) for n in range(forced(row.slot))]
        return sampled


# Echo runners with one fault, for the engine process to load by path.


class DeafRunner(EchoRunner):
    """Its tokenizer has a bug."""

    def tokenize(self, prompt: Sequence[TextPiece], *, begin: bool = True) -> list[int]:
        if any("crash" in piece.text for piece in prompt):
            raise RuntimeError("a bug in the tokenizer")
        return super().tokenize(prompt, begin=begin)


class FailingRunner(EchoRunner):
    """It cannot compute the rows of sequences that hold a `!`, and those alone."""

    def run(self, plan: BatchPlan) -> StepResult:
        result = super().run(plan)
        failed = {
            row.slot: EngineError("no room for this row")
            for row in plan.rows
            if ord("!") in self._kv[row.slot]
        }
        sampled = {slot: t for slot, t in result.sampled.items() if slot not in failed}
        return StepResult(sampled, result.seconds, failed)


class FailingEmbedder(EchoEmbedder):
    """It cannot compute inputs that hold a `!`, and those alone."""

    def run(self, batch: Sequence[Sequence[int]]) -> EmbedResult:
        result = super().run(batch)
        failed = {i: "no room for this input" for i, ids in enumerate(batch) if ord("!") in ids}
        vectors = {i: v for i, v in result.vectors.items() if i not in failed}
        return EmbedResult(vectors, result.seconds, failed)
