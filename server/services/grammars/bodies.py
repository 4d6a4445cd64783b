"""Body fragments for answers of one given text or of one regular expression."""

from __future__ import annotations

from collections.abc import Sequence

from server.core.errors import InvalidRequest

from .lark import string
from .regex import RegexError, translate

MAX_CHOICES = 2000
MAX_CHOICES_TEXT = 100_000


def regex_body(pattern: str, *, param: str) -> str:
    """The whole text matches `pattern`."""
    try:
        return f"body: BODY_TEXT\nBODY_TEXT: /(?:{translate(pattern, search=False)})/\n"
    except RegexError as error:
        raise InvalidRequest(
            f"The regular expression {error}.", param=param, code="invalid_grammar"
        ) from error


def choice_body(choices: Sequence[str], *, param: str) -> str:
    """The whole text is one of `choices`."""
    if not choices:
        raise InvalidRequest(
            "There is nothing to choose from.", param=param, code="invalid_grammar"
        )
    if len(choices) > MAX_CHOICES or sum(map(len, choices)) > MAX_CHOICES_TEXT:
        raise InvalidRequest(
            f"More than {MAX_CHOICES} choices or {MAX_CHOICES_TEXT} characters.",
            param=param,
            code="invalid_grammar",
        )
    for choice in choices:
        if not choice or not _is_text(choice):
            raise InvalidRequest(
                "A choice must be a text that is not empty.", param=param, code="invalid_grammar"
            )
    return f"body: BODY_TEXT\nBODY_TEXT: {' | '.join(map(string, dict.fromkeys(choices)))}\n"


def _is_text(value: str) -> bool:
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)
