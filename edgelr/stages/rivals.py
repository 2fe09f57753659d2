"""Rivals: the original at full rank in int8 and int4, judged and timed as a bundle is.

Rounding every weight is what people do instead of factorizing. Rivals and their accuracy are kept
in the cache, for every bundle of one model on one text.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from edgelr.core.bundle import ExportBundle
from edgelr.core.plan import Budget
from edgelr.core.problems import version_of
from edgelr.core.report import Report, Rival, Rivals
from edgelr.core.results import Metric
from edgelr.core.run import Run
from edgelr.core.vocabulary import PRECISION_BYTES, Precision, WeightPrecision
from edgelr.device.gate import make_gate
from edgelr.report.advice import advised
from edgelr.report.schema import to_json
from edgelr.stages.bundle import EVALUATION, accuracy, measure_both, runnable
from edgelr.stages.report import peak_bytes, stage_seconds
from edgelr.stages.source import Source, Written
from edgelr.stages.subject import DenseExport, Planned, Subject

QUANTIZED: tuple[WeightPrecision, ...] = ("int8", "int4")
_METRICS = "metrics.json"


def original_in(
    source: Source, subject: Subject, dense: DenseExport, weights: WeightPrecision, run: Run
) -> Written | None:
    """Export the original in one precision, as the device and as this CPU run it.

    Returns:
        None where the source makes it in no such precision.
    """

    def made(values: Precision) -> ExportBundle | None:
        stored = values if weights in PRECISION_BYTES else weights
        return source.baseline(subject, dense, stored, values, run)

    shipped = made(subject.precision)
    if shipped is None:
        return None
    return Written(shipped, None if subject.precision == "float32" else made("float32"))


def device_bytes(budget: Budget, shipped: ExportBundle, provider: str) -> tuple[int, bool]:
    """Predict the memory of the original in some precision, and whether the device has it.

    Args:
        budget: memory of the device, and what else takes some of it.
        shipped: original as the device runs it; its weights take the place of all others.
        provider: provider of the device.
    """
    held = shipped.resident_bytes(provider)
    assert held is not None, "dense exports say how their weights are held"
    needed = budget.buffer_bytes + held
    return needed, needed <= budget.device_bytes - budget.reserved_bytes


def judge(subject: Subject, dense: DenseExport, written: Written, run: Run) -> tuple[Metric, ...]:
    """Measure the accuracy of the original in some precision, once for every text."""

    def write(folder: Path) -> None:
        data = subject.write_judged(folder)
        metrics, _ = accuracy(subject, dense, written, data, run)
        (folder / _METRICS).write_text(to_json(metrics), encoding="utf-8")

    used = subject.settings.provider or subject.device.provider
    parts = (
        *(str((written.bundle if used == "cuda" else runnable(written)).folder), used),
        *(subject.judged_key, asdict(EVALUATION), version_of("onnxruntime", "onnxruntime-gpu")),
    )
    found = run.stage("rival-accuracy", parts, write) / _METRICS
    return TypeAdapter(tuple[Metric, ...]).validate_json(found.read_bytes())


def with_rivals(
    report: Report, source: Source, made: Planned[Any, Any], dense: ExportBundle, run: Run
) -> Report:
    """Add the rivals to a report, and say which to ship.

    Args:
        report: report of a bundle.
        source: maker of the rivals.
        made: plan of the bundle, and everything that it came from.
        dense: original in the precision that ships.
        run: cache, listener and clock.
    """
    measured = report.host_is_device or report.prediction is None
    found: list[Rival] = []
    with run.time("rivals"):
        for done, weights in enumerate(QUANTIZED):
            run.progress("rivals", done, len(QUANTIZED))
            written = original_in(source, made.subject, made.dense, weights, run)
            if written is not None:
                found.append(_rival(weights, written, (source, made, dense), measured, run))
        run.progress("rivals", len(QUANTIZED), len(QUANTIZED))
    _, fits = device_bytes(made.budget, dense, made.subject.device.provider)
    told = Rivals(tuple(found), fits) if found else Rivals((), fits, told=_why_none(made.subject))
    whole = replace(report, rivals=told, seconds=stage_seconds(run), peak_bytes=peak_bytes())
    return replace(whole, rivals=advised(whole))


def _rival(
    weights: WeightPrecision,
    written: Written,
    beside: tuple[Source, Planned[Any, Any], ExportBundle],
    measured: bool,
    run: Run,
) -> Rival:
    source, made, dense = beside
    subject, shipped = made.subject, written.bundle
    needed_bytes, fits = device_bytes(made.budget, shipped, subject.device.provider)
    metrics = judge(subject, made.dense, written, run)
    found = Rival(
        precision=weights,
        file_bytes=shipped.weight_bytes,
        fits=fits,
        metrics=metrics,
        gate=make_gate(subject.task, metrics, subject.max_drop),
    )
    if measured:
        return replace(found, comparison=measure_both(source, made, written, run)[0])
    predicted = source.prediction(subject, dense, shipped, subject.runs, needed_bytes)
    return replace(found, prediction=predicted)


def _why_none(subject: Subject) -> str:
    convolutions = sum(bool(site.kernel) for site in subject.sites)
    if convolutions:
        return (
            f"There is no rival: {convolutions} of the {len(subject.sites)} linears are "
            f"convolutions, for which ONNX Runtime has no product in int8 or int4 by blocks."
        )
    return "There is no rival: an ONNX graph is made in no other precision than its own."
