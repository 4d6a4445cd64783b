"""/v1/chat/completions on the wire: the request. `chat_answer` and `chat_frames` are its answer."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from server.core.errors import InvalidRequest

from .chat_answer import AnswerShape
from .common import Refused
from .keeping import KeepFields
from .messages import Message
from .reasoning import ReasoningFields
from .sampling import Limit, SamplingFields, StreamFields
from .structure import StructureFields
from .tools import ToolFields

MAX_MESSAGES = 10_000
MAX_TOP_LOGPROBS = 20


class PromptRequest(ToolFields, ReasoningFields):
    """What a conversation is, and how the model is to read it."""

    refused: ClassVar[dict[str, Refused]] = {
        "chat_template": Refused("Leave it out: the model's own template is used."),
    }

    model: str | None = None
    """May be left out when one model is served."""
    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    add_generation_prompt: bool | None = None
    """`false` leaves out the template's opening of the answer."""
    continue_final_message: bool | None = None
    """The answer goes on where the last message, the assistant's, ends."""

    def check_together(self) -> None:
        """Raises InvalidRequest for all that is wrong whatever the model."""
        self.prefills()
        self.thinking()
        self.tool_use()

    def prefills(self) -> bool:
        """Whether the answer continues the last message."""
        if not self.continue_final_message:
            return False
        if self.add_generation_prompt:
            raise InvalidRequest(
                "Invalid 'continue_final_message': with 'add_generation_prompt' a new message would"
                " begin. Set one of them to false.",
                param="continue_final_message",
            )
        if self.messages[-1].role != "assistant":
            raise InvalidRequest(
                "Invalid 'continue_final_message': the last message is not the assistant's.",
                param="continue_final_message",
            )
        return True


class ChatRequest(PromptRequest, StructureFields, SamplingFields, StreamFields, KeepFields):
    ignored: ClassVar[dict[str, str]] = {
        "prediction": "speculation needs no hint; no predicted token is ever charged",
        "verbosity": "no local model knows it",
        "store": "nothing is stored",
        "metadata": "nothing is stored",
        "service_tier": "there is one tier",
        "user": "keys tell users apart",
        "safety_identifier": "keys tell users apart",
        "prompt_cache_key": "every shared prefix is found without",
        "prompt_cache_retention": "every shared prefix is found without",
        "prompt_cache_options": "every shared prefix is found without",
        "moderation": "nothing is moderated",
        "audio": "answers are text only",
        "web_search_options": "nothing is searched",
        "cache_prompt": "prompts are always cached",
        "id_slot": "the scheduler chooses",
        "options": "Ollama's own; send its fields at the top level",
        "thinking": "use enable_thinking or reasoning_effort",
        "reasoning_format": "reasoning is always in reasoning_content",
        "include_reasoning": "reasoning is always in reasoning_content",
        "timings_per_token": "nothing is added to chunks",
        "return_progress": "nothing is added to chunks",
        "guided_decoding_backend": "there is one",
    }
    refused: ClassVar[dict[str, Refused]] = {
        "modalities": Refused("Ask for text: answers are text only.", (["text"],)),
    }

    max_completion_tokens: Limit = None
    """Wins over `max_tokens`; -1 is no limit."""
    max_tokens: Limit = None
    """More than there is room for is no error: the answer ends with `length`."""
    logprobs: bool | None = None
    """Of the visible text's tokens, by the unmodified distribution."""
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    """Needs `logprobs`."""

    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def shape(self) -> AnswerShape:
        return AnswerShape(
            tools=self.tool_use().mode != "none",
            legacy=bool(self.functions),
            logprobs=bool(self.logprobs),
            include_usage=self.include_usage,
        )

    def scores(self) -> int | None:
        """How many alternatives of each token to report; None for no logprobs at all."""
        if not self.logprobs and self.top_logprobs:
            raise InvalidRequest(
                "Invalid 'top_logprobs': it needs 'logprobs'. Set 'logprobs' to true.",
                param="top_logprobs",
            )
        return (self.top_logprobs or 0) if self.logprobs else None

    def check_together(self) -> None:
        super().check_together()
        self.check_sampling(self.token_limit())
        self.scores()
        structure = self.structure()
        if structure and structure.kind == "gbnf" and self.tool_use().mode != "none":
            raise InvalidRequest(
                f"Invalid '{structure.param}': a grammar of your own leaves no room for tool calls."
                " Remove the tools, or set 'tool_choice' to 'none'.",
                param=structure.param,
            )


class TemplateRequest(PromptRequest):
    """A chat request of which nothing is generated."""

    ignored: ClassVar[dict[str, str]] = ChatRequest.ignored | dict.fromkeys(
        (*ChatRequest.model_fields, *(ChatRequest.refused.keys() - PromptRequest.refused.keys())),
        "nothing is generated",
    )
