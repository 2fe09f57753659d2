"""The tables of a report as rows of text; Markdown and the terminal only draw them."""

from __future__ import annotations

from collections.abc import Sequence

from edgelr.core.measurement import (
    CapCheck,
    Comparison,
    Measurement,
    OperatorTime,
    PhaseLatency,
    Prediction,
)
from edgelr.core.plan import Budget, SitePlan
from edgelr.core.report import Report
from edgelr.core.results import DENSE_LIMIT, DenseParity, Interval, Metric, Parity, Validation
from edgelr.device.budget import ledger
from edgelr.report.figures import NOT_MEASURED, Table, figure, mib, percent
from edgelr.report.plan_tables import kind_of


def budget_table(budget: Budget, weight_bytes: int) -> Table:
    """Show where the device's memory goes: the first row is the sum of the others."""
    rows = ledger(budget, weight_bytes)
    return Table(("memory", "MiB"), tuple((label, mib(size)) for label, size in rows))


def size_table(report: Report) -> Table:
    """Compare files and factorizable weights with the dense export."""
    plan = report.plan
    return Table(
        ("size", "dense MiB", "bundle MiB", "bundle / dense"),
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
    """Show the differences of ONNX Runtime from the compressed model, and their limits."""
    limit = figure(parity.max_abs_error_limit)
    rows = [("largest absolute error", figure(parity.max_abs_error), limit)]
    if parity.against == "torch" or parity.padded_max_abs_error:
        rows.append(("the same, in a padded batch", figure(parity.padded_max_abs_error), limit))
    if parity.greedy_prompts:
        found = f"{parity.greedy_identical} of {parity.greedy_prompts}"
        label = f"identical greedy texts ({parity.greedy_tokens:,} tokens)"
        rows.append((label, found, f"{parity.greedy_prompts} of {parity.greedy_prompts}"))
    if parity.twin_max_error is not None:
        found, allowed = figure(parity.twin_max_error), _limit(parity.twin_limit)
        rows.append(("what ships against its exact float32 twin, relative", found, allowed))
    return Table((f"ONNX Runtime against {parity.against}", "found", "limit"), tuple(rows))


def dense_parity_table(parity: DenseParity) -> Table:
    """Show the differences of the dense graph from the original, and their limit."""
    limit = figure(parity.limit)
    texts = f", of up to {parity.longest:,} tokens" if parity.longest else ""
    rows = [
        (f"largest absolute error ({parity.rows} rows{texts})", figure(parity.max_abs_error), limit)
    ]
    if parity.against == "torch" or parity.padded_max_abs_error:
        rows.append(("the same, in a padded batch", figure(parity.padded_max_abs_error), limit))
    if parity.vector_max_abs_error:
        found = figure(parity.vector_max_abs_error)
        rows.append(("embeddings, of length 1", found, figure(DENSE_LIMIT)))
    return Table((f"dense graph against {parity.against}", "found", "limit"), tuple(rows))


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
                *((_decided(comparison, name),) if comparison.intervals else ()),
                _rate(dense),
                _rate(bundle[name]) if name in bundle else NOT_MEASURED,
            )
        )
    sure = ("95 % interval",) if comparison.intervals else ()
    columns = ("phase", "dense ms", "bundle ms", "bundle / dense", *sure)
    return Table((*columns, "dense tok/s", "bundle tok/s"), tuple(rows))


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
    counted = ("memory, MiB", "anonymous", "file-backed", "peak")
    on_gpu = ("on the GPU",) if len(rows[0]) == 8 else ()
    return Table((*counted, *on_gpu, "predicted", "before loading", "load ms"), rows)


def cap_table(found: CapCheck) -> Table:
    """Show a limit of memory, and the predicted and measured peaks under it."""
    rows = (
        ("limit", mib(found.limit_bytes)),
        ("predicted", _size_or_dash(found.predicted_bytes)),
        ("measured peak", _size_or_dash(found.peak_bytes)),
    )
    return Table(("memory", "MiB"), rows)


def operator_table(found: list[OperatorTime]) -> Table:
    """Show the provider of every operator, and the time of all of its nodes."""
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
    """Show the device's predicted figures, over those that were ``measured`` there, if any."""
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


