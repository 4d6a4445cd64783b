"""What a person may have meant."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

_FEW = 12


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """To append to «unknown WORD»: what is close to it, else what there is."""
    spelled = {name.lower(): name for name in known}
    holding = [name for name in spelled if word.lower() in name]
    close = (holding or get_close_matches(word.lower(), list(spelled), cutoff=0.5))[:2]
    if close:
        return f"; did you mean {' or '.join(spelled[name] for name in close)}?"
    more = f" and {len(known) - _FEW} more" if len(known) > _FEW else ""
    return f"; it has {', '.join(known[:_FEW])}{more}" if known else "; it has none"
