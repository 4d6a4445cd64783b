"""Models against this machine's memory, and how those that are served are computed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

from server.catalog import (
    Elsewhere,
    GGUFHeader,
    ModelStore,
    ResolvedModel,
    Target,
    inspect,
    load_catalog,
    locate,
)
from server.catalog.split import read_model
from server.cli.facts import all_targets
from server.cli.units import in_bytes
from server.core.config import Tuning
from server.core.errors import ConfigError, ModelFileError, OutOfMemory
from server.llama.machine import available_memory, usable_threads
from server.llama.shape import COMPUTE_RESERVE, ELEMENT_BYTES, Shape, StateSize, choose_shape
from server.settings import ModelOptions, Settings
from server.tune import ProfileStore
from server.tune.candidates import COUSINS, describe
from server.tune.machine import this_machine

from .finding import Finding, fail, ok, refused, warn
from .places import disk

_SHORT = 4096


class Fit(Struct, frozen=True):
    """Bytes and tokens. `slots` of None: not known before the model is here, or it has none.

    `total` is what it would take, of it `kv` for keys and values; `fits` whether that is free now.
    """

    name: str
    present: bool
    fits: bool
    weights: int
    total: int
    slots: int | None = None
    context: int | None = None
    kv: int | None = None
    note: str | None = None


def fits(settings: Settings) -> list[Fit]:
    """Every model known by name or here; damaged files are left out."""
    catalog, store = load_catalog(), ModelStore(settings.models_dir)
    free = available_memory()
    found = []
    for target in all_targets(catalog, store, Elsewhere()):
        if target.missing is not None:
            if target.spec is not None:
                found.append(_unread(target.name, target.spec.size, free))
            continue
        try:
            found.append(fit(target.name, read_model(target.path), free))
        except ModelFileError:
            continue
    return found


def _unread(name: str, weights: int, free: int) -> Fit:
    total = weights + COMPUTE_RESERVE
    return Fit(name, False, total <= free, weights, total, note="by its weights")


def fit(
    name: str,
    header: GGUFHeader,
    free: int,
    *,
    tuning: Tuning | None = None,
    context: int | None = None,
    slots: int | None = None,
) -> Fit:
    """Raises ConfigError for a context that the model cannot have."""
    least = header.size + COMPUTE_RESERVE
    if header.kind != "generate":
        return Fit(name, True, least <= free, header.size, least)
    element = ELEMENT_BYTES[(tuning or Tuning()).kv_type]
    state = StateSize(fixed=0, per_token=int(header.kv_width * element))
    try:
        shape = choose_shape(
            context_train=header.context_length or _SHORT,
            state=state,
            free_bytes=max(0, free - header.size),
            context=context,
            slots=slots,
        )
    except OutOfMemory as error:
        shape = Shape(slots=slots or 1, context=context or 512)
        total = least + state.of(shape)
        return Fit(name, True, False, header.size, total, note=error.message)
    kv = state.of(shape)
    return Fit(name, True, True, header.size, least + kv, shape.slots, shape.context, kv)


def served_findings(settings: Settings) -> Iterator[Finding]:
    """Of the models that `ingle serve` would serve here."""
    store = ModelStore(settings.models_dir)
    try:
        targets = locate(settings.served, load_catalog(), store)
    except ConfigError as error:
        yield refused("models to serve", error)
        return
    for word, target in zip(settings.served, targets, strict=True):
        options = settings.options_of(word, target.name)
        yield from _of_model(target, options, settings)


def _of_model(target: Target, options: ModelOptions, settings: Settings) -> Iterator[Finding]:
    if target.missing is not None:
        yield warn(target.name, "it is not here yet", f"ingle pull {target.name}")
        return
    try:
        model = inspect(target)
    except ModelFileError as error:
        yield refused(target.name, error)
        return
    if (lying := disk(target.path, check=target.name)).level != "ok":
        yield lying
    with _warnings() as told:
        store = ProfileStore(settings.models_dir, model.path, this_machine())
        profile = store.find(model.name)
    tuning = profile.tuning if profile else Tuning()
    header = (store.apply(profile, model) if profile else model).header
    yield _room(model.name, header, tuning, options, settings)
    for message in told:
        yield warn(model.name, message, f"ingle tune {model.name}")
    if profile is not None:
        yield ok(model.name, profile.summary(settings.threads))
    elif not told and header.kind == "generate":
        yield _untuned(model, tuning)


def _room(
    name: str, header: GGUFHeader, tuning: Tuning, options: ModelOptions, settings: Settings
) -> Finding:
    free = available_memory()
    remedy = "set fewer slots or a smaller ctx, or choose a smaller model or quantisation"
    try:
        found = fit(
            name,
            header,
            free,
            tuning=tuning,
            context=options.ctx or settings.ctx,
            slots=options.slots or settings.slots,
        )
    except ConfigError as error:
        return refused(name, error)
    if not found.fits:
        return fail(
            name, f"it takes {in_bytes(found.total)} and {in_bytes(free)} can be taken", remedy
        )
    if found.slots is None or found.context is None:
        return ok(name, f"it fits: {in_bytes(found.total)} of {in_bytes(free)}")
    shape = f"{found.slots} × {found.context} tokens"
    if found.context < min(_SHORT, header.context_length or _SHORT):
        return warn(name, f"little memory: {shape}, and it was trained for more", remedy)
    parts = f"{in_bytes(found.weights)} weights, {in_bytes(found.kv or 0)} {tuning.kv_type} KV"
    return ok(name, f"it fits: {shape}, {parts}, {in_bytes(found.total)} in all")


def _untuned(model: ResolvedModel, tuning: Tuning) -> Finding:
    quantisation = model.header.quantisation
    usual = ", ".join(describe(tuning, usable_threads()) or ["f16 KV", "flash attention"])
    if quantisation in COUSINS:
        return warn(
            model.name,
            f"{quantisation} weights, which llama.cpp computes row by row, as it does not"
            f" {COUSINS[quantisation]}",
            f"ingle tune {model.name} measures whether other weights are faster here",
        )
    return ok(model.name, f"{quantisation} weights, {usual}; not tuned, see `ingle tune`")


class _Collected(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        reason = getattr(record, "reason", None)
        self.messages.append(record.getMessage() + (f": {reason}" if reason else ""))


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What is logged meanwhile."""
    collected, log = _Collected(), logging.getLogger("ingle")
    log.addHandler(collected)
    try:
        yield collected.messages
    finally:
        log.removeHandler(collected)
