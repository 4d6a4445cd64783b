"""From a report to what is kept on the disk."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from server.llama.probe import Format, Quality

from .candidates import Candidate
from .profile import Profile, Provenance, SourceFile, WeightsFile, sha256
from .report import Report
from .store import ProfileStore


def keep(report: Report, model: Path, store: ProfileStore) -> Profile | None:
    """Write the profile and its weights; reads both files once. An older profile is replaced.

    When the file as shipped is best there is nothing to keep, and an older profile goes too.
    """
    if report.choice is None:
        store.revert([store.path])
        return None
    now = datetime.now(UTC).isoformat(timespec="seconds")
    source = SourceFile(model.name, model.stat().st_size, store.edges, sha256(model))
    form, weights, provenance = report.choice.weights, None, None
    if form is not None:
        provenance = _provenance(form, report, source, store, now)
        weights = WeightsFile(store.weights_name(form), form, provenance.size, provenance.quality)
    tuning = report.choice.tuning
    profile = Profile(
        version=1,
        source=source,
        machine=store.machine,
        goal=report.goal,
        gain=report.gain,
        created=now,
        tuning=replace(tuning, threads=tuning.threads or store.machine.cores),
        weights=weights,
        quality=report.quality,
        before=report.before,
        after=report.after,
    )
    store.write(profile, provenance)
    return profile


def _provenance(
    form: Format, report: Report, source: SourceFile, store: ProfileStore, now: str
) -> Provenance:
    part = store.part(form)
    return Provenance(
        made_by="ingle tune",
        source=source,
        format=form,
        sha256=sha256(part),
        size=part.stat().st_size,
        quality=_weights_quality(form, report),
        engine=report.engine,
        created=now,
    )


def _weights_quality(form: Format, report: Report) -> Quality:
    """Measured of the weights alone: the choice may have another KV type too."""
    alone = Candidate(form)
    rows = (row for race in report.races for row in race.rows if row.candidate == alone)
    return next(row.quality for row in rows if row.quality is not None)
