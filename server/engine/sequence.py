"""One sequence on its way through the engine: its tokens, its text, and why it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.core.protocol import Compiled
from server.core.types import FinishReason, GenerateRequest

from .answer import Answer, PromptScores
from .drafting import Drafter

if TYPE_CHECKING:
    from .placement import Hold


class Sequence:
    """`tokens` are known (prompt, then generated); the first `computed` of them are in the slot.

    An answer that another engine process began starts with what it had generated.
    """

    def __init__(self, request: GenerateRequest, prompt: list[int], arrived: float) -> None:
        self.request = request
        self.id = request.id
        self.scope = request.scope
        self.tokens = prompt + list(request.resume.tokens) if request.resume else prompt
        self.prompt_length = len(prompt)
        self._given = len(self.tokens)
        self.arrived = arrived
        self.started = arrived
        self.computed = 0
        self.cached = 0
        self.slot: int | None = None
        self.hold: Hold | None = None
        self.held = False
        """Whether it ever was."""
        self.paused = False
        """Nobody takes its text: its next token waits. Its prompt is read all the same, for others
        may wait for a prefix of it."""
        self.grammar: Compiled | None = None
        self.answer = Answer(request)
        self.drafter = Drafter()
        self.prompt_scores: PromptScores | None = None

    @property
    def remaining(self) -> int:
        """Known tokens still to compute."""
        return len(self.tokens) - self.computed

    @property
    def decoding(self) -> bool:
        """Whether what remains is its last token, or what a grammar made it say."""
        return self.remaining == 1 or self.computed >= self._given

    @property
    def resting(self) -> bool:
        """Whether no step computes it."""
        return self.paused and self.decoding

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_length

    @property
    def prompt(self) -> list[int]:
        return self.tokens[: self.prompt_length]

    @property
    def owes_scores(self) -> bool:
        """Of the prompt."""
        told = self.request.resume is not None and self.request.resume.prompt_scored
        return self.request.prompt_logprobs and not told

    @property
    def scoring(self) -> bool:
        """Whether tokens of the prompt are still to be scored."""
        return self.owes_scores and self.computed < self.prompt_length - 1

    def limit(self, context: int) -> int:
        """How many tokens may be generated: what was asked, or what the slot still holds."""
        room = context - self.prompt_length
        asked = self.request.max_tokens
        return room if asked is None else min(asked, room)

    def out_of_room(self, context: int) -> FinishReason | None:
        return "length" if self.generated >= self.limit(context) else None
