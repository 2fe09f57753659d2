"""Collect what is known about a bundle; write its plan, report, card and lock, and seal it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import machine, platform, python_version
from typing import TYPE_CHECKING, Any, TypeAlias

from edgelr import __version__
from edgelr.core.bundle import MANIFEST, ExportBundle, Manifest, describe_files, write_manifest
from edgelr.core.measurement import Comparison
from edgelr.core.plan import Plan
from edgelr.core.report import LossCheck, Report
from edgelr.core.results import Validation
from edgelr.core.run import Run
from edgelr.core.settings import write_settings
from edgelr.device.identity import is_this_machine
from edgelr.device.latency import PhaseSize
from edgelr.graph.companions import GENAI
from edgelr.planning.files import write_plan
from edgelr.report.card import model_card
from edgelr.report.figures import KEPT_SHARES
from edgelr.report.html import to_html
from edgelr.report.markdown import to_markdown
from edgelr.report.schema import SCHEMA_VERSION, to_json
from edgelr.stages.source import Source, Written
from edgelr.stages.subject import Planned

if TYPE_CHECKING:
    from numpy.typing import NDArray


Made: TypeAlias = Planned[Any, Any]

PACKAGES = (
    "edgelr",
    "torch",
    "transformers",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-genai",
    "numpy",
)


def make_report(
    source: Source,
    made: Made,
    written: Written,
    validation: Validation,
    comparison: Comparison,
    dense: ExportBundle,
    run: Run,
) -> Report:
    """Collect everything that is known about the bundle.

    Args:
        source: predicts, and tells what the plan was made from.
        made: plan, and everything that it came from.
        written: bundle, and notes about it.
        validation: parity and accuracy.
        comparison: measured latency and memory.
        dense: original in the precision that ships.
        run: clock and command of the run.
    """
    subject, device, budget = made.subject, made.subject.device, made.budget
    bundle = written.bundle
    here = is_this_machine(device) and bundle.manifest.precision == comparison.bundle.precision
    runs = _measured_runs(comparison) if here else None
    phases = runs or subject.runs
    resident_bytes = budget.buffer_bytes + budget.fixed_weight_bytes + made.plan.resident_bytes
    prediction = source.prediction(subject, dense, bundle, phases, resident_bytes)
    headroom = budget.weight_bytes - made.plan.resident_bytes
    loss = _loss_check(made, validation)
    return Report(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=run.command,
        source=subject.settings.model,
        digest=subject.digest,
        task=subject.task,
        profile=device.id,
        profile_title=device.title,
        recipe=subject.recipe.name,
        fits=headroom >= 0,
        headroom_bytes=headroom,
        dense_file_bytes=dense.weight_bytes,
        bundle_file_bytes=bundle.weight_bytes,
        budget=budget,
        plan=made.plan,
        validation=validation,
        comparison=comparison,
        prediction=prediction,
        host_is_device=here,
        seconds=stage_seconds(run),
        peak_bytes=peak_bytes(),
        environment=environment(),
        notes=(
            *(*source.notes(made), *_notes(made), *written.notes, *_prediction_note(loss)),
            *comparison.notes,
        ),
        loss=loss,
        spectra=remaining_losses(made.plan, made.spectra.loss),
        license=subject.license,
    )


def _measured_runs(comparison: Comparison) -> list[PhaseSize]:
    phases = [each for each in comparison.bundle.phases if each.phase != "text"]
    return [
        PhaseSize(
            each.batch, each.tokens, each.context_tokens if each.phase == "decode" else each.tokens
        )
        for each in phases
    ]


def finish(source: Source, made: Made, bundle: ExportBundle, report: Report) -> None:
    """Write plan, report, model card and lock, and seal the bundle with its manifest."""
    settings, folder = made.subject.settings, bundle.folder
    inner, reports = folder / "edgelr", folder / "reports"
    reports.mkdir()
    write_plan(report.plan, inner / "plan.json")
    write_settings(settings, inner / "edgelr.yaml")
    (inner / "lock.json").write_text(json.dumps(_lock(source, made), indent=2) + "\n")
    (reports / f"{report.profile}.json").write_text(to_json(report), encoding="utf-8")
    (reports / f"{report.profile}.md").write_text(to_markdown(report), encoding="utf-8")
    (reports / f"{report.profile}.html").write_text(to_html(report), encoding="utf-8")
    in_genai = (folder / GENAI).exists()
    card = model_card(report, bundle.manifest.modality, in_genai, settings.with_tests)
    (folder / "README.md").write_text(card, encoding="utf-8")
    seal(folder, bundle.manifest, report.validation)


def seal(folder: Path, manifest: Manifest, validation: Validation | None) -> None:
    """List every file with its checksum, and say whether the gate passed."""
    paths = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).as_posix() != MANIFEST
    )
    passed = None if validation is None else validation.passed
    write_manifest(
        folder, replace(manifest, gate_passed=passed, files=describe_files(folder, paths))
    )


def stage_seconds(run: Run) -> dict[str, float]:
    """Read the clock of a run: seconds by stage."""
    return {stage: round(value, 2) for stage, value in run.clock.seconds.items()}


def environment() -> dict[str, str]:
    """Versions and machine that a figure depends on."""
    found = {"python": python_version(), "platform": platform(), "machine": machine()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    model_name = [
        line.partition(":")[2].strip()
        for line in _read(Path("/proc/cpuinfo")).splitlines()
        if line.startswith("model name")
    ]
    return found | ({"cpu": f"{len(model_name)} x {model_name[0]}"} if model_name else {})


def peak_bytes() -> int:
    """Largest resident memory of this process so far; 0 where /proc does not tell."""
    for line in _read(Path("/proc/self/status")).splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _lock(source: Source, made: Made) -> dict[str, object]:
    """Name what reproduces the bundle: versions, original, seed, and what was calibrated on."""
    return {
        "edgelr": __version__,
        "environment": environment(),
        **source.lock(made),
        "seed": made.subject.settings.seed,
        "settings": made.subject.settings.given(),
        "recipe": asdict(made.subject.recipe),
    }


def _notes(made: Made) -> tuple[str, ...]:
    if made.loss_factor is None:
        return ()
    text = (
        f"Bad end of the measured loss over the predicted loss, on held-out data: "
        f"{made.loss_factor:.2f} at this plan."
    )
    return (text,)


def _loss_check(made: Made, validation: Validation) -> LossCheck | None:
    """Set the measured loss beside the predicted one, where they have the same unit."""
    predicted = made.plan.predicted_loss
    if not made.subject.predicts_loss or not predicted:
        return None
    found = {metric.name: metric for metric in validation.metrics}
    if "perplexity" in found and found["perplexity"].baseline:
        measured = math.log(found["perplexity"].value / found["perplexity"].baseline)
        return LossCheck(predicted, measured, "nats per token")
    if "mean_cosine" in found:
        return LossCheck(predicted, 1 - found["mean_cosine"].value, "of cosine distance")
    if "score_distance" in found:
        return LossCheck(predicted, found["score_distance"].value, "of correlation")
    if "kl_divergence" in found:
        return LossCheck(predicted, found["kl_divergence"].value, "nats")
    return None


def _prediction_note(loss: LossCheck | None) -> tuple[str, ...]:
    """Say how far the predicted loss is from the measured one."""
    if loss is None:
        return ()
    text = (
        f"The plan predicted a loss of {loss.predicted:.4f} {loss.unit} on its calibration data; "
        f"measured on the evaluation data: {loss.measured:.4f}, "
        f"{loss.measured / loss.predicted:.2f} times as much."
    )
    return (text,)


def remaining_losses(
    plan: Plan, losses: Mapping[str, NDArray[Any]]
) -> dict[str, tuple[float, ...]]:
    """Sample what the loss of every linear falls to while components are added.

    Args:
        plan: names the linears and their groups.
        losses: predicted loss of every group at every rank, ``(k + 1,)``.

    Returns:
        By linear, its loss at each of ``KEPT_SHARES`` of its components, over that without any; no
        entry where a method has no factors of these ranks.
    """
    found = {}
    for site in plan.sites:
        loss = losses.get(site.group or site.name)
        if loss is None or not 0 < loss[0] < math.inf:
            continue
        ranks = [round(share * (len(loss) - 1)) for share in KEPT_SHARES]
        shares = [float(f"{loss[rank] / loss[0]:.4g}") for rank in ranks]
        if all(map(math.isfinite, shares)):
            found[site.name] = tuple(shares)
    return found
