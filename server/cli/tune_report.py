"""A tune's report as a table and sentences, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .units import in_bytes

if TYPE_CHECKING:
    from rich.table import Table

    from server.tune import Profile, ProfileStore, Report
    from server.tune.report import Row

_KV_TOKENS = 1000
_BUSY = 0.15


def table(report: Report) -> Table:
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    shown.add_column("TRIED", no_wrap=True)
    units = "8 answers" if report.goal == "throughput" else "1 answer"
    for title in ("PREFILL", "×1", "×8", units, "GAIN", "KL", "TOP-1", "WEIGHTS", "KV/1k"):
        shown.add_column(title, justify="right", no_wrap=True)
    shown.add_column("", no_wrap=True)
    for race in report.races:
        shown.add_row(f"{race.factor}:", style="bold")
        for row in race.rows:
            shown.add_row(*_cells(row))
    return shown


def _cells(row: Row) -> list[str]:
    cells = [f"  {row.name}"]
    speed = row.speed
    if speed is None or row.seconds is None:
        cells += ["–"] * 4
    else:
        cells += [f"{speed.prefill:.0f}", f"{speed.decode_one:.1f}", f"{speed.decode_many:.1f}"]
        cells.append(f"{row.seconds:.2f} s")
    cells.append("" if row.gain is None else f"{row.gain:+.0%}")
    quality = row.quality
    cells += [f"{quality.divergence:.4f}", f"{quality.agreement:.3f}"] if quality else ["", ""]
    cells += [in_bytes(speed.weights), in_bytes(speed.kv_token * _KV_TOKENS)] if speed else ["", ""]
    return [*cells, row.verdict]


def sentences(report: Report) -> list[str]:
    """What was chosen and why, and how far to trust it."""
    lines = [_outcome(report)]
    if report.quality is not None:
        lines.append(_nearness(report))
    if report.busy >= _BUSY:
        lines.append(
            f"Other programs took {report.busy:.0%} of the processor meanwhile: the figures are "
            "rough. Tune again on a quiet machine."
        )
    return lines


def heading(report: Report) -> str:
    cores = f"{report.cores} core{'s' if report.cores != 1 else ''}"
    return (
        f"{report.model} ({report.quantisation}) on {report.processor}, {cores}, {report.engine}\n"
        "Tokens a second: prefill, decode of one stream and of eight; medians of "
        f"{report.rounds} round{'s' if report.rounds != 1 else ''}. "
        f"{_task(report).capitalize()} of 256 + 128 tokens, in seconds."
    )


def where(profile: Profile | None, store: ProfileStore) -> list[str]:
    """What is on the disk now."""
    if profile is None:
        return []
    lines = [f"Profile   {store.path}"]
    if profile.weights is not None:
        path = store.weights_path(profile.weights.name)
        lines.insert(0, f"Weights   {path}, provenance in {path.name}.json")
    return lines


def _task(report: Report) -> str:
    return "eight answers at once" if report.goal == "throughput" else "one user's answer"


def _outcome(report: Report) -> str:
    if report.choice is None:
        return (
            f"Kept as shipped: nothing tried makes {_task(report)} at least 5 % faster with "
            "answers that stay near. Tuning does not pay for this file on this machine."
        )
    chosen = report.choice.text(report.cores)
    faster = f"{1 + report.gain:.2f} × as fast for {_task(report)} as the file as shipped"
    return f"Chosen: {chosen}; {faster}."


def _nearness(report: Report) -> str:
    assert report.quality is not None
    more = report.after.weights - report.before.weights
    memory = f"{in_bytes(abs(more))} {'more' if more >= 0 else 'less'} memory for weights"
    return (
        f"Nearness to the file as shipped over {report.quality.tokens} tokens: mean KL divergence "
        f"{report.quality.divergence:.4f} nats, same first choice {report.quality.agreement:.1%}; "
        f"{memory}."
    )
