"""Which format a model has: told by its template's text and by how that writes a call."""

from __future__ import annotations

from server.core.errors import TemplateError
from server.core.types import ModelInfo
from server.services import sandbox
from server.services.templates import ChatTemplate, Render

from . import harmony
from .base import ChatFormat
from .families import FAMILIES, GENERIC, Family
from .syntax import Call
from .template_format import HarmonyFormat, TemplateFormat
from .thinking import tags_of
from .traits import TOOL_NAME, Traits, probe_arguments, traits_of, written_call

_UNREAD = ((("<atem:function_calls>", "<|eom|>"), "Muse Glimmer"),)
"""Marks of formats that would only be half understood."""


def chat_format(info: ModelInfo, render: Render = sandbox.render) -> ChatFormat:
    """Raises TemplateError for a model without a template, or with one that is damaged.

    `render` may be one that bounds what a template takes.
    """
    if info.chat_template is None:
        raise TemplateError("The model has no chat template: it is a base model.", param="model")
    template = ChatTemplate(info.chat_template, info, render)
    traits = traits_of(template)
    written = written_call(template, traits)
    tags = tags_of(template.source + written)
    if all(mark in template.source for mark in harmony.MARKS):
        return HarmonyFormat(template, info, traits, GENERIC, None)
    for marks, name in _UNREAD:
        if all(mark in template.source for mark in marks):
            raise TemplateError(f"{name}'s way of writing answers is not supported.", param="model")
    return TemplateFormat(template, info, traits, family_of(template, traits, written), tags)


def family_of(template: ChatTemplate, traits: Traits, written: str) -> Family:
    """Of families with the same marks the one that writes a call as the template has `written`."""
    fitting = [f for f in FAMILIES if all(mark in template.source for mark in f.marks)]
    if not fitting or (not traits.tools_as and not traits.calls):
        return GENERIC
    calls = [Call(TOOL_NAME, probe_arguments(), id) for id in ("0", "1")]
    for family in fitting:
        if any(family.syntax.write([call]) in written for call in calls):
            return family
    return fitting[0]
