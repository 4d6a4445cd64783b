"""Blocks of reasoning: the tags around them, and whether a prompt has opened one."""

from __future__ import annotations

from msgspec import Struct

from .lark import Lark, pattern_of

SPACE = r"/[ \t\r\n]{1,4}/"
CHARACTERS_A_TOKEN = 4
"""Of reasoning in prose, to bound a block whose closing tag is no single token."""


class Tags(Struct, frozen=True):
    open: str
    close: str


TAGS = (
    Tags("<think>", "</think>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<mm:think>", "</mm:think>"),
    Tags("<think:opensource>", "</think:opensource>"),
    Tags("<thinking>", "</thinking>"),
    Tags("<reasoning>", "</reasoning>"),
    Tags("<|channel>thought", "<channel|>"),
    Tags("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    Tags("<|think|>", "<|end|>"),
)
FINAL_RESPONSE = Tags("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]")
USUAL = TAGS[0]


class Thinking(Struct, frozen=True):
    """`opened`: the answer begins inside the block. `expected`: the model may open one itself.
    `closed`: the answer begins after a block, where some models write empty lines."""

    tags: Tags = USUAL
    opened: bool = False
    expected: bool = False
    closed: bool = False

    def rule(self, lark: Lark, budget: int | None) -> str:
        """An expression for the block and whitespace after it, empty where there is none."""
        gap = lark.terminal("GAP", SPACE)
        if self.opened:
            return f"{self._inside(lark, budget)} {gap}?"
        if not self.expected:
            return ""
        inside = self._inside(lark, budget)
        block = lark.rule("block", f"{gap}? {lark.text(self.tags.open)} {inside} {gap}?")
        return f"{block}?"

    def _inside(self, lark: Lark, budget: int | None) -> str:
        close = self.tags.close
        if budget is None:
            return lark.until(close)
        if lark.is_control(close):
            text = lark.rule("think", "/(?s:.*)/", f"[max_tokens={budget}]")
            return f"{text} {lark.text(close)}" if budget else lark.text(close)
        bound = CHARACTERS_A_TOKEN * budget
        return lark.rule("think", f"/(?s:.){{0,{bound}}}{pattern_of(close)}/", "[lazy]")

    def hidden(self) -> tuple[tuple[str, str], ...]:
        """Where stop strings are not looked for."""
        if self.opened:
            return (("", self.tags.close),)
        return ((self.tags.open, self.tags.close),)


def tags_of(template: str) -> Tags | None:
    """The tags that a template, or what it renders, spells."""
    if FINAL_RESPONSE.close in template:
        return FINAL_RESPONSE
    both = [tags for tags in TAGS if tags.open in template and tags.close in template]
    # A template may only open a block, or only cut one out of earlier turns, after its end.
    closed = [tags for tags in TAGS if tags.close in template and tags.close != "<|end|>"]
    opened = [tags for tags in TAGS if tags.open in template]
    return next(iter(both + closed + opened), None)


def is_opened(prompt: str, tags: Tags) -> bool:
    """Whether the prompt ends inside a block: nothing but whitespace after its opening tag."""
    return prompt.rstrip().endswith(tags.open.rstrip())
