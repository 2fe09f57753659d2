"""Differences between two bundles: layers, figures, settings and environment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from edgelr.core.measurement import Comparison
from edgelr.core.plan import SitePlan
from edgelr.core.report import Report
from edgelr.report.figures import model_name
from edgelr.report.schema import SCHEMA_VERSION

Origin = Literal["counted", "measured", "predicted"]
SETTINGS = ("settings.", "recipe.", "seed", "calibration", "model.")  # in the lock
FOLDER = "settings.out"  # which says nothing of the bundle


@dataclass(frozen=True, slots=True)
class FigureChange:
    """One figure of both bundles, in one unit; None where a bundle does not have it."""

    name: str
    unit: str
    origin: Origin
    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True)
class SiteChange:
    """The plan of one linear in both bundles; None where a bundle does not have it."""

    name: str
    before: SitePlan | None
    after: SitePlan | None
    bytes: int


@dataclass(frozen=True, slots=True)
class WordChange:
    """A setting or a version in both bundles; empty where a bundle does not have it."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Diff:
    """Everything that differs between two bundles.

    Attributes:
        before, after: folders of the bundles.
        same_model: whether both were made from the same weights.
        figures: totals, accuracy, latency and memory, changed or not.
        sites: linears whose plans differ, the largest difference in bytes first.
        unchanged_sites: number of linears whose plans are equal.
        notes: sentences to read before comparing.
    """

    schema_version: int
    before: str
    after: str
    same_model: bool
    figures: tuple[FigureChange, ...]
    sites: tuple[SiteChange, ...]
    unchanged_sites: int
    settings: tuple[WordChange, ...]
    environment: tuple[WordChange, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two bundles: its folder, one of its reports, and its lock."""

    folder: str
    report: Report
    lock: dict[str, str]


def make_diff(before: Side, after: Side) -> Diff:
    """Compare two bundles, linear by linear and figure by figure."""
    sites = sorted(
        _sites(before.report, after.report), key=lambda each: (-abs(each.bytes), each.name)
    )
    locked = _words(before.lock, after.lock)
    environment = _words(before.report.environment, after.report.environment)
    settings = tuple(
        each for each in locked if each.name.startswith(SETTINGS) and each.name != FOLDER
    )
    total = {site.name for each in (before, after) for site in each.report.plan.sites}
    return Diff(
        schema_version=SCHEMA_VERSION,
        before=before.folder,
        after=after.folder,
        same_model=before.report.digest == after.report.digest,
        figures=tuple(_figures(before.report, after.report)),
        sites=tuple(sites),
        unchanged_sites=len(total) - len(sites),
        settings=settings,
        environment=environment,
        notes=tuple(_notes(before.report, after.report)),
    )


def _sites(before: Report, after: Report) -> Iterator[SiteChange]:
    ours = {site.name: site for site in before.plan.sites}
    theirs = {site.name: site for site in after.plan.sites}
    for name in dict.fromkeys([*ours, *theirs]):
        one, other = ours.get(name), theirs.get(name)
        if one and other and _what(one) == _what(other):
            continue
        size = (other.candidate.bytes if other else 0) - (one.candidate.bytes if one else 0)
        yield SiteChange(name, one, other, size)


def _what(site: SitePlan) -> tuple[object, ...]:
    chosen = site.candidate
    return chosen.form, chosen.rank, chosen.precision, chosen.bytes, site.group


def _figures(before: Report, after: Report) -> Iterator[FigureChange]:
    ours, theirs = _known(before), _known(after)
    for name in dict.fromkeys([*ours, *theirs]):
        unit, origin, _ = ours.get(name) or theirs[name]
        values = (side[name][2] if name in side else None for side in (ours, theirs))
        yield FigureChange(name, unit, origin, *values)


def _known(report: Report) -> dict[str, tuple[str, Origin, float]]:
    """Collect ``(unit, origin, value)`` of every figure that has a name."""
    plan = report.plan
    found: dict[str, tuple[str, Origin, float]] = {
        "model files": ("bytes", "counted", report.bundle_file_bytes),
        "factorizable weights": ("bytes", "counted", plan.planned_bytes),
        "kept": ("share", "counted", plan.kept),
        "loss of the plan": ("", "predicted", plan.predicted_loss),
    }
    for metric in report.validation.metrics if report.validation else ():
        found[metric.name] = (metric.unit, "measured", metric.value)
        if metric.baseline is not None:
            found[f"{metric.name} of the original"] = (metric.unit, "measured", metric.baseline)
    if report.comparison is not None:
        found |= _measured(report.comparison)
    if report.prediction is not None:
        for phase in report.prediction.phases:
            found[f"{phase.key} on the device"] = ("ms", "predicted", phase.bundle_ms)
        resident = report.prediction.resident_bytes
        found["resident memory on the device"] = ("bytes", "predicted", resident)
    found["headroom on the device"] = ("bytes", "predicted", report.headroom_bytes)
    return found


def _measured(comparison: Comparison) -> dict[str, tuple[str, Origin, float]]:
    found: dict[str, tuple[str, Origin, float]] = {}
    for phase in comparison.bundle.phases:
        found[phase.key] = ("ms", "measured", phase.p50_ms)
        if phase.key in comparison.ratios:
            ratio = comparison.ratios[phase.key]
            found[f"{phase.key}, bundle / original"] = ("", "measured", ratio)
    found["peak memory"] = ("bytes", "measured", comparison.bundle.memory.most_bytes)
    return found


def _words(before: dict[str, str], after: dict[str, str]) -> tuple[WordChange, ...]:
    return tuple(
        WordChange(name, before.get(name, ""), after.get(name, ""))
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    )


def _notes(before: Report, after: Report) -> Iterator[str]:
    if before.digest != after.digest:
        names = [f"{model_name(each.source)} ({each.digest})" for each in (before, after)]
        yield (
            f"The bundles come of different models: {names[0]} and {names[1]}. Linears are "
            f"compared by their names; accuracy is that of each against its own original."
        )
    if before.profile != after.profile:
        yield f"They were made for different devices: {before.profile} and {after.profile}."
    texts = [each.validation.text for each in (before, after) if each.validation]
    if len(set(texts)) > 1:
        yield f"Accuracy was measured on different texts: {' and '.join(texts)}."
    if before.environment.get("cpu") != after.environment.get("cpu"):
        yield "Latency and memory were measured on different machines."