def ledger_table(report: Report) -> Table:
    """Show the bytes of the original and of the bundle, by form, and those outside of the plan."""
    kinds: dict[str, list[SitePlan]] = {}
    for site in report.plan.sites:
        kinds.setdefault(kind_of(site), []).append(site)
    plan = report.plan
    rows = [
        _ledger_row(
            f"linears as {kind}",
            str(len(sites)),
            sum(site.dense_bytes for site in sites),
            sum(site.candidate.bytes for site in sites),
        )
        for kind, sites in sorted(kinds.items())
    ]
    rest = (
        report.dense_file_bytes - plan.dense_bytes,
        report.bundle_file_bytes - plan.planned_bytes,
    )
    rows.append(_ledger_row("all else: embeddings, norms, the graph", "–", *rest))
    total = (report.dense_file_bytes, report.bundle_file_bytes)
    rows.append(_ledger_row("model files", str(len(plan.sites)), *total))
    return Table(("what", "linears", "original MiB", "bundle MiB", "saved MiB"), tuple(rows))


def device_table(reports: Sequence[Report]) -> Table:
    """Show, device by device, whether a bundle fits, its memory and its latency."""
    times = [_device_times(report) for report in reports]
    phases = list(dict.fromkeys(name for known in times for name in known))
    columns = ("device", "fits", "accuracy", "files MiB", "memory MiB, PREDICTED", *phases)
    rows = tuple(
        (
            report.profile_title,
            "yes" if report.fits else "NO",
            _gate_word(report.validation),
            mib(report.bundle_file_bytes),
            mib(report.budget.device_bytes - report.budget.reserved_bytes - report.headroom_bytes),
            *(known.get(phase, "–") for phase in phases),
        )
        for report, known in zip(reports, times, strict=True)
    )
    return Table(columns, rows)


def _interval(found: Interval | None) -> str:
    return "–" if found is None else f"{found.low:,.4g} to {found.high:,.4g}"


def _samples(metric: Metric) -> str:
    """Count the samples, and the parts that were resampled where these are not single samples."""
    found = metric.interval
    parts = "" if found is None or found.units == metric.samples else f" in {found.units:,} parts"
    return f"{metric.samples:,}{parts}"


def _limit(value: float | None) -> str:
    return "none" if value is None else figure(value)


def _size_row(label: str, dense_bytes: int, bundle_bytes: int) -> tuple[str, ...]:
    kept = percent(bundle_bytes / dense_bytes) if dense_bytes else "–"
    return label, mib(dense_bytes), mib(bundle_bytes), kept


def _device_times(report: Report) -> dict[str, str]:
    """Times of the original and of the bundle on the device itself, else those predicted for it."""
    if report.host_is_device and report.comparison is not None:
        bundle = {phase.key: phase.p50_ms for phase in report.comparison.bundle.phases}
        return {
            f"{dense.key}, ms": f"{figure(dense.p50_ms)} → {figure(bundle[dense.key])}"
            for dense in report.comparison.dense.phases
            if dense.key in bundle
        }
    return {
        f"{phase.key}, ms, PREDICTED": f"{figure(phase.dense_ms)} → {figure(phase.bundle_ms)}"
        for phase in (report.prediction.phases if report.prediction else ())
    }


def _gate_word(validation: Validation | None) -> str:
    if validation is None or validation.gate is None:
        return NOT_MEASURED
    return "inside its gate" if validation.passed else "OUTSIDE its gate"


def _ledger_row(label: str, count: str, dense_bytes: int, bundle_bytes: int) -> tuple[str, ...]:
    sizes = (dense_bytes, bundle_bytes, dense_bytes - bundle_bytes)
    return label, count, *map(mib, sizes)


def _times(phase: PhaseLatency, percentiles: bool) -> str:
    times = (phase.p50_ms, phase.p90_ms, phase.p99_ms) if percentiles else (phase.p50_ms,)
    digits = 1 if phase.p50_ms >= 10 else 3  # enough for the ratio of two of them
    return " / ".join(f"{time:,.{digits}f}" for time in times)


def _decided(comparison: Comparison, name: str) -> str:
    """Show where a ratio lies, and whether that decides who is faster."""
    found = comparison.intervals.get(name)
    if found is None:
        return "–"
    undecided = ", undecided" if comparison.faster(name) is None else ""
    return f"{found.low:.2f} to {found.high:.2f}{undecided}"


def _rate(phase: PhaseLatency) -> str:
    return f"{phase.tokens_per_second:,.1f}" if phase.tokens else "–"


def _memory_row(label: str, measurement: Measurement) -> tuple[str, ...]:
    memory = measurement.memory
    sizes = (
        memory.rss_anon_bytes,
        memory.rss_file_bytes,
        memory.peak_bytes,
        *((memory.gpu_bytes,) if measurement.provider.startswith("CUDA") else ()),
        memory.predicted_bytes,
        memory.baseline_bytes,
    )
    return label, *map(_size_or_dash, sizes), f"{measurement.load_ms:,.0f}"


def _size_or_dash(size: int | None) -> str:
    return "–" if size is None else mib(size)
