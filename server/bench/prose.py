"""English filler, the same for the same seed, and how many tokens of it make a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


def _listed(text: str, separator: str | None = None) -> tuple[str, ...]:
    return tuple(text.split(separator))


adjectives = _listed(
    "old young quiet bright small tall gentle brave green silver heavy narrow warm distant "
    "clever patient golden hollow simple curious"
)
nouns = _listed(
    "farmer sailor teacher painter doctor baker river garden bridge lantern mountain village "
    "market engine letter harbour forest window clock kitchen island library station camera "
    "basket mirror hammer blanket orchard castle"
)
_verbs = _listed(
    "watched carried repaired followed described painted remembered visited crossed measured "
    "opened counted borrowed admired moved"
)
_endings = _listed(
    "in the morning; before the storm; after a long winter; during the summer; at midnight; "
    "on the second day; without a sound; near the end of the year",
    "; ",
)


def sentence(rng: Random) -> str:
    """About 13 words, plain enough to be copied word for word."""
    first, second, third = rng.sample(nouns, 3)
    return (
        f"The {rng.choice(adjectives)} {first} {rng.choice(_verbs)} the {second} "
        f"beside the {rng.choice(adjectives)} {third} {rng.choice(_endings)}."
    )


def prose(rng: Random, words: int) -> str:
    """Sentences, cut after exactly `words` words."""
    text: list[str] = []
    while len(text) < words:
        text += sentence(rng).split()
    return " ".join(text[:words])


@dataclass(frozen=True, slots=True)
class TokenScale:
    """What a model makes of prose: tokens a word, and tokens its chat template adds."""

    per_word: float
    template: float

    @classmethod
    def through(cls, short: tuple[int, int], long: tuple[int, int]) -> TokenScale:
        """From two measurements of (words, prompt tokens)."""
        per_word = (long[1] - short[1]) / (long[0] - short[0])
        return cls(max(per_word, 0.1), max(short[1] - per_word * short[0], 0.0))

    def words(self, tokens: int) -> int:
        """Words of prose that make this many tokens."""
        return max(1, round(tokens / self.per_word))

    def prompt_words(self, tokens: int) -> int:
        """Words of prose that make a whole prompt of this many tokens, template included."""
        return self.words(max(1, round(tokens - self.template)))
