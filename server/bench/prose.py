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

facts = (
    "Honey keeps for years when the jar is closed well.",
    "The first train to the coast leaves at half past six.",
    "My sister grows tomatoes on a balcony above the bakery.",
    "Copper turns green after it has stood in the rain for a long time.",
    "Nobody in the office could say who had painted the door.",
    "A good map shows where the water is and how steep the hills are.",
    "They agreed to meet again on Thursday, if the weather held.",
    "Whales sing to each other across hundreds of miles of ocean.",
    "Please return the books before the library closes for the holidays.",
    "Bread needs flour, water, salt, yeast and a little patience.",
    "The old radio still works, although one of its knobs is missing.",
    "Most of the students walked to school, even in deep snow.",
    "An engineer checked every bolt of the ferris wheel by hand.",
    "Swallows fly low over the fields when a storm is coming.",
    "The museum bought three letters and a pair of broken glasses.",
    "Her grandfather repaired watches in a shop no wider than a bus.",
    "If the light is red, wait until the second bell has rung.",
    "Coffee was once so rare here that people shared a single cup.",
    "We counted forty boats in the bay and only one of them was blue.",
    "The report was late because the printer had run out of paper.",
)
"""Sentences unlike each other: small models copy these, but lose their place in `sentence`s."""


def sentence(rng: Random) -> str:
    """About 13 words."""
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
