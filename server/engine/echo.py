"""A deterministic runner without a model: it answers with the prompt's own words, in order.

Behind the same worker as the real runner, for tests and load tests. It keeps its own picture of
the KV memory and refuses a plan that does not fit it, so a scheduler bug fails loudly here.
"""

from __future__ import annotations

import math
import re
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

from server.core.config import RunnerConfig, SchedulerConfig
from server.core.errors import IngleError, ModelFileError
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
    TokenScore,
    Trim,
)
from server.core.types import GenerateRequest, ModelInfo, SamplingParams, TextPiece
from server.llama.grammar import Constraint, Grammar, GrammarBroken, Grammars, Words

END = 256
BEGIN_TURN = 257
MARK = 258
BYTES = 256
_STEP_TOKENS = SchedulerConfig().max_step_tokens
_SPECIAL = {"<|end|>": END, "<|turn|>": BEGIN_TURN, "<|mark|>": MARK}
_VOCABULARY = BYTES + len(_SPECIAL)
_SPELLINGS = {token: spelling.encode() for spelling, token in _SPECIAL.items()}
_TEMPLATE = (
    "{% if tools %}<|turn|>tools\n<tools>{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n"
    '</tools>\n<tool_call>\n{"name": <name>, "arguments": <arguments>}\n</tool_call><|end|>'
    "{% endif %}"
    "{% for message in messages %}<|turn|>{{ message['role'] }}\n{{ message['content'] or '' }}"
    "{% for call in message.get('tool_calls') or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
_CLOSING = b'"}]0123456789,:tfn'
"""What brings an answer to its end soonest, where a grammar leaves a choice."""
_OPENING = b"{[ \t\n\r\\"
"""What makes it longer, perhaps for ever."""
_KNOBS = re.compile(r"(\w+)=([\d.]+)")


class EchoRunner:
    """Tokens are bytes. A sequence repeats the last turn before its own, then ends.

    The model path carries the knobs: `echo:rate=50,load=0.5,prefill=2000` for decode steps a
    second, seconds to load, prefill tokens a second (0 is unlimited, the default), `mb` for the
    MiB it says it takes; a sampling seed picks where in the turn the echo begins, so seeded
    choices differ.

    Where a grammar refuses the next word, it says what ends the answer soonest. A token is as
    likely as `_logprob` says. `<|mark|>` is a control token that it repeats like a word.
    """

    info: ModelInfo
    memory = MemoryTraits()

    def load(self, config: RunnerConfig) -> None:
        if not config.path.startswith("echo:"):
            raise ModelFileError(f"{config.path}: the echo runner wants a path like echo:rate=50")
        found = knobs(config.path)
        self._rate, self._prefill = found.get("rate", 0.0), found.get("prefill", 0.0)
        time.sleep(found.get("load", 0.0))
        template = _template(config.path)
        slots, context = config.slots or 4, config.context or 4096
        self.memory = MemoryTraits(key=f"{config.path} {config.kv_type}")
        self._kv: list[list[int]] = [[] for _ in range(slots)]
        self._saved: dict[int, list[int]] = {}
        self._asked: dict[int, _Asked] = {}
        words = [bytes([byte]) for byte in range(BYTES)] + [_SPELLINGS[t] for t in _SPELLINGS]
        self._grammars = Grammars(Words(words, _SPELLINGS, [END], list))
        self.info = ModelInfo(
            architecture="echo",
            description="echo",
            quantisation="none",
            parameters=0,
            size=int(found.get("mb", 0)) << 20,
            vocabulary=_VOCABULARY,
            context_train=context,
            context=context,
            slots=slots,
            threads=1,
            kv_bytes=0,
            load_seconds=found.get("load", 0.0),
            resident_bytes=0,
            chat_template=template,
            eos_token="<|end|>",
            special_tokens=_SPECIAL,
            fingerprint="fp_echo" if template == _TEMPLATE else f"fp_{crc32(template.encode()):x}",
        )

    def tokenize(self, prompt: Sequence[TextPiece], *, begin: bool = True) -> list[int]:
        del begin
        return [token for piece in prompt for token in _tokenize(piece)]

    def fewest_tokens(self, prompt: Sequence[TextPiece]) -> int:
        return sum(len(piece.text) for piece in prompt) // max(map(len, _SPECIAL))

    def check(self, sampling: SamplingParams) -> None:
        pass

    def is_end(self, token: int) -> bool:
        return token == END

    def piece(self, token: int) -> bytes:
        return bytes([token]) if token < BYTES else b""

    def spelling(self, token: int) -> bytes:
        return _SPELLINGS.get(token) or self.piece(token)

    def compile(self, grammar: str) -> Grammar:
        return self._grammars.compile(grammar)

    def compiled(self, grammar: str) -> Grammar | None:
        return self._grammars.find(grammar)

    def open(
        self, slot: int, request: GenerateRequest, prompt: list[int], grammar: Grammar | None
    ) -> None:
        ends, stops = frozenset((END,)), frozenset(request.stop_tokens)
        constraint = grammar.begin(ends, stops) if grammar else None
        self._asked[slot] = _Asked(request, prompt, ends | stops, constraint)

    def close(self, slot: int) -> None:
        self._asked.pop(slot, None)

    def state_of(self, slot: int) -> memoryview | None:
        return memoryview(array("I", self._kv[slot]).tobytes())

    def kept(self, key: int) -> memoryview | None:
        return memoryview(array("I", self._saved[key]).tobytes())

    def keep(self, key: int, state: memoryview) -> None:
        self._saved[key] = array("I", bytes(state)).tolist()

    def forget(self, key: int) -> None:
        self._saved.pop(key, None)

    def run(self, plan: BatchPlan) -> StepResult:
        started = time.monotonic()
        if sum(len(row.tokens) for row in plan.rows) > _STEP_TOKENS:
            raise RuntimeError(f"a step of more than {_STEP_TOKENS} tokens")
        for op in plan.memory:
            self._apply(op)
        sampled: dict[int, list[int]] = {}
        failed: dict[int, IngleError] = {}
        scores: dict[int, list[TokenScore]] = {}
        complete: set[int] = set()
        ended: set[int] = set()
        for row in plan.rows:
            if self._compute(row):
                try:
                    sampled[row.slot], scores[row.slot] = self._sample(row)
                except GrammarBroken as broken:
                    failed[row.slot] = broken.refusal
                asked = self._asked[row.slot]
                if row.slot not in failed and asked.complete:
                    complete.add(row.slot)
                if row.slot not in failed and asked.ended:
                    ended.add(row.slot)
        wait = (1 / self._rate if self._rate and plan.decode_tokens else 0.0) + (
            plan.prefill_tokens / self._prefill if self._prefill else 0.0
        )
        if wait:
            time.sleep(wait)
        return StepResult(
            sampled,
            max(time.monotonic() - started, 1e-6),
            failed,
            complete=frozenset(complete),
            scores={slot: found for slot, found in scores.items() if found},
            prompt_scores={row.slot: self._score_prompt(row) for row in plan.rows if row.score},
            ended=frozenset(ended),
        )

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
        if not row.filler:
            cells += row.tokens
        return row.sample

    def _score_prompt(self, row: Row) -> list[TokenScore]:
        """Of a prompt the likeliest next token is the one just read."""
        asked = self._asked[row.slot]
        following = asked.prompt[row.position + 1 : row.position + 1 + len(row.tokens)]
        top = asked.request.logprobs or 0
        return [
            _score(token, read, top) for read, token in zip(row.tokens, following, strict=False)
        ]

    def _sample(self, row: Row) -> tuple[list[int], list[TokenScore]]:
        """The token after the row's own ones, and after each guess that is right."""
        cells, asked = self._kv[row.slot], self._asked[row.slot]
        guesses = cells[len(cells) - row.draft :] if row.draft else []
        del cells[len(cells) - row.draft :]
        sampled: list[int] = []
        scores: list[TokenScore] = []
        while True:
            word = self._next(row.slot)
            sampled.append(asked.choose(word))
            if asked.request.logprobs is not None:
                scores.append(_score(sampled[-1], word, asked.request.logprobs))
            over = asked.complete or asked.ended
            if over or len(sampled) > row.draft or sampled[-1] != guesses[len(sampled) - 1]:
                break
            cells.append(sampled[-1])
        if not over and not scores and len(sampled) > row.draft:
            sampled += asked.forced()
        return sampled, scores

    def _next(self, slot: int) -> int:
        """The next word of the turn before the sequence's own."""
        cells, asked = self._kv[slot], self._asked[slot]
        turns = [i for i, token in enumerate(cells) if token == BEGIN_TURN]
        if len(turns) < 2:
            return END
        said = _body(cells[turns[-2] : turns[-1]])
        done = len(_body(cells[turns[-1] :]))
        begin = asked.shift % max(1, len(said))
        said = said[begin:] + said[:begin]
        return said[done] if done < len(said) else END


class _Asked:
    """The sequence in a slot: what it wants, and how far it has come in its grammar."""

    def __init__(
        self,
        request: GenerateRequest,
        prompt: list[int],
        ends: frozenset[int],
        constraint: Constraint | None,
    ) -> None:
        sampling = request.sampling
        self.request = request
        self.prompt = prompt
        self.ends = ends
        self.constraint = constraint
        self.shift = (sampling.seed or 0) if not sampling.greedy else 0
        self._chosen = 0
        self._last = -1
        if request.resume is not None:
            self._replay(request.resume.tokens)

    def _replay(self, tokens: Sequence[int]) -> None:
        self._chosen = len(tokens)
        for token in tokens:
            if self.constraint is not None:
                self.constraint.take(token)

    @property
    def complete(self) -> bool:
        return self.constraint is not None and self.constraint.complete

    @property
    def ended(self) -> bool:
        """Whether the last word it chose ends the sequence."""
        return self._last in self.ends if self.constraint is None else self.constraint.ended

    def choose(self, word: int) -> int:
        self._last = self._choice(word)
        return self._last

    def _choice(self, word: int) -> int:
        """`word` where it may be said, else what ends the answer soonest. Raises GrammarBroken."""
        self._chosen += 1
        early = self._chosen <= self.request.sampling.min_tokens or self.request.sampling.ignore_end
        refused = early and word in self.ends
        if not refused and (self.constraint is None or self.constraint.take(word)):
            return word
        allowed = _ORDER
        if self.constraint is not None:
            flags = self.constraint.allowed()
            allowed = [token for token in allowed if flags[token]]
        if early:
            allowed = [token for token in allowed if token not in self.ends] or allowed
        if not allowed or (self.constraint is not None and not self.constraint.take(allowed[0])):
            raise GrammarBroken("the grammar allows no token here")
        return allowed[0]

    def forced(self) -> list[int]:
        found = self.constraint.take_forced() if self.constraint is not None else []
        self._chosen += len(found)
        return found


_USUAL = [byte for byte in range(BYTES) if byte not in _CLOSING and byte not in _OPENING]
_ORDER: list[int] = [END, *_CLOSING, *_USUAL, *_OPENING, MARK, BEGIN_TURN]


def _score(token: int, word: int, top: int) -> TokenScore:
    likeliest = ((word + rank) % _VOCABULARY for rank in range(min(top, _VOCABULARY)))
    return TokenScore(
        token, _logprob(token, word), tuple((other, _logprob(other, word)) for other in likeliest)
    )


def _logprob(token: int, word: int) -> float:
    """A half for `word`, a quarter for the token after it, and so on around the vocabulary."""
    return -math.log(2) * ((token - word) % _VOCABULARY + 1)


def _template(path: str) -> str:
    """Its own, or that of the file named by `template=`, which is the last knob."""
    _, named, file = path.partition("template=")
    return Path(file).read_text(encoding="utf-8") if named else _TEMPLATE


def knobs(path: str) -> dict[str, float]:
    """The numbers in a model path such as `echo:rate=50,load=0.5`."""
    return {name: float(value) for name, value in _KNOBS.findall(path)}


def _tokenize(piece: TextPiece) -> list[int]:
    if piece.plain:
        return list(piece.text.encode())
    parts = re.split("(" + "|".join(map(re.escape, _SPECIAL)) + ")", piece.text)
    return [t for p in parts for t in ([_SPECIAL[p]] if p in _SPECIAL else p.encode())]


def _body(turn: list[int]) -> list[int]:
    """A turn's words after the line that names its role."""
    try:
        start = turn.index(ord("\n")) + 1
    except ValueError:
        return []
    return [token for token in turn[start:] if token < BYTES or token == MARK]
