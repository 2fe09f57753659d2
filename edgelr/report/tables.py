"""The tables of a report as rows of text; Markdown and the terminal only draw them."""

from __future__ import annotations

import re
from collections import Counter

from edgelr.budget import ledger
from edgelr.report.figures import NOT_MEASURED, Table, figure, mib, percent
from edgelr.types import (
    WEIGHT_BITS,
    Budget,
    CapCheck,
    Comparison,
    Interval,
    Measurement,
    Metric,
    OperatorTime,
    Parity,
    PhaseLatency,
    Plan,
    Prediction,
    Report,
    SitePlan,
    Validation,
)


def budget_table(budget: Budget, weight_bytes: int) -> Table:
    """Show where the device's memory goes: the first row is the sum of the others."""
    rows = ledger(budget, weight_bytes)
    return Table(("memory", "MiB"), tuple((label, mib(size)) for label, size in rows))


def size_table(report: Report) -> Table:
    """Compare files and factorizable weights with the dense export."""
    plan = report.plan
    return Table(
        ("size", "dense MiB", "bundle MiB", "kept"),
        (
            _size_row("model files", report.dense_file_bytes, report.bundle_file_bytes),
            _size_row("factorizable weights", plan.dense_bytes, plan.planned_bytes),
        ),
    )


def accuracy_table(validation: Validation) -> Table:
    """Set the bundle's accuracy beside the original model's."""
    rows = tuple(
        (
            f"{metric.name} ({metric.unit})" if metric.unit else metric.name,
            "–" if metric.baseline is None else figure(metric.baseline),
            figure(metric.value),
            _interval(metric.interval),
            _samples(metric),
        )
        for metric in validation.metrics
    )
    return Table(("metric", "original", "bundle", "95 % interval", "samples"), rows)


def parity_table(parity: Parity) -> Table:
    """Show how far ONNX Runtime is from the compressed model, and how far it may be."""
    limit = figure(parity.max_abs_error_limit)
    rows = [("largest absolute error", figure(parity.max_abs_error), limit)]
    if parity.against == "torch":
        rows.append(("the same, in a padded batch", figure(parity.padded_max_abs_error), limit))
    if parity.greedy_prompts:
        found = f"{parity.greedy_identical} of {parity.greedy_prompts}"
        label = f"identical greedy texts ({parity.greedy_tokens:,} tokens)"
        rows.append((label, found, f"{parity.greedy_prompts} of {parity.greedy_prompts}"))
    if parity.twin_max_error is not None:
        found, allowed = figure(parity.twin_max_error), _limit(parity.twin_limit)
        rows.append(("what ships against its exact float32 twin, relative", found, allowed))
    return Table((f"ONNX Runtime against {parity.against}", "found", "limit"), tuple(rows))


def latency_table(comparison: Comparison, *, percentiles: bool = True) -> Table:
    """Compare the latency of each phase, in milliseconds: p50 / p90 / p99, or p50 alone."""
    bundle = {phase.key: phase for phase in comparison.bundle.phases}
    rows = []
    for dense in comparison.dense.phases:
        name = dense.key
        ratio = comparison.ratios.get(name)
        rows.append(
            (
                name,
                _times(dense, percentiles),
                _times(bundle[name], percentiles) if name in bundle else NOT_MEASURED,
                NOT_MEASURED if ratio is None else f"{ratio:.3f}",
                _rate(dense),
                _rate(bundle[name]) if name in bundle else NOT_MEASURED,
            )
        )
    columns = ("phase", "dense ms", "bundle ms", "bundle / dense", "dense tok/s", "bundle tok/s")
    return Table(columns, tuple(rows))


def phase_table(measurement: Measurement) -> Table:
    """Show the latency of one folder, phase by phase."""
    rows = tuple((phase.key, _times(phase, True), _rate(phase)) for phase in measurement.phases)
    return Table(("phase", "p50 / p90 / p99 ms", "tok/s"), rows)


def memory_table(found: Comparison | Measurement) -> Table:
    """Show the memory of fresh processes, in MiB."""
    if isinstance(found, Measurement):
        rows: tuple[tuple[str, ...], ...] = (_memory_row(found.name, found),)
    else:
        rows = (_memory_row("dense", found.dense), _memory_row("bundle", found.bundle))
    columns = (
        "memory, MiB", "anonymous", "file-backed", "peak", "predicted", "before loading", "load ms",
    )  # fmt: skip
    return Table(columns, rows)


def cap_table(found: CapCheck) -> Table:
    """Show a limit of memory, and what was predicted and measured under it."""
    rows = (
        ("limit", mib(found.limit_bytes)),
        ("predicted", _size_or_dash(found.predicted_bytes)),
        ("measured peak", _size_or_dash(found.peak_bytes)),
    )
    return Table(("memory", "MiB"), rows)


