"""A report as one HTML file, to be sent, printed, and read on a phone."""

from __future__ import annotations

from edgelr.core.report import Report
from edgelr.report import plan_tables, tables
from edgelr.report.charts import Chart
from edgelr.report.drawings import drawings
from edgelr.report.figures import (
    NOT_MEASURED,
    context_sentence,
    measured_heading,
    measured_on_device,
    mib,
    model_name,
    speed_verdict,
    verdicts,
)
from edgelr.report.markdown import NOT_THE_DEVICE, PREDICTED, measured_sentence, plan_sentence
from edgelr.report.markup import Markup, element, joined
from edgelr.report.page import (
    MEASURED,
    badge,
    bullets,
    code,
    drawn,
    drawn_table,
    facts,
    page,
    paragraph,
    verdict_list,
)
from edgelr.report.page import PREDICTED as PREDICTED_BADGE
from edgelr.report.rivals import are_timed, rivals_heading, rivals_table

POINTS = (
    "Round: the bundle. Square: the original, as it is or rounded. Filled: fits and is inside the "
    "gate. The dashed line joins what no other beats in size, accuracy and time at once."
)
SPREAD = "Bars are medians, lines reach to the 90th percentile. Every phase has its own scale."
RANKS = "Numbers are % of the components; the details of a field are shown when it is pointed at."
SPECTRA = (
    "What is left of the loss, predicted, when so many % of a linear's components stay: layers "
    "from top to bottom, components that stay from left to right. Where colour goes on to the "
    "right, rank is needed."
)


def to_html(report: Report) -> str:
    """Write a whole report, from the verdict to the command that reproduces it."""
    charts = drawings(report)
    title = f"{model_name(report.source)} on {report.profile_title}"
    told = f"Compressed by edgelr with the recipe {report.recipe}, {report.created}."
    sections = [
        ("verdict", "Verdict", verdict_list([*verdicts(report), speed_verdict(report)])),
        ("size", "Size", _size(report, charts)),
        ("accuracy", "Accuracy", _accuracy(report, charts)),
        ("latency", "Latency and memory", _latency(report, charts)),
        *([("rivals", "What to ship", _rivals(report, charts))] if report.rivals else []),
        ("device", "Memory of the device", _device(report, charts)),
        ("layers", "Layers", _layers(report, charts)),
        ("made", "How it was made", _made(report)),
    ]
    return page(title, told, sections)


def _size(report: Report, charts: dict[str, Chart]) -> Markup:
    ledger = drawn_table(
        tables.ledger_table(report),
        joined("What became of the file's bytes ", badge(MEASURED)),
        total=True,
    )
    return joined(
        _grid(drawn(charts["size"], "size"), drawn(charts["roles"], "roles")),
        ledger,
        drawn_table(plan_tables.role_table(report.plan), "Linears by role", total=True),
    )


def _accuracy(report: Report, charts: dict[str, Chart]) -> Markup:
    validation = report.validation
    if validation is None:
        return paragraph(f"Accuracy and parity: {NOT_MEASURED}.")
    told = f"{validation.precision} with {validation.provider}, on {validation.text}."
    parts = [paragraph(badge(MEASURED), " ", told)]
    if validation.metrics:
        parts.append(drawn_table(tables.accuracy_table(validation), "Bundle and original"))
    if validation.parity is not None:
        caption = "Parity: the graph against the compressed model"
        parts.append(drawn_table(tables.parity_table(validation.parity), caption))
    if validation.dense_parity is not None:
        caption = "Parity: the graph before it was compressed, against the original"
        parts.append(drawn_table(tables.dense_parity_table(validation.dense_parity), caption))
    if "loss" in charts:
        parts.append(_grid(drawn(charts["loss"], "loss")))
    return joined(*parts, bullets(list(validation.notes)))


def _latency(report: Report, charts: dict[str, Chart]) -> Markup:
    comparison, prediction = report.comparison, report.prediction
    parts: list[Markup] = []
    if "latency" in charts:
        parts.append(
            _grid(drawn(charts["latency"], "latency", SPREAD), drawn(charts["memory"], "memory"))
        )
    if comparison is None:
        parts.append(paragraph(f"Latency and memory: {NOT_MEASURED}."))
    else:
        parts.append(
            paragraph(
                element("strong", measured_heading(report)), ". ", measured_sentence(comparison)
            )
        )
        if not report.host_is_device:
            parts.append(paragraph(NOT_THE_DEVICE))
        latency = joined("Latency, p50 / p90 / p99 ", badge(MEASURED))
        parts.append(drawn_table(tables.latency_table(comparison), latency))
        memory = joined("Memory of fresh processes ", badge(MEASURED))
        parts.append(drawn_table(tables.memory_table(comparison), memory))
    if prediction is None:
        parts.append(paragraph("There is no prediction for the device."))
    else:
        found = tables.prediction_table(prediction, measured_on_device(report))
        caption = joined(f"For {report.profile_title} ", badge(PREDICTED_BADGE))
        parts += [drawn_table(found, caption), paragraph(PREDICTED)]
    return joined(*parts)


def _rivals(report: Report, charts: dict[str, Chart]) -> Markup:
    assert report.rivals is not None
    told = paragraph(element("strong", report.rivals.told))
    if "rivals" not in charts:
        return told
    kind = badge(MEASURED if are_timed(report) else PREDICTED_BADGE)
    return joined(
        told,
        _grid(drawn(charts["rivals"], "rivals", badge(MEASURED))),
        paragraph(POINTS),
        drawn_table(rivals_table(report), joined(f"{rivals_heading(report)} ", kind)),
    )


def _device(report: Report, charts: dict[str, Chart]) -> Markup:
    resident = report.plan.resident_bytes
    table = tables.budget_table(report.budget, resident)
    caption = joined(f"Budget of {report.profile_title} ", badge(PREDICTED_BADGE))
    return joined(
        _grid(drawn(charts["budget"], "budget"), drawn_table(table, caption, sortable=False)),
        paragraph(context_sentence(report.budget, resident)),
    )


def _layers(report: Report, charts: dict[str, Chart]) -> Markup:
    maps = [
        drawn(charts[name], name, RANKS if name == "ranks" else "")
        for name in ("ranks", "bytes")
        if name in charts
    ]
    found = drawn_table(plan_tables.site_table(report.plan), "Every linear", tall=True)
    return joined(
        paragraph(plan_sentence(report.plan, "")),
        bullets(plan_tables.dense_sentences(report.plan)),
        _grid(*maps, *_spectra(charts)),
        found,
    )


def _spectra(charts: dict[str, Chart]) -> list[Markup]:
    drawings = [drawn(each, name) for name, each in charts.items() if name.startswith("spectrum-")]
    if not drawings:
        return []
    heading = element("h3", "Spectra ", badge(PREDICTED_BADGE))
    return [
        element("div", heading, paragraph(SPECTRA), element("div", drawings, class_="small-grid"))
    ]


def _made(report: Report) -> Markup:
    stages = {stage: f"{spent:,.1f} s" for stage, spent in report.seconds.items()}
    run = {
        "created": report.created,
        "weights": report.digest,
        "peak memory of the run": f"{mib(report.peak_bytes)} MiB",
    }
    return joined(
        bullets(list(report.notes)),
        element("h3", "Again"),
        code(report.command),
        element("h3", "Environment"),
        facts(run | report.environment),
        element("h3", "Time of each stage"),
        facts(stages),
    )


def _grid(*parts: Markup) -> Markup:
    return element("div", parts, class_="grid")
