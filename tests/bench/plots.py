"""Two pictures for the README. The only user of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from .goals import Result

OURS, PEERS, MISSED = "#1f6f8b", "#b0b0b0", "#c8553d"
_NAMES = {"ingle": ("Ingle", OURS), "peer": ("llama-server", MISSED)}


def draw(results: Sequence[Result], timelines: Mapping[str, Sequence[float]], out: Path) -> None:
    if any(result.ratio is not None for result in results):
        ratios(results, out / "ratios.png")
    if timelines:
        intrusion(timelines, out / "intrusion.png")


def ratios(results: Sequence[Result], path: Path) -> None:
    """A bar a case on a logarithmic axis, and a mark where it should reach."""
    shown = [(result, ratio) for result in results if (ratio := result.ratio) is not None]
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(shown) + 1.4))
    for place, (result, ratio) in enumerate(shown):
        axes.barh(place, ratio - 1, left=1, color=OURS if result.met else MISSED, height=0.6)
        axes.plot([result.goal.target] * 2, [place - 0.38, place + 0.38], color="black", lw=1.5)
        axes.annotate(f" {ratio:.2f} ×", (max(ratio, 1), place), va="center", fontsize=9)
    axes.set_yticks(range(len(shown)), [result.goal.title for result, _ in shown], fontsize=9)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.axvline(1, color=PEERS, lw=1)
    axes.set_xlabel("times better than the peer (black: the target)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


def intrusion(timelines: Mapping[str, Sequence[float]], path: Path) -> None:
    """How long one reader waited for each piece of the answer, over time."""
    figure, axes = plt.subplots(figsize=(8, 3.2))
    for side, moments in timelines.items():
        name, colour = _NAMES[side]
        gaps = [(later, later - earlier) for earlier, later in pairwise(moments)]
        axes.plot(*zip(*gaps, strict=True), ".-", color=colour, label=name, ms=4, lw=0.8)
    axes.axvline(0, color=PEERS, lw=1)
    axes.set_yscale("log")
    axes.set_xlabel("seconds since three prompts of 1 450 tokens arrived")
    axes.set_ylabel("gap between tokens, s")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)
