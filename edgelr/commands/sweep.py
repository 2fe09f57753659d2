"""``edgelr sweep``: one calibration for many devices, precisions and sizes, and the rivals of each.

Statistics and decompositions do not depend on the device: the first plan computes them, and every
other finds them in the cache. A finished entry is kept beside the bundles, so that an interrupted
sweep goes on after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edgelr import pipeline
from edgelr.core.bundle import MANIFEST, ExportBundle
from edgelr.core.cache import Cache, digest
from edgelr.core.errors import BudgetError, InputError
from edgelr.core.settings import SHORT_PRECISIONS, Settings, make_settings
from edgelr.core.tasks import METRICS
from edgelr.core.vocabulary import PRECISION_BYTES, AskedPrecision, Precision, WeightPrecision
from edgelr.device.budget import weight_budget
from edgelr.device.profile import DeviceProfile, load_profile
from edgelr.model.loaded import LoadedModel
from edgelr.report.pareto import (
    Entry,
    Sweep,
    entry_of,
    judged,
    read_entry,
    write_entry,
)
from edgelr.report.pareto_html import to_html
from edgelr.report.pareto_tables import to_markdown
from edgelr.report.plot import write_sweep_plot
from edgelr.report.schema import SCHEMA_VERSION, to_json
from edgelr.runtime import calls as jobs
from edgelr.runtime import measure
from edgelr.stages import bundle as delivery
from edgelr.stages import calibration_data as material
from edgelr.stages import checks as refusals
from edgelr.stages import report as reporting
from edgelr.stages import subject as planning
from edgelr.stages.baselines import dense_in
from edgelr.stages.subject import DenseExport, Listener, Subject

FORMAT = 2  # of the entries; raise it when their figures change their meaning
_ENTRY = "entry.json"


@dataclass(frozen=True)
class Question:
    """What is made, for every combination.

    Attributes:
        settings: what the entries have in common.
        profiles: names of devices, or files.
        precisions: of the weights; None takes the one of each device.
        keeps: shares of the planned weights; None takes the smallest plan inside the gate.
        rivals: whether the original model at full rank is measured in every precision too.
    """

    settings: Settings
    profiles: tuple[str, ...]
    precisions: tuple[AskedPrecision | None, ...]
    keeps: tuple[float | None, ...]
    rivals: bool = True


@dataclass(frozen=True)
class _Device:
    """One device, and all that is the same for its entries."""

    profile: DeviceProfile
    subject: Subject
    dense: DenseExport


class _Maker:
    """Makes entries, or finds those that are finished."""

    def __init__(
        self, question: Question, out: Path, cache: Cache, listener: Listener, command: str
    ) -> None:
        self._question, self._out, self._cache = question, out, cache
        self._listener, self._command = listener, command

    def entries(self, name: str) -> Iterator[Entry]:
        """Make everything for one device; its rivals first."""
        device = self._device(name)
        if self._question.rivals:
            for weights in dict.fromkeys((device.profile.precision, "int8", "int4")):
                yield self._rival(device, weights)
        for precision in self._question.precisions:
            for keep in self._question.keeps:
                yield self._bundle(device, name, precision, keep)

    def collect(self, entries: list[Entry]) -> Sweep:
        """Put the entries together with what they depend on."""
        device = self._device(self._question.profiles[0])
        texts = material.calibrate(device.subject, device.dense, self._cache, self._listener)
        return Sweep(
            schema_version=SCHEMA_VERSION,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            command=self._command,
            source=self._question.settings.model,
            digest=device.subject.model.digest,
            metric=METRICS[device.subject.model.task],
            text=device.subject.texts.judged_on,
            calibration=tuple(f"{each.description} ({each.tokens:,} tokens)" for each in texts),
            environment=reporting.environment(),
            entries=tuple(entries),
        )

    def _device(self, name: str) -> _Device:
        profile = load_profile(name)
        subject = planning.examine(self._model, self._settings(name, None, None), profile)
        dense = planning.dense_export(self._model, self._cache, self._listener)
        return _Device(profile, subject, dense)

    @cached_property
    def _model(self) -> LoadedModel:
        model = planning.load_model(self._question.settings, self._cache)
        refusals.refuse_pairs(model, "sweep")
        return model

    def _settings(
        self, profile: str, precision: AskedPrecision | None, keep: float | None
    ) -> Settings:
        given = self._question.settings.model_dump(exclude_defaults=True)
        return make_settings(**{**given, "profile": profile, "precision": precision, "keep": keep})

    # --- bundles ---------------------------------------------------------------------------

    def _bundle(
        self, device: _Device, name: str, precision: AskedPrecision | None, keep: float | None
    ) -> Entry:
        title = f"edgelr {precision or device.profile.precision}"
        title += ", inside the gate" if keep is None else f", keep {keep:g}"
        settings = self._settings(name, precision, keep)
        folder = self._out / device.profile.id / _slug(title)
        model = device.subject.model.digest
        key = digest(FORMAT, settings.model_dump(), device.profile.model_dump(), model)
        finished = folder.with_suffix(".json")
        if self._cache.reuse and finished.exists():
            known, _, text = finished.read_text(encoding="utf-8").partition("\n")
            if known == key and (folder / MANIFEST).exists():
                return read_entry(text.encode())
        self._listener.note(f"{device.profile.id}: {title}")
        try:
            report = pipeline.export(
                settings, device.profile, folder, self._cache, self._listener, self._command,
                force=True, model=self._model,
            )  # fmt: skip
        except (BudgetError, InputError) as error:
            return Entry(device.profile.id, title, problem=str(error))
        entry = entry_of(report, title, folder.relative_to(self._out))
        finished.write_bytes(f"{key}\n".encode() + write_entry(entry))
        return entry

    # --- rivals ----------------------------------------------------------------------------

    def _rival(self, device: _Device, weights: WeightPrecision) -> Entry:
        profile, subject = device.profile, device.subject
        shipped = self._dense(device, weights, profile.precision)
        runnable = self._dense(device, weights, "float32")  # which is what a CPU computes in
        measured = self._measured(device, runnable, f"dense {weights}")
        budget = weight_budget(profile, subject.shape, 0, subject.context_tokens, profile.precision)
        held = shipped.resident_bytes(profile.provider)
        assert held is not None, "dense exports say how their weights are held"
        rest = budget.runtime_bytes + budget.activation_bytes + budget.cache_bytes
        return replace(
            measured,
            profile=profile.id,
            file_bytes=shipped.weight_bytes,
            memory_bytes=rest + held,
            fits=held <= budget.weight_bytes,
            passed=measured.worst_loss <= subject.max_drop,
        )

    def _dense(self, device: _Device, weights: WeightPrecision, values: Precision) -> ExportBundle:
        weights = values if weights in PRECISION_BYTES else weights
        model = device.subject.model
        return dense_in(model, device.dense, weights, device.profile, self._cache, values)

    def _measured(self, device: _Device, run: ExportBundle, title: str) -> Entry:
        """Judge and time a rival once, for all devices that would run the same file."""
        subject, dense = device.subject, device.dense.bundle

        def write(folder: Path) -> None:
            self._listener.note(f"{device.profile.id}: {title}")
            text = subject.texts.write_judged(folder)
            progress = self._listener.progress
            metrics = jobs.accuracy(dense, run, text, size=delivery.EVALUATION, progress=progress)
            lengths = (min(128, subject.context_tokens // 2),)
            found = measure.measure(dense, run, "cpu", None, lengths, lengths, progress=progress)
            latency = tuple(found.ratios.items())
            entry = judged(Entry("", title, latency=latency), metrics, subject.model.task)
            (folder / _ENTRY).write_bytes(write_entry(entry))

        key = digest(FORMAT, str(run.folder), subject.texts.evaluation, subject.texts.records)
        return read_entry((self._cache.stage("rival", key, write)[0] / _ENTRY).read_bytes())


def read_precisions(text: str | None) -> tuple[AskedPrecision | None, ...]:
    """Read precisions such as ``fp32,auto``; None takes the one of each device.

    Raises:
        InputError: one is unknown, or there is none.
    """
    if text is None:
        return (None,)
    names = [SHORT_PRECISIONS.get(part.strip(), part.strip()) for part in text.split(",")]
    try:
        found = TypeAdapter(list[AskedPrecision]).validate_python(names)
    except ValidationError as error:
        raise InputError(
            f"--precision is {text!r}; expected some of fp32, fp16, int8, int4 and auto, separated "
            f"by commas."
        ) from error
    return tuple(dict.fromkeys(found))


def sweep(question: Question, out: Path, cache: Cache, listener: Listener, command: str) -> Sweep:
    """Make every combination, and compare them device by device in ``out``.

    Args:
        question: what is made.
        out: the folder of all bundles; finished ones in it are not made again.
        cache: finished stages. ``reuse=False`` makes finished entries again, too.
        listener: hears of progress.
        command: how the sweep was started, for the reports.

    Raises:
        InputError: a profile cannot be loaded, two have one id, or a setting does not fit.
    """
    _require_names(question.profiles)
    out.mkdir(parents=True, exist_ok=True)
    maker = _Maker(question, out, cache, listener, command)
    entries: list[Entry] = []
    for done, name in enumerate(question.profiles):
        listener.progress("devices", done, len(question.profiles))
        entries += maker.entries(name)
    listener.progress("devices", len(question.profiles), len(question.profiles))
    found = maker.collect(entries)
    (out / "sweep.json").write_text(to_json(found), encoding="utf-8")
    (out / "sweep.md").write_text(to_markdown(found), encoding="utf-8")
    (out / "sweep.html").write_text(to_html(found), encoding="utf-8")
    for suffix in ("svg", "png"):
        write_sweep_plot(found, out / f"sweep.{suffix}")
    return found


def _require_names(profiles: tuple[str, ...]) -> None:
    """Make sure that every device has a folder of its own."""
    found: dict[str, str] = {}
    for name in profiles:
        device = load_profile(name).id
        if found.setdefault(device, name) != name:
            raise InputError(
                f"The profiles {found[device]} and {name} have the same id, {device!r}, and their "
                f"bundles would replace each other. Give one of them another id."
            )


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", title)
