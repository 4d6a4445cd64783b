"""Completions: prompts as they are, a generation for all of them, and a text for each choice."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

import msgspec

from server.core.errors import InvalidRequest, UnsupportedParameter
from server.core.protocol import Engine, EnginePool
from server.core.stats import StatsSink
from server.core.types import (
    ALL_HIDDEN,
    Finished,
    GenerateRequest,
    ModelInfo,
    PromptScored,
    SamplingParams,
    TextPiece,
)
from server.schemas.common import new_id
from server.schemas.completions import Choice, CompletionRequest, Piece, Prompt
from server.schemas.legacy_logprobs import Logprobs

from .apart import Apart, is_long
from .choices import Choices
from .generation import Generation, Progress
from .models import find_engine
from .structure import body_of, left_out

MAX_SEQUENCES = 1024
"""Of one request: prompts times answers to each."""


class CompletionService:
    """`recommended` is as of Choices."""

    def __init__(
        self,
        pool: EnginePool,
        stats: StatsSink,
        *,
        max_choices: int,
        recommended: Mapping[str, dict[str, float]],
    ) -> None:
        self._pool = pool
        self._stats = stats
        self._choices = Choices(max_choices, recommended)
        self._apart = Apart()

    async def start(self, request: CompletionRequest, scope: str) -> tuple[Engine, Completion]:
        """What every check short of the engine's has let pass."""
        request.check_together()
        candidates = request.candidates()
        self._check_count(request, candidates)
        engine = await find_engine(self._pool, request.model)
        request.check_refused()
        _check_suffix(request, engine.info)
        long = bool(request.gbnf) or is_long(*request.constraints())
        grammar, not_enforced = await self._apart.off_loop(_grammar, request, long=long)
        asked = _asked(request, engine.info, candidates, grammar, scope)
        samplings = _scoring(request, self._choices.samplings(request, engine, candidates))
        requests = [
            msgspec.structs.replace(
                one,
                id=new_id("seq-"),
                sampling=sampling,
                prompt_logprobs=request.scores_prompt and choice == 0,
            )
            for one in asked
            for choice, sampling in enumerate(samplings)
        ]
        echoes = await _echoes(engine, request)
        structure = request.structure()
        generation = Generation(
            engine,
            requests,
            self._stats,
            per_prompt=candidates,
            grammar_of=structure.param if structure else "",
        )
        return engine, Completion(generation, request, candidates, echoes, not_enforced)

    def _check_count(self, request: CompletionRequest, candidates: int) -> None:
        name = "best_of" if candidates > request.choices else "n"
        self._choices.check(name, candidates)
        prompts = len(request.prompts())
        if prompts * candidates > MAX_SEQUENCES:
            raise InvalidRequest(
                f"Invalid 'prompt': {prompts} prompts with {candidates} answers each are more than"
                f" this server's limit of {MAX_SEQUENCES}. Send fewer at once.",
                param="prompt",
                code="array_above_max_length",
            )


