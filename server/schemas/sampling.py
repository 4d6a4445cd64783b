"""What is asked of each answer's tokens, and of how they are sent: chat and completions alike."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import BeforeValidator, Field

from server.core.errors import InvalidRequest
from server.core.types import SamplingParams

from .common import NO_LIMIT, Inner, Refused, RequestBody

MAX_STOPS = 64
MAX_STOP_LENGTH = 1024
MAX_BIASES = 1024


def _stops(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _minus_one_is_unset(value: Any) -> Any:
    """n8n and LM Studio send -1 for "no limit", others the largest number they know."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    return None if value == -1 else min(value, NO_LIMIT)


# A constraint belongs inside the union with None: outside, it is applied to None too.
_Unset = BeforeValidator(
    _minus_one_is_unset, json_schema_input_type=Annotated[int, Field(ge=-1)] | None
)
Limit = Annotated[Annotated[int, Field(ge=1)] | None, _Unset]
_TopK = Annotated[Annotated[int, Field(ge=0)] | None, _Unset]
TokenCount = _TopK
TokenIds = (
    Annotated[
        list[Annotated[int, Field(ge=0, le=NO_LIMIT)]],
        Field(fail_fast=True, max_length=MAX_STOPS),
    ]
    | None
)
_Stop = Annotated[str, Field(max_length=MAX_STOP_LENGTH)]
_StopList = Annotated[list[_Stop], Field(fail_fast=True, max_length=MAX_STOPS)]
_Stops = Annotated[
    _StopList | None,
    BeforeValidator(_stops, json_schema_input_type=_Stop | _StopList | None),
]


class SamplingFields(RequestBody):
    refused: ClassVar[dict[str, Refused]] = {
        "prompt_logprobs": Refused("Use /v1/completions with 'echo' and 'logprobs'.", (False,)),
        "use_beam_search": Refused("Use /v1/completions with 'best_of'.", (False,)),
        "best_of": Refused("Use /v1/completions, which has it.", (0, 1)),
        "truncate_prompt_tokens": Refused("Shorten the prompt: nothing is cut silently."),
        "allowed_token_ids": Refused("Use 'grammar' or 'logit_bias'.", ([],)),
    }

    temperature: float | None = Field(None, ge=0, le=2)
    """0 is greedy. Absent: what the model recommends, else 1."""
    top_p: float | None = Field(None, ge=0, le=1)
    """0 is greedy."""
    top_k: _TopK = None
    """0 and -1: all tokens."""
    min_p: float | None = Field(None, ge=0, le=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    """Of generated tokens."""
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    """Of generated tokens."""
    repeat_penalty: float | None = Field(None, gt=0, le=10)
    """Of the last 64 tokens, those of the prompt included."""
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    """The same as `repeat_penalty`."""
    typical_p: float | None = Field(None, ge=0, le=1)
    mirostat: int | None = Field(None, ge=0, le=2)
    """1 or 2: top_k, top_p, min_p and typical_p do nothing."""
    mirostat_tau: float | None = Field(None, ge=0, le=100)
    mirostat_eta: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    """-1 is random. Choice i of `n` has `seed` + i."""
    stop: _Stops = None
    """A string or a list; empty strings are dropped. Not looked for in reasoning, in tool calls
    and in what a schema or grammar makes whole."""
    logit_bias: Annotated[
        dict[str, Annotated[float, Field(ge=-100, le=100)]] | None, Field(max_length=MAX_BIASES)
    ] = None
    """Token ids of the served model as keys. -100 bans a token."""
    stop_token_ids: TokenIds = None
    """Tokens that end the answer as the model's own end does; in the middle of what a schema or
    grammar makes whole they are text."""
    min_tokens: TokenCount = None
    """Nothing ends the answer before so many tokens but a limit or a stop string."""
    ignore_eos: bool | None = None
    """Only a limit or a stop string ends the answer."""
    n: int | None = Field(None, ge=1)
    """At most the setting `max_choices`."""
    priority: int | None = Field(None, ge=-1000, le=1000)
    """Lower is served earlier, among the requests of one key."""

    def check_sampling(self, limit: int | None) -> None:
        """Raises InvalidRequest; `limit` is of the answer's tokens."""
        self._token_biases()
        if limit is not None and (self.min_tokens or 0) > limit:
            raise InvalidRequest(
                f"Invalid 'min_tokens': {self.min_tokens} is more than the limit of {limit}, which"
                " 'max_tokens' sets.",
                param="min_tokens",
            )

    def stops(self) -> tuple[str, ...]:
        return tuple(stop for stop in self.stop or () if stop)

    def sampling(self, recommended: dict[str, float], choice: int) -> SamplingParams:
        """For choice `choice` of `n`; what the request leaves open is as the model recommends."""

        def pick(name: str, given: float | None, default: float) -> float:
            return given if given is not None else recommended.get(name, default)

        repeat = self.repeat_penalty if self.repeat_penalty is not None else self.repetition_penalty
        return SamplingParams(
            temperature=pick("temperature", self.temperature, 1.0),
            top_p=pick("top_p", self.top_p, 1.0),
            top_k=int(pick("top_k", self.top_k, 0)),
            min_p=pick("min_p", self.min_p, 0.0),
            seed=None if self.seed in (None, -1) else (self.seed + choice) % 2**32,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            repeat_penalty=pick("repeat_penalty", repeat, 1.0),
            typical_p=pick("typical_p", self.typical_p, 1.0),
            mirostat=cast(Literal[0, 1, 2], self.mirostat or 0),
            mirostat_tau=pick("mirostat_tau", self.mirostat_tau, 5.0),
            mirostat_eta=pick("mirostat_eta", self.mirostat_eta, 0.1),
            min_tokens=self.min_tokens or 0,
            ignore_end=bool(self.ignore_eos),
            logit_bias=self._token_biases(),
        )

    def end_tokens(self, vocabulary: int) -> tuple[int, ...]:
        """Of `stop_token_ids`. Raises InvalidRequest for what is no token of the vocabulary."""
        for i, token in enumerate(self.stop_token_ids or ()):
            if token >= vocabulary:
                raise InvalidRequest(
                    f"Invalid 'stop_token_ids[{i}]': the vocabulary has {vocabulary} tokens,"
                    f" there is no token {token}.",
                    param=f"stop_token_ids[{i}]",
                )
        return tuple(self.stop_token_ids or ())

    def _token_biases(self) -> dict[int, float]:
        biases = {}
        for key, bias in (self.logit_bias or {}).items():
            if not (key.isascii() and key.isdigit() and len(key) <= 9):
                raise InvalidRequest(
                    f"Invalid 'logit_bias': {key[:32]!r} is not a token id.", param="logit_bias"
                )
            biases[int(key)] = bias
        return biases


class StreamOptions(Inner):
    ignored: ClassVar[dict[str, str]] = {
        "include_obfuscation": "nothing is obfuscated",
        "continuous_usage_stats": "usage comes once, at the end",
    }

    include_usage: bool | None = None
    """`true`: a last chunk with the usage."""


class StreamFields(RequestBody):
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)
