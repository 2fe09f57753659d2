"""``edgelr sweep``: one calibration for many devices, precisions and sizes, and the rivals of each.

Statistics and decompositions do not depend on the device: the first plan computes them, and every
other finds them in the cache. A finished entry is kept beside the bundles, so that an interrupted
sweep goes on after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edgelr import pipeline
from edgelr.core.bundle import MANIFEST
from edgelr.core.cache import digest
from edgelr.core.errors import BudgetError, InputError
from edgelr.core.run import FORMATS, Run
from edgelr.core.settings import SHORT_PRECISIONS, Settings, make_settings
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import LAYOUTS, AskedPrecision, WeightPrecision
from edgelr.device.profile import DeviceProfile, load_profile
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
from edgelr.runtime import measure
from edgelr.runtime.requests import PhaseSizes
from edgelr.stages.preflight import preflight
from edgelr.stages.report import environment
from edgelr.stages.rivals import QUANTIZED, device_bytes, judge, original_in
from edgelr.stages.source import Source, Written, open_source
from edgelr.stages.subject import DenseExport, Subject

_ENTRY = "entry.json"


@dataclass(frozen=True)
class SweepRequest:
    """What is made, for every combination.

    Attributes:
        settings: options that the entries share.
        profiles: names of devices, or files.
        precisions: precisions of the weights; None takes the one of each device.
        keeps: shares of the planned weights; None takes the smallest plan inside the gate.
    """

    settings: Settings
    profiles: tuple[str, ...]
    precisions: tuple[AskedPrecision | None, ...]
    keeps: tuple[float | None, ...]


@dataclass(frozen=True)
class _Device:
    """One device, and all that is the same for its entries."""

    profile: DeviceProfile
    subject: Subject
    dense: DenseExport


class _Maker:
    """Makes entries, or finds those that are finished."""

    def __init__(self, question: SweepRequest, out: Path, run: Run, source: Source) -> None:
        self._question, self._out, self._run = question, out, run
        self._source = source  # one for all entries: a model is loaded once

    def entries(self, name: str) -> Iterator[Entry]:
        """Make everything for one device; its rivals first."""
        device = self._device(name)
        if self._question.settings.rivals:
            for weights in dict.fromkeys((device.subject.precision, *QUANTIZED)):
                rival = self._rival(device, weights)
                if rival is not None:
                    yield rival
        for precision in self._question.precisions:
            for keep in self._question.keeps:
                yield self._bundle(device, name, precision, keep)

    def collect(self, entries: list[Entry]) -> Sweep:
        """Put the entries together with what they depend on."""
        device = self._device(self._question.profiles[0])
        calibration = self._source.calibrated_on(device.subject, device.dense, self._run)
        return Sweep(
            schema_version=SCHEMA_VERSION,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            command=self._run.command,
            source=self._question.settings.model,
            digest=device.subject.digest,
            metric=TASKS.get(device.subject.task).metric,
            text=device.subject.judged_on,
            calibration=calibration,
            environment=environment(),
            entries=tuple(entries),
        )

    def _device(self, name: str) -> _Device:
        profile = load_profile(name)
        subject = self._source.subject(self._settings(name, None, None), profile, self._run)
        self._source.require_one_graph(subject, "sweep")
        return _Device(profile, *self._source.dense(subject, self._run))

    def _settings(
        self, profile: str, precision: AskedPrecision | None, keep: float | None
    ) -> Settings:
        asked = {"profile": profile, "precision": precision, "keep": keep}
        given = self._question.settings.given()
        return make_settings(**{**given, **asked, "rivals": False})  # they are set beside all

    # --- bundles ---------------------------------------------------------------------------

    def _bundle(
        self, device: _Device, name: str, precision: AskedPrecision | None, keep: float | None
    ) -> Entry:
        free = len(device.subject.weights) > 1
        title = f"edgelr {precision or ('auto' if free else device.subject.precision)}"
        title += ", inside the gate" if keep is None else f", keep {keep:g}"
        settings = self._settings(name, precision, keep)
        folder = self._out / device.profile.id / _slug(title)
        known = (asdict(settings), device.profile.model_dump(), device.subject.digest)
        key = digest(FORMATS["sweep"], *known)
        finished = folder.with_suffix(".json")
        if self._run.cache.reuse and finished.exists():
            found, _, text = finished.read_text(encoding="utf-8").partition("\n")
            if found == key and (folder / MANIFEST).exists():
                return read_entry(text.encode())
        self._run.note(f"{device.profile.id}: {title}")
        try:
            report = pipeline.export(
                settings, device.profile, folder, self._run.timed(), True, source=self._source
            )
        except (BudgetError, InputError) as error:
            return Entry(device.profile.id, title, problem=str(error))
        entry = entry_of(report, title, folder.relative_to(self._out))
        finished.write_bytes(f"{key}\n".encode() + write_entry(entry))
        return entry

    # --- rivals ----------------------------------------------------------------------------

    def _rival(self, device: _Device, weights: WeightPrecision) -> Entry | None:
        profile, subject = device.profile, device.subject
        written = original_in(self._source, subject, device.dense, weights, self._run)
        if written is None:
            return None
        measured = self._measured(device, written, f"dense {weights}")
        budget = self._source.budget(subject, device.dense)
        memory_bytes, fits = device_bytes(budget, written.bundle, profile.provider)
        return replace(
            measured,
            profile=profile.id,
            file_bytes=written.bundle.weight_bytes,
            memory_bytes=memory_bytes,
            fits=fits,
            passed=measured.worst_loss <= subject.max_drop,
        )

    def _measured(self, device: _Device, written: Written, title: str) -> Entry:
        """Judge and time a rival once, for all devices that would run the same file."""
        subject, dense = device.subject, device.dense.bundle
        timed = written.twin or written.bundle

        def write(folder: Path) -> None:
            self._run.note(f"{device.profile.id}: {title}")
            metrics = judge(subject, device.dense, written, self._run)
            lengths = (min(128, subject.context_tokens // 2),)
            sizes = PhaseSizes(lengths, lengths)
            data, progress = subject.write_judged(folder), self._run.progress
            found = measure.measure(dense, timed, sizes=sizes, progress=progress, samples=data)
            latency = tuple(found.ratios.items())
            entry = judged(Entry("", title, latency=latency), metrics, subject.task)
            (folder / _ENTRY).write_bytes(write_entry(entry))

        parts = (str(timed.folder), subject.judged_key)
        return read_entry((self._run.stage("rival", parts, write) / _ENTRY).read_bytes())


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
            f"--precision is {text!r}; expected some of fp32, fp16, {', '.join(LAYOUTS)} and "
            f"auto, separated by commas."
        ) from error
    return tuple(dict.fromkeys(found))


def sweep(question: SweepRequest, out: Path, run: Run, source: Source | None = None) -> Sweep:
    """Make every combination, and compare them device by device in ``out``.

    Args:
        question: devices, precisions and sizes to make.
        out: the folder of all bundles; finished ones in it are not made again.
        run: cache, listener, clock and seed; a cache that is not reused makes finished entries
            again, too.

    Raises:
        InputError: a profile cannot be loaded, two have one id, or a setting does not fit.
    """
    _require_names(question.profiles)
    preflight(question.settings, out, run, None)
    out.mkdir(parents=True, exist_ok=True)
    maker = _Maker(question, out, run, source or open_source(question.settings))
    entries: list[Entry] = []
    for done, name in enumerate(question.profiles):
        run.progress("devices", done, len(question.profiles))
        entries += maker.entries(name)
    run.progress("devices", len(question.profiles), len(question.profiles))
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
