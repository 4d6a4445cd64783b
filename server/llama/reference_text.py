"""The text that models are compared on: plain prose, a list, numbers, code and a dialogue."""

from __future__ import annotations

TEXT = """\
The harbour lies on the north side of the island, behind a long wall of dark stone. Every morning \
the boats go out before the sun is up, and by noon most of them are back with what the night has \
left in the nets. The market opens at one o'clock. People from the villages inland bring eggs, \
onions and goat cheese, and go home with fish wrapped in wet paper.

To make a simple soup for four people you need:
1. two onions and one carrot, cut into small pieces;
2. a litre of water and a spoon of salt;
3. 300 grams of white fish and a handful of parsley.
Cook the vegetables for twenty minutes, add the fish, and wait until it turns white.

Water boils at 100 degrees Celsius at sea level. On a mountain 3,000 metres high it boils at about \
90 degrees, because the pressure of the air is lower there. This is why rice takes longer to cook \
in the mountains, even though the water seems to boil just as hard.

def mean(values):
    total = 0
    for value in values:
        total += value
    return total / len(values)

"How long does the train take?" asked the old man.
"Two hours and ten minutes," said the clerk, "if it leaves on time."
"And does it leave on time?"
"It did in 1998."

A good question is often worth more than a quick answer. When a machine fails, first write down \
what you saw, then what you expected, and only then what you think is wrong. Most faults are found \
while writing the second line.
"""