class Completion:
    """The answers to one request: choice i·n + j is answer j to prompt i.

    `not_enforced` names keywords of a schema.
    """

    def __init__(
        self,
        generation: Generation,
        request: CompletionRequest,
        candidates: int,
        echoes: list[str],
        not_enforced: list[str],
    ) -> None:
        self.not_enforced = not_enforced
        self.generation = generation
        self._request = request
        self._candidates = candidates
        self._echoes = echoes
        prompts = () if request.scores_prompt else range(len(generation.choices) // candidates)
        self._shifts: dict[int, int] = dict.fromkeys(prompts, 0)
        """By prompt, as soon as it is scored: what stands before the answer in its offsets."""
        self._early: dict[int, list[Progress]] = {}

    async def admitted(self) -> int:
        """See `Generation.admitted`."""
        return await self.generation.admitted()

    async def __aiter__(self) -> AsyncGenerator[list[Piece]]:
        """What each step brought. Echoed prompts come first, or as soon as they are scored."""
        if self._echoes and (echoed := self._echoed()):
            yield echoed
        async for events in self.generation:
            if pieces := [piece for event in events for piece in self._pieces(event)]:
                yield pieces

    async def collect(self) -> list[Choice]:
        """Non-streaming is streaming, collected. Of each prompt's candidates the best remain."""
        choices = [Choice(Logprobs.empty()) for _ in self.generation.choices]
        async for pieces in self:
            for piece in pieces:
                choices[piece.index].add(piece)
        if self._request.logprobs is None:
            for choice in choices:
                choice.logprobs = None
        return self._best(choices)

    def _best(self, choices: list[Choice]) -> list[Choice]:
        best: list[Choice] = []
        for first in range(0, len(choices), self._candidates):
            candidates = choices[first : first + self._candidates]
            if self._candidates > self._request.choices:
                candidates.sort(key=lambda choice: choice.mean, reverse=True)
            best += candidates[: self._request.choices]
        return best

    def _echoed(self) -> list[Piece]:
        """The prompts as they came, for those that are not scored."""
        pieces = (
            Piece(index, self._echoes[index // self._candidates], echo=True)
            for index in self.generation.choices.values()
        )
        return [piece for piece in pieces if piece.text]

    def _pieces(self, event: Progress) -> list[Piece]:
        """A prompt is scored once, with its first choice; the others wait for that."""
        index = self.generation.choices[event.id]
        prompt = index // self._candidates
        if isinstance(event, PromptScored):
            hidden = self._hidden(event.text, prompt)
            self._shifts[prompt] = len(event.text) - hidden
            logprobs = Logprobs.of_prompt(event, hidden=hidden)
            choices = range(index, index + self._candidates)
            pieces = [Piece(i, event.text[hidden:], logprobs, echo=True) for i in choices]
            return pieces + [
                p for early in self._early.pop(prompt, ()) for p in self._pieces(early)
            ]
        if prompt not in self._shifts:
            self._early.setdefault(prompt, []).append(event)
            return []
        if isinstance(event, Finished):
            return [Piece(index, reason=event.reason)]
        if not event.text and not event.logprobs:
            return []
        scored = Logprobs.of(event.logprobs, shift=self._shifts[prompt])
        return [Piece(index, event.text, scored if event.logprobs else None)]

    def _hidden(self, text: str, number: int) -> int:
        """How much of what the model read stands before the prompt: BOS, or a space."""
        prompt = self._request.prompts()[number]
        came = isinstance(prompt, str) and text.endswith(prompt)
        return len(text) - len(prompt) if came else 0


def _asked(
    request: CompletionRequest, info: ModelInfo, candidates: int, grammar: str, scope: str
) -> list[GenerateRequest]:
    """One for each prompt."""
    common = GenerateRequest(
        id="",
        prompt=(),
        max_tokens=request.token_limit(),
        stop=request.stops(),
        hidden=ALL_HIDDEN if grammar else (),
        stop_tokens=request.end_tokens(info.vocabulary),
        logprobs=_alternatives(request, candidates),
        grammar=grammar,
        scope=scope,
        keep=request.keep(),
        priority=request.priority or 0,
    )
    return [
        _with_prompt(common, prompt, name, request.suffix, info)
        for prompt, name in _named(request.prompts())
    ]


def _named(prompts: list[Prompt]) -> list[tuple[Prompt, str]]:
    """With what errors call each of them."""
    if len(prompts) == 1:
        return [(prompts[0], "prompt")]
    return [(prompt, f"prompt[{i}]") for i, prompt in enumerate(prompts)]


def _with_prompt(
    common: GenerateRequest, prompt: Prompt, name: str, suffix: str | None, info: ModelInfo
) -> GenerateRequest:
    if isinstance(prompt, str):
        pieces = _pieces(prompt, name, suffix, info)
        return msgspec.structs.replace(common, prompt=pieces, source=name)
    if max(prompt) >= info.vocabulary:
        raise InvalidRequest(
            f"Invalid '{name}': it holds token {max(prompt)}, but this model's tokens go from 0 to"
            f" {info.vocabulary - 1}. Use the ids of this model's tokenizer (/tokenize), or text.",
            param=name,
        )
    return msgspec.structs.replace(common, prompt_tokens=tuple(prompt), source=name)


def _pieces(prompt: str, name: str, suffix: str | None, info: ModelInfo) -> tuple[TextPiece, ...]:
    if suffix and info.fill_in_middle:
        before_prefix, before_suffix, before_middle = map(TextPiece, info.fill_in_middle)
        prefix, after = TextPiece(prompt, plain=True), TextPiece(suffix, plain=True)
        return (before_prefix, prefix, before_suffix, after, before_middle)
    if not prompt and not info.bos_token:
        raise InvalidRequest(
            f"Invalid '{name}': it is empty, and this model has no token for the beginning of a"
            " text. Send some text.",
            param=name,
        )
    return (TextPiece(prompt or info.bos_token),)


def _check_suffix(request: CompletionRequest, info: ModelInfo) -> None:
    if not request.suffix:
        return
    if info.fill_in_middle is None:
        raise UnsupportedParameter(
            "Unsupported parameter: 'suffix' needs a model with fill-in-the-middle tokens, which"
            " this one has not. Leave 'suffix' out, or use a code model such as Qwen2.5-Coder.",
            param="suffix",
        )
    if not all(isinstance(prompt, str) for prompt in request.prompts()):
        raise InvalidRequest(
            "Invalid 'suffix': it goes with a prompt of text. Send 'prompt' as text.",
            param="suffix",
        )
    if request.scores_prompt:
        raise InvalidRequest(
            "Invalid 'echo': with 'suffix' the model does not read the prompt as it stands in the"
            " text, so its tokens cannot be scored there. Leave out 'echo' or 'logprobs'.",
            param="echo",
        )


def _scoring(request: CompletionRequest, samplings: list[SamplingParams]) -> list[SamplingParams]:
    if request.scores_prompt and request.token_limit() == 1:
        # lm-evaluation-harness scores a prompt so, and takes the last entry for a generated token.
        return [msgspec.structs.replace(sampling, min_tokens=1) for sampling in samplings]
    return samplings


def _alternatives(request: CompletionRequest, candidates: int) -> int | None:
    """Beside each token; the best of several are found by the tokens' own scores."""
    return 0 if request.logprobs is None and candidates > request.choices else request.logprobs


def _grammar(request: CompletionRequest) -> tuple[str, list[str]]:
    """And what it leaves out."""
    structure = request.structure()
    if structure is None:
        return "", []
    return f"start: body\n{body_of(structure)}", left_out(structure)


async def _echoes(engine: Engine, request: CompletionRequest) -> list[str]:
    """A text for each prompt, or none where the prompt is not in the answer or comes scored."""
    if not request.echo or request.scores_prompt:
        return []
    return [
        prompt if isinstance(prompt, str) else (await engine.detokenize(tuple(prompt))).text
        for prompt in request.prompts()
    ]