def operator_table(found: list[OperatorTime]) -> Table:
    """Show where every operator ran, and how long all of its nodes took."""
    total = sum(each.milliseconds for each in found) or 1.0
    rows = tuple(
        (
            each.operator,
            each.provider.removesuffix("ExecutionProvider"),
            str(each.nodes),
            figure(each.milliseconds),
            percent(each.milliseconds / total),
        )
        for each in found
    )
    return Table(("operator", "provider", "nodes", "ms", "share"), rows)


def prediction_table(prediction: Prediction, measured: Comparison | None = None) -> Table:
    """Show the device's predicted figures, over those that were ``measured`` on it if they were."""
    sides = () if measured is None else (measured.dense, measured.bundle)
    known = [{phase.key: phase.p50_ms for phase in side.phases} for side in sides]
    rows = []
    for phase in prediction.phases:
        times = (phase.dense_ms, phase.bundle_ms)
        ratios = (
            f"{time / found[phase.key]:.2f}" if phase.key in found else NOT_MEASURED
            for time, found in zip(times, known, strict=False)
        )
        rows.append((f"{phase.key}, ms", *map(figure, times), *ratios))
    memory = ("resident memory, MiB", "–", mib(prediction.resident_bytes))
    rows.append((*memory, *("–" for _ in sides)))
    columns = ("PREDICTED", "dense", "bundle", "dense / measured", "bundle / measured")
    return Table(columns[: 3 + len(sides)], tuple(rows))


def role_table(plan: Plan) -> Table:
    """Summarize the plan by role: what a site is called inside its block."""
    roles: dict[str, list[SitePlan]] = {}
    for site in plan.sites:
        roles.setdefault(_role(site), []).append(site)
    kinds = sorted({_kind(site) for site in plan.sites})
    rows = [_role_row(role, sites, kinds) for role, sites in roles.items()]
    rows.append(_role_row("all", list(plan.sites), kinds))
    return Table(("role", "sites", *kinds, "kept"), tuple(rows))


def dense_reasons(plan: Plan) -> list[tuple[str, int]]:
    """Count why sites stay dense, the most frequent reason first."""
    reasons = Counter(site.reason for site in plan.sites if site.candidate.form == "dense")
    return reasons.most_common(5)


def _interval(found: Interval | None) -> str:
    return "–" if found is None else f"{found.low:,.4g} to {found.high:,.4g}"


def _samples(metric: Metric) -> str:
    """Count the samples, and what was resampled where that is not each of them."""
    found = metric.interval
    parts = "" if found is None or found.units == metric.samples else f" in {found.units:,} parts"
    return f"{metric.samples:,}{parts}"


def _limit(value: float | None) -> str:
    return "none" if value is None else figure(value)


def _size_row(label: str, dense_bytes: int, bundle_bytes: int) -> tuple[str, ...]:
    kept = percent(bundle_bytes / dense_bytes) if dense_bytes else "–"
    return label, mib(dense_bytes), mib(bundle_bytes), kept


def _times(phase: PhaseLatency, percentiles: bool) -> str:
    times = (phase.p50_ms, phase.p90_ms, phase.p99_ms) if percentiles else (phase.p50_ms,)
    return " / ".join(f"{time:,.1f}" for time in times)


def _rate(phase: PhaseLatency) -> str:
    return f"{phase.tokens_per_second:,.1f}" if phase.tokens else "–"


def _memory_row(label: str, measurement: Measurement) -> tuple[str, ...]:
    memory = measurement.memory
    sizes = (
        memory.rss_anon_bytes,
        memory.rss_file_bytes,
        memory.peak_bytes,
        memory.predicted_bytes,
        memory.baseline_bytes,
    )
    return label, *map(_size_or_dash, sizes), f"{measurement.load_ms:,.0f}"


def _size_or_dash(size: int | None) -> str:
    return "–" if size is None else mib(size)


def _role(site: SitePlan) -> str:
    """What a site is called inside its block, or its operator where exporters only count."""
    return re.sub(r"[._@]\d+$", "", re.split(r"\.\d+\.", site.name)[-1])


def _kind(site: SitePlan) -> str:
    """Form, and the precision where it is one of whole numbers."""
    form, precision = site.candidate.form, site.candidate.precision
    return f"{form} {precision}" if precision in WEIGHT_BITS else form


def _role_row(role: str, sites: list[SitePlan], kinds: list[str]) -> tuple[str, ...]:
    found = Counter(map(_kind, sites))
    dense_bytes = sum(site.dense_bytes for site in sites)
    planned_bytes = sum(site.candidate.bytes for site in sites)
    counts = (len(sites), *(found[kind] for kind in kinds))
    kept = percent(planned_bytes / dense_bytes) if dense_bytes else "–"
    return role, *(str(count) for count in counts), kept
