"""The plain data both processes share: requests, the events that answer them, and model facts."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from .errors import BY_NAME, EngineError, IngleError

FinishReason = Literal["stop", "length"]
ModelKind = Literal["generate", "embed", "rerank"]


class TextPiece(Struct, frozen=True, array_like=True):
    """A run of prompt text. In plain pieces a special token's spelling is tokenised as text."""

    text: str
    plain: bool = False


class SamplingParams(Struct, frozen=True, omit_defaults=True):
    """How the next token is chosen.

    `frequency_penalty` and `presence_penalty` count generated tokens only (OpenAI);
    `repeat_penalty` counts the last `repeat_last_n` tokens, prompt included (llama.cpp).
    `seed` is 32 bits unsigned; None draws a fresh one.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    typical_p: float = 1.0
    mirostat: Literal[0, 1, 2] = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    logit_bias: dict[int, float] = {}
    min_tokens: int = 0
    """No end token, and no token of `stop_tokens`, before so many were generated."""
    ignore_end: bool = False
    """End tokens are never chosen: only a limit or a stop string ends the sequence."""

    @property
    def greedy(self) -> bool:
        return self.temperature < 1e-4 or self.top_p <= 0.0 or self.top_k == 1


LEAST_LOGPROB = -9999.0
ALL_HIDDEN = (("", ""),)


class Resume(Struct, frozen=True, array_like=True):
    """Where an answer goes on that another engine process admitted, and may have begun.

    `tokens` were chosen, with `draws` random numbers, and `told` characters of text sent;
    `prompt_scored`: the PromptScored too.
    """

    tokens: tuple[int, ...] = ()
    draws: int = 0
    told: int = 0
    prompt_scored: bool = False


class GenerateRequest(Struct, frozen=True, omit_defaults=True):
    """One sequence to generate. Prefixes are shared only within one `scope` (an API key).

    The prompt is text, or token ids in `prompt_tokens`, which are taken as they are. Among the
    requests of a scope the lowest `priority` is served first. `max_tokens` 0 only reads the prompt.

    `logprobs` reports each token's logarithm of probability with so many alternatives; with
    `prompt_logprobs` the prompt's tokens too, in a PromptScored. `grammar` is llguidance's Lark
    dialect; what it refuses is never generated. Control tokens add nothing to the text, but those
    of `shown_tokens` their spelling. Tokens of `stop_tokens` end the sequence as end tokens do,
    but in the middle of a grammar they are what they spell.

    `source` is what the client calls the prompt, where it is not the usual name. `keep`: seconds
    that its model shall stay in memory after it, where the request says.

    A `stop` string is looked for in visible text only: not between the two strings of a pair of
    `hidden` (reasoning, tool calls, what a grammar makes whole). An empty first string means from
    the start of the answer, an empty second one to its end. Visible text that begins like
    `hidden_start` is hidden too: a pattern that matches any beginning of such text as a whole, and
    has a group where nothing else can come of it.
    """

    id: str
    prompt: tuple[TextPiece, ...]
    sampling: SamplingParams = SamplingParams()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    hidden: tuple[tuple[str, str], ...] = ()
    hidden_start: str = ""
    stop_tokens: tuple[int, ...] = ()
    shown_tokens: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: bool = False
    grammar: str = ""
    prompt_tokens: tuple[int, ...] = ()
    source: str = ""
    scope: str = ""
    priority: int = 0
    keep: float | None = None
    resume: Resume | None = None

    @property
    def prompt_name(self) -> str:
        """For errors about the prompt."""
        return self.source or ("prompt" if self.prompt_tokens else "messages")


class EmbedRequest(Struct, frozen=True, omit_defaults=True):
    """Inputs to turn into one vector each: texts, or token ids that are taken as they are.

    With a `query` they are documents, and each one's score says how well it answers the query.
    Vectors are cut to `dimensions` where given. Errors call input 3 `field[3]`, or plainly `field`
    where it came alone. `keep` is as of GenerateRequest.
    """

    id: str
    texts: tuple[str, ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()
    query: str | None = None
    dimensions: int | None = None
    field: str = "input"
    alone: bool = False
    scope: str = ""
    keep: float | None = None

    def name_of(self, index: int) -> str:
        return self.field if self.alone else f"{self.field}[{index}]"


class Usage(Struct, frozen=True, array_like=True):
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class Admitted(Struct, frozen=True, tag="a", array_like=True):
    """The request passed every check and waits for a slot; nothing can refuse it any more.

    `position` 1 is the next to get a slot, in the order of arrival; for 0 there is one at once.
    """

    id: str
    prompt_tokens: int
    position: int = 0


class Started(Struct, frozen=True, tag="s", array_like=True):
    """It waits no longer: it has a slot."""

    id: str


class Scored(Struct, frozen=True, array_like=True):
    """A token and the natural logarithm of its probability, unmodified by sampling, LEAST_LOGPROB
    or more.

    `data` are its bytes, perhaps part of a character; None for a token without text.
    """

    token: int
    text: str
    data: bytes | None
    logprob: float


class TokenLogprob(Struct, frozen=True, array_like=True):
    """A token of the answer (or prompt) with its likeliest alternatives, best first.

    `offset` is where its text begins, in characters from the first one of the answer (of the
    prompt). The first token of a prompt has no `logprob`.
    """

    chosen: Scored
    top: tuple[Scored, ...]
    offset: int


class TokenDelta(Struct, frozen=True, tag="d", array_like=True):
    """What one step added: whole characters (none while bytes are held), and the ids sampled.

    `logprobs` belong to the tokens whose text is released with this delta: each token once.
    `draws` counts the random numbers taken so far, where a `seed` makes them matter.
    """

    id: str
    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    draws: int = 0


class PromptScored(Struct, frozen=True, tag="p", array_like=True):
    """The prompt as the model reads it: its text, and every token but the first one scored."""

    id: str
    text: str
    logprobs: tuple[TokenLogprob, ...]


class Embedded(Struct, frozen=True, tag="e", array_like=True):
    """The vectors of the next `count` inputs, in their order, one after the other.

    Little-endian float32 of length 1 (‖v‖₂); of a reranker one score from 0 to 1 each.
    """

    id: str
    count: int
    data: bytes


class Finished(Struct, frozen=True, tag="f", array_like=True):
    """The last event of a sequence. `queue_seconds` is the wait for a slot."""

    id: str
    reason: FinishReason
    usage: Usage
    queue_seconds: float


class Failed(Struct, frozen=True, tag="x", array_like=True):
    """The last event of a request that was refused or broke; `error` names a class of the tree."""

    id: str
    error: str
    message: str
    param: str | None = None
    code: str | None = None

    @classmethod
    def of(cls, request_id: str, error: IngleError) -> Failed:
        return cls(request_id, type(error).__name__, error.message, error.param, error.error_code)

    def exception(self) -> IngleError:
        return BY_NAME.get(self.error, EngineError)(self.message, param=self.param, code=self.code)


class Tokenized(Struct, frozen=True, tag="t", array_like=True):
    """Tokens outside a sequence, each with its bytes; a control token's are its spelling."""

    id: str
    tokens: tuple[int, ...]
    pieces: tuple[bytes, ...]

    @property
    def text(self) -> str:
        return b"".join(self.pieces).decode("utf-8", "replace")


