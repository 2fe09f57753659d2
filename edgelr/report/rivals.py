"""The original, its int8 and int4 and the bundle beside each other: size, accuracy and time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgelr.core.intervals import PROCESSES_DIFFER
from edgelr.core.measurement import Comparison, Prediction
from edgelr.core.report import Report
from edgelr.core.results import Gate, Interval, Metric
from edgelr.core.tasks import TASKS
from edgelr.report.charts import Scatter
from edgelr.report.figures import Table, figure, measured_heading, mib
from edgelr.report.pareto import Entry, Sweep, judged
from edgelr.report.pareto_charts import device_charts

BUNDLE, DENSE = "bundle", "dense"


@dataclass(frozen=True, slots=True)
class Time:
    """Time of one phase over another's: between ``low`` and ``high`` with 95 % confidence.

    ``disturbed`` tells that the machine was busy or hot: time and interval are less sure.
    """

    ratio: float
    low: float
    high: float
    disturbed: bool = False


@dataclass(frozen=True, slots=True)
class Contender:
    """One file that can be shipped.

    Attributes:
        entry: size and accuracy.
        times: time of every phase over the original's.
        interval: interval of the accuracy; None without one.
        problem: reason why it must not be shipped; empty where it can be.
    """

    entry: Entry
    times: dict[str, Time]
    interval: Interval | None
    problem: str

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def file_bytes(self) -> int:
        return self.entry.file_bytes


def contenders(report: Report) -> list[Contender]:
    """List the original, its int8 and int4, and the bundle.

    Nothing where there is no rival, or the bundle's accuracy is not known.
    """
    rivals, validation = report.rivals, report.validation
    if rivals is None or not rivals.quantized or validation is None:
        return []
    if TASKS.get(report.task).metric not in [metric.name for metric in validation.metrics]:
        return []
    times = _times(report.comparison if are_timed(report) else None, report.prediction)
    parity = validation.parity is None or validation.parity.passed
    problem = _problem(report.fits, validation.gate) or ("" if parity else "fails its parity")
    ours = Entry(report.profile, BUNDLE, "", report.bundle_file_bytes, 0, report.fits, passed=True)
    bundle = _contender(ours, report, validation.metrics, times, problem)
    original = replace(
        bundle.entry,
        name=DENSE,
        file_bytes=report.dense_file_bytes,
        fits=rivals.original_fits,
        value=bundle.entry.baseline,
        worst=None,
        passed=True,
    )
    same = dict.fromkeys(times, Time(1.0, 1.0, 1.0))
    found = [Contender(original, same, None, _problem(rivals.original_fits, None))]
    for each in rivals.quantized:
        entry = Entry(
            report.profile, f"{DENSE} {each.precision}", "", each.file_bytes, 0, each.fits
        )
        known = _times(each.comparison, each.prediction)
        problem = _problem(each.fits, each.gate)
        found.append(_contender(entry, report, each.metrics, known, problem))
    return [*found, bundle]


def are_timed(report: Report) -> bool:
    """Whether the times of the rivals were measured, and are not predicted."""
    rivals = report.rivals
    return rivals is not None and any(each.comparison for each in rivals.quantized)


def origin_of_times(report: Report) -> str:
    """Say where the times of rivals and bundle come from."""
    if not are_timed(report):
        return f"PREDICTED for {report.profile_title}"
    heading = measured_heading(report)
    return heading[0].lower() + heading[1:]


def rivals_table(report: Report, *, intervals: bool = True) -> Table:
    """Set the original, its int8 and int4, and the bundle in rows; times are over the original's.

    Args:
        report: report with rivals.
        intervals: whether the interval of the accuracy is shown, too.
    """
    found = contenders(report)
    phases = list(dict.fromkeys(phase for each in found for phase in each.times))
    ship = None if report.rivals is None else report.rivals.ship
    rows = []
    for each in found:
        sure, times = each.interval, (each.times.get(phase) for phase in phases)
        between = "–" if sure is None else f"{sure.low:,.4g} to {sure.high:,.4g}"
        rows.append(
            (
                each.name,
                mib(each.file_bytes),
                figure(each.entry.value),
                *((between,) if intervals else ()),
                *("–" if time is None else _cell(time, are_timed(report)) for time in times),
                "ship" if each.name == ship else each.problem.partition(" (")[0] or "–",
            )
        )
    shown = ("95 % interval",) if intervals else ()
    columns = ("rivals", "file MiB", TASKS.get(report.task).metric, *shown, *phases, "verdict")
    return Table(columns, tuple(rows))


def rivals_heading(report: Report) -> str:
    """Say what the times in the table are, and where they come from."""
    return f"Rivals; times are over the dense one's, {origin_of_times(report)}"


def rivals_chart(report: Report) -> Scatter:
    """Draw the loss of accuracy over the size of the file."""
    found = Sweep(
        schema_version=report.schema_version,
        created=report.created,
        command=report.command,
        source=report.source,
        digest=report.digest,
        metric=TASKS.get(report.task).metric,
        text="" if report.validation is None else report.validation.text,
        calibration=(),
        environment=report.environment,
        entries=tuple(each.entry for each in contenders(report)),
    )
    return device_charts(found, report.profile)["loss"]


def _contender(
    entry: Entry,
    report: Report,
    metrics: tuple[Metric, ...],
    times: dict[str, Time],
    problem: str,
) -> Contender:
    name = TASKS.get(report.task).metric
    (interval,) = (each.interval for each in metrics if each.name == name)
    found = judged(replace(entry, passed=not problem, latency=_ratios(times)), metrics, report.task)
    return Contender(found, times, interval, problem)


def _ratios(times: dict[str, Time]) -> tuple[tuple[str, float], ...]:
    return tuple((phase, time.ratio) for phase, time in times.items())


def _times(comparison: Comparison | None, prediction: Prediction | None) -> dict[str, Time]:
    """Divide the time of every phase by the original's: as it was measured, or is predicted."""
    if comparison is not None:
        alone = {key: Interval(ratio, ratio, 1) for key, ratio in comparison.ratios.items()}
        sure, disturbed = alone | comparison.intervals, bool(comparison.notes)
        return {
            key: Time(ratio, sure[key].low, sure[key].high, disturbed)
            for key, ratio in comparison.ratios.items()
        }
    wider = 1 + PROCESSES_DIFFER  # no measurement would tell them further apart
    ratios = {
        phase.key: phase.bundle_ms / phase.dense_ms
        for phase in (() if prediction is None else prediction.phases)
    }
    return {key: Time(ratio, ratio / wider, ratio * wider) for key, ratio in ratios.items()}


def _problem(fits: bool, gate: Gate | None) -> str:
    if not fits:
        return "does not fit the device"
    if gate is None or gate.passed:
        return ""
    bound = "at least" if gate.higher_is_better else "at most"
    told = f"{gate.metric} {figure(gate.value)}, allowed is {bound} {figure(gate.limit)}"
    if gate.undecided:
        return f"is not shown to be inside the gate ({told}; the sample is too small)"
    return f"is outside the gate ({told})"


def _cell(time: Time, measured: bool) -> str:
    sure = f" ({time.low:.2f} to {time.high:.2f})" if measured and time.low < time.high else ""
    return f"{time.ratio:.3f}{sure}"
