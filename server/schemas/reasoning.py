"""Whether and how long a model thinks before it answers, in the spellings clients have for it."""

from __future__ import annotations

from typing import Any, Literal

from server.core.errors import InvalidRequest

from .common import RequestBody
from .sampling import TokenCount

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
_SWITCHES = ("enable_thinking", "thinking")


class ReasoningFields(RequestBody):
    """A switch beats an effort; what the template's own variables say beats both."""

    reasoning_effort: Effort | None = None
    """Given to the template; `none` turns thinking off, any other on. Ignored by models that do
    not think."""
    enable_thinking: bool | None = None
    """Turns thinking on or off where the template can."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables of the template; `enable_thinking` must be a boolean."""
    thinking_budget_tokens: TokenCount = None
    """Closes the reasoning after so many tokens; -1 is no limit, 0 turns thinking off."""
    reasoning_budget_tokens: TokenCount = None
    """The same as `thinking_budget_tokens`."""
    thinking_token_budget: TokenCount = None
    """The same as `thinking_budget_tokens`."""
    thinking_budget: TokenCount = None
    """The same as `thinking_budget_tokens`."""

    def variables(self) -> dict[str, Any]:
        """Raises InvalidRequest for a switch that is no boolean: "false" is true to a template."""
        given = self.chat_template_kwargs or {}
        value = given.get("enable_thinking")
        if value is not None and not isinstance(value, bool):
            raise InvalidRequest(
                "Invalid 'chat_template_kwargs.enable_thinking': it must be true or false, without"
                " quotes.",
                param="chat_template_kwargs.enable_thinking",
                code="invalid_type",
            )
        return {name: value for name, value in given.items() if value is not None}

    def effort(self) -> str | None:
        """What the template is given as `reasoning_effort`."""
        effort = self.variables().get("reasoning_effort", self.reasoning_effort)
        return effort if isinstance(effort, str) and effort != "none" else None

    def thinking(self) -> bool | None:
        """None leaves it to the template."""
        given = self.variables()
        switches = [*(given.get(name) for name in _SWITCHES), self.enable_thinking]
        chosen = next((switch for switch in switches if isinstance(switch, bool)), None)
        if chosen is not None:
            return chosen
        if self.budget() == 0:
            return False
        effort = given.get("reasoning_effort", self.reasoning_effort)
        return None if effort is None else effort != "none"

    def budget(self) -> int | None:
        spellings = (
            self.thinking_budget_tokens,
            self.reasoning_budget_tokens,
            self.thinking_token_budget,
            self.thinking_budget,
        )
        return next((budget for budget in spellings if budget is not None), None)