EngineEvent = (
    Admitted | Started | PromptScored | TokenDelta | Embedded | Finished | Failed | Tokenized
)


class ModelInfo(Struct, frozen=True, omit_defaults=True):
    """What a loaded engine reports of itself. Sizes in bytes, contexts in tokens."""

    architecture: str
    description: str
    quantisation: str
    parameters: int
    size: int
    vocabulary: int
    context_train: int
    context: int
    slots: int
    threads: int
    kv_bytes: int
    load_seconds: float
    resident_bytes: int
    chat_template: str | None = None
    bos_token: str = ""
    eos_token: str = ""
    special_tokens: dict[str, int] = {}
    """Control tokens by spelling, longest first."""
    text_tokens: dict[str, int] = {}
    """Text that is always one token, such as `</think>` in some models, longest first."""
    fill_in_middle: tuple[str, str, str] | None = None
    """The control tokens before a prefix, before a suffix and before the middle."""
    sampling: dict[str, float] = {}
    fingerprint: str = ""
    gpu: str | None = None
    kind: ModelKind = "generate"
    embedding_size: int = 0
    """Dimensions of a vector; 0 for a model that makes none."""
    matryoshka: bool = False
    """Trained so that the first dimensions of a vector are a smaller vector of the same text."""
    kept_bytes: int = 0
    """What the states of earlier sequences may take in host memory."""
    restored_states: int = 0
    """Of an earlier engine, found when this one was loaded."""
    refused_states: dict[str, int] = {}
    """Those that were not what they should be, by why."""

    @property
    def memory_bytes(self) -> int:
        """What the engine takes, or may take yet; weights that are mapped count."""
        return max(self.resident_bytes, self.size + self.kv_bytes) + self.kept_bytes
