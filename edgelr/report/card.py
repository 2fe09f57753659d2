"""The model card: a bundle's README.md, complete enough to run the bundle without edgelr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelr.report import tables
from edgelr.report.figures import NOT_MEASURED, model_name, percent, verdicts
from edgelr.report.markdown import draw, fence, rivals_sections
from edgelr.report.usage import USAGES, Usage

if TYPE_CHECKING:
    from pathlib import Path

    from edgelr.core.plan import Plan
    from edgelr.core.report import Report

TEST = """## Test it

`pytest FOLDER/tests` checks, with onnxruntime and without edgelr, that the files are whole, that
the bundle answers as it did when it was exported, and that it is still within the accuracy gate of
the original. `tests/conftest.py` says how to test another execution provider."""

DEVICES = """Times are those of the original and of the bundle: measured on the device, or PREDICTED
from its profile where the heading says so."""

PROOF = """`edgelr validate` checks the answers again, `edgelr measure` the latency and the memory.
The whole report is in `reports/`, the plan of every layer in `edgelr/plan.json`, and sizes and
checksums of all files in `edgelr/manifest.json`."""


def model_card(
    report: Report, modality: str, in_genai: bool = True, has_tests: bool = False
) -> str:
    """Write the README.md of the bundle that ``report`` is about.

    Args:
        report: report of the bundle on one device.
        modality: modality of the model, as the manifest names it.
        in_genai: whether onnxruntime-genai runs the folder of a decoder.
        has_tests: whether the bundle holds its tests.
    """
    usage = USAGES.get(modality)[report.task]
    sections = [
        _front_matter(report, usage),
        f"# {model_name(report.source)}, compressed for {report.profile_title}",
        _what_it_is(report),
        "\n".join(f"- {verdict.text}" for verdict in verdicts(report)),
        draw(tables.size_table(report)),
        _accuracy(report),
        "## Devices",
        draw(tables.device_table([report])),
        DEVICES,
        *rivals_sections(report),
        *_how_to_run(usage, in_genai),
        *([TEST] if has_tests else []),
        "## How it was made",
        fence("bash", report.command),
        PROOF,
    ]
    return "\n\n".join(sections) + "\n"


def license_of(folder: Path) -> str:
    """Read the license in the card of a model; empty where the card has none."""
    import yaml

    path = folder / "README.md"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if not text.startswith("---\n"):
        return ""
    try:
        told = yaml.safe_load(text[4:].partition("\n---")[0])
    except yaml.YAMLError:
        return ""
    found = told.get("license", "") if isinstance(told, dict) else ""
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found or "")


def _front_matter(report: Report, usage: Usage) -> str:
    import yaml

    facts = {
        "base_model": model_name(report.source),
        **({"license": report.license} if report.license else {}),
        "library_name": "onnxruntime",
        **({} if usage.tag is None else {"pipeline_tag": usage.tag}),
        "tags": ["onnx", "edgelr", "low-rank", *_precisions(report.plan), report.profile],
    }
    return f"---\n{yaml.safe_dump(facts, sort_keys=False)}---"


def _precisions(plan: Plan) -> list[str]:
    """List the precisions of the weights: float32, float16, int8, int4."""
    return sorted({site.candidate.precision for site in plan.sites})


def _what_it_is(report: Report) -> str:
    plan = report.plan
    precision = " and ".join(_precisions(plan)) or "float32"
    return (
        f"An ONNX model in {precision}, made from `{model_name(report.source)}` by edgelr with "
        f"the recipe `{report.recipe}`. Its linear layers are factorized into products of two "
        f"small matrices, each with a rank of its own, or kept dense where that is better: "
        f"{percent(plan.kept)} of their bytes are kept."
    )


def _accuracy(report: Report) -> str:
    validation = report.validation
    if validation is None:
        return f"Accuracy: {NOT_MEASURED}."
    if not validation.metrics:
        return f"Accuracy on {validation.text}: {NOT_MEASURED}."
    return f"{draw(tables.accuracy_table(validation))}\n\nMeasured on {validation.text}."


def _how_to_run(usage: Usage, in_genai: bool) -> list[str]:
    more = usage.in_genai if in_genai else usage.not_in_genai
    return [usage.text, fence("python", usage.program), *([more] if more else [])]
