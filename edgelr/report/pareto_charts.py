"""The scatters of a sweep, or of bundles beside each other: one set for every device."""

from __future__ import annotations

import math
from collections.abc import Callable

from edgelr.core.vocabulary import MIB
from edgelr.report.charts import Chart, Point, Scatter
from edgelr.report.figures import figure
from edgelr.report.pareto import Entry, Sweep


def drawings(found: Sweep) -> dict[str, Chart]:
    """Make the charts of every device, by a name that is valid for a file."""
    return {
        f"{profile}-{name}": chart
        for profile in found.profiles
        for name, chart in device_charts(found, profile).items()
    }


def device_charts(found: Sweep, profile: str) -> dict[str, Scatter]:
    """Set accuracy, memory and every phase against the size of the file."""
    phases = dict.fromkeys(name for entry in found.at(profile) for name, _ in entry.latency)

    def ratio(phase: str) -> Callable[[Entry], float]:
        return lambda entry: dict(entry.latency).get(phase, math.nan)

    sides: dict[str, tuple[str, Callable[[Entry], float]]] = {
        "loss": (f"loss of {found.metric}, %", lambda entry: 100 * entry.loss),
        "memory": ("memory on the device, MiB, predicted", lambda entry: entry.memory_bytes / MIB),
    }
    for phase in phases:
        name = "time-" + "".join(each if each.isalnum() else "-" for each in phase)
        sides[name] = (f"time of {phase}, original = 1", ratio(phase))
    return {name: _scatter(found, profile, *side) for name, side in sides.items()}


def _scatter(found: Sweep, profile: str, label: str, value: Callable[[Entry], float]) -> Scatter:
    front = found.front(profile)
    points = tuple(
        Point(
            number,
            f"{entry.name}: {figure(entry.file_bytes / MIB)} MiB, {figure(value(entry))}",
            entry.file_bytes / MIB,
            value(entry),
            rival=entry.name.startswith("dense"),
            usable=entry.fits and entry.passed,
            front=entry in front,
        )
        for number, entry in enumerate(found.at(profile), 1)
        if math.isfinite(value(entry))
    )
    told = "; ".join(f"{point.number}. {point.label}" for point in points)
    title = f"{label[0].upper()}{label[1:]}, against size"
    return Scatter(title, f"{title}. {told}.", "file, MiB", label, points)
