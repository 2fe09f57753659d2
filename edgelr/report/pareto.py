"""Results of a sweep: every bundle and baseline on every device, and the one to ship."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edgelr.core.errors import InputError
from edgelr.core.report import Report
from edgelr.core.results import Metric
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import Task
from edgelr.device.gate import make_gate
from edgelr.report.schema import SCHEMA_VERSION, to_json


@dataclass(frozen=True, slots=True)
class Entry:
    """Figures of one file on one device.

    Attributes:
        profile: id of the device's profile.
        name: title, such as ``edgelr int4, keep 0.5``, or ``dense int8`` for a rival.
        folder: folder of the bundle.
        file_bytes: bytes of graph and sidecar.
        memory_bytes: memory predicted for the device, with the context of its profile.
        fits: whether the device has that memory.
        value: accuracy, measured on this machine.
        baseline: accuracy of the original.
        passed: whether the gate of the profile and parity with torch are passed.
        latency: time of every phase over that of the original in float32, measured in turns with
            it, on this machine and not on the device.
        problem: reason why there are no figures; empty where there are.
        original_bytes: bytes of the original's file, in the graph's precision; 0 where unknown.
        worst: bad end of the interval of ``value``, by which the gate decides; None without one.
    """

    profile: str
    name: str
    folder: str = ""
    file_bytes: int = 0
    memory_bytes: int = 0
    fits: bool = False
    value: float = math.nan
    baseline: float = math.nan
    passed: bool = False
    latency: tuple[tuple[str, float], ...] = ()
    problem: str = ""
    original_bytes: int = 0
    worst: float | None = None

    @property
    def loss(self) -> float:
        """Loss of accuracy: relative for perplexities, absolute for cosines."""
        return self._loss(self.value)

    @property
    def worst_loss(self) -> float:
        """Loss of accuracy at the bad end of the interval."""
        return self._loss(self.value if self.worst is None else self.worst)

    def _loss(self, value: float) -> float:
        return value / self.baseline - 1 if self.baseline > 1 else self.baseline - value


@dataclass(frozen=True)
class Sweep:
    """Content of ``sweep.json``: entries, device by device, and what they depend on."""

    schema_version: int
    created: str
    command: str
    source: str
    digest: str
    metric: str
    text: str
    calibration: tuple[str, ...]
    environment: dict[str, str]
    entries: tuple[Entry, ...]

    @property
    def profiles(self) -> list[str]:
        """Devices, in the order in which they were asked for."""
        return list(dict.fromkeys(entry.profile for entry in self.entries))

    def at(self, profile: str) -> list[Entry]:
        """Entries of one device that have figures."""
        return [each for each in self.entries if each.profile == profile and not each.problem]

    def best(self, profile: str) -> Entry | None:
        """Choose the smallest file that fits the device and passes its gate."""
        usable = [entry for entry in self.at(profile) if entry.fits and entry.passed]
        return min(usable, key=lambda entry: (entry.file_bytes, entry.loss), default=None)

    def front(self, profile: str) -> list[Entry]:
        """Entries that no other of the device beats, or equals, in everything (Pareto)."""
        entries = self.at(profile)
        return [each for each in entries if not any(_beats(other, each) for other in entries)]


def _beats(ours: Entry, theirs: Entry) -> bool:
    """Whether one entry is nowhere worse than another, and somewhere better."""

    def figures(entry: Entry) -> tuple[float, ...]:
        times = dict(entry.latency)
        return (entry.file_bytes, entry.loss, *(times[phase] for phase in phases))

    phases = [phase for phase, _ in ours.latency if phase in dict(theirs.latency)]
    pairs = list(zip(figures(ours), figures(theirs), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def entry_of(report: Report, title: str, folder: Path) -> Entry:
    """Take the compared figures from a report.

    Raises:
        InputError: the bundle was never validated.
    """
    if report.validation is None:
        raise InputError(
            f"The accuracy of {folder} was not measured; expected a bundle that 'edgelr export' "
            f"finished. Report it alone."
        )
    budget, comparison = report.budget, report.comparison
    entry = Entry(
        profile=report.profile,
        name=title,
        folder=folder.as_posix(),
        file_bytes=report.bundle_file_bytes,
        memory_bytes=budget.device_bytes - budget.reserved_bytes - report.headroom_bytes,
        fits=report.fits,
        passed=report.validation.passed,
        latency=() if comparison is None else tuple(comparison.ratios.items()),
        original_bytes=report.dense_file_bytes,
    )
    return judged(entry, report.validation.metrics, report.task)


def judged(entry: Entry, metrics: tuple[Metric, ...], task: Task) -> Entry:
    """Add the figure by which the gate decides, and the original's."""
    (found,) = (metric for metric in metrics if metric.name == TASKS.get(task).metric)
    baseline = 1.0 if found.baseline is None else found.baseline  # one is like oneself
    worst = make_gate(task, metrics, max_drop=0.0).worst
    return replace(entry, value=found.value, baseline=baseline, worst=worst)


def collect(reports: list[tuple[Path, Report]], command: str) -> Sweep:
    """Make a sweep of bundles that are finished.

    Raises:
        InputError: the bundles were judged by different metrics.
    """
    first = reports[0][1]
    metrics = {TASKS.get(report.task).metric: folder for folder, report in reports}
    if len(metrics) > 1:
        told = ", ".join(f"{folder} by {metric}" for metric, folder in metrics.items())
        raise InputError(
            f"The bundles are judged by different metrics: {told}. Expected bundles of one task. "
            f"Report them one by one."
        )
    names = [folder.name for folder, _ in reports]
    entries = [
        entry_of(report, name if names.count(name) == 1 else str(folder), folder)
        for name, (folder, report) in zip(names, reports, strict=True)
    ]
    texts = {report.validation.text for _, report in reports if report.validation}
    models = {report.digest for _, report in reports}
    return Sweep(
        schema_version=SCHEMA_VERSION,
        created=max(report.created for _, report in reports),
        command=command,
        source=first.source if len(models) == 1 else f"{len(models)} different models",
        digest=", ".join(sorted(models)),
        metric=TASKS.get(first.task).metric,
        text=" and ".join(sorted(texts)),
        calibration=(),
        environment=first.environment,
        entries=tuple(entries),
    )


def from_json(text: str) -> Sweep:
    """Read a sweep that ``to_json`` wrote.

    Raises:
        InputError: the text is no sweep.
    """
    try:
        return TypeAdapter(Sweep).validate_json(text)
    except ValidationError as error:
        raise InputError(
            f"The sweep cannot be read ({error.error_count()} problems, the first: "
            f"{error.errors()[0]['msg']}); expected the sweep.json of 'edgelr sweep'. Run it again."
        ) from error


def read_entry(text: bytes) -> Entry:
    """Read an entry that ``write_entry`` wrote."""
    return TypeAdapter(Entry).validate_json(text)


def write_entry(entry: Entry) -> bytes:
    """Write one entry as JSON."""
    return to_json(entry).encode()
