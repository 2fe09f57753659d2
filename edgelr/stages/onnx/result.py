"""Collect what is known about the bundle of a graph; write its plan, report, card and lock."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone

from edgelr import __version__
from edgelr.core.bundle import ExportBundle
from edgelr.core.measurement import Comparison
from edgelr.core.report import LossCheck, Report
from edgelr.core.results import Validation
from edgelr.core.run import Run
from edgelr.device.identity import is_this_machine
from edgelr.report.schema import SCHEMA_VERSION
from edgelr.stages import report as reporting
from edgelr.stages.onnx.planning import Planned
from edgelr.stages.onnx.subject import RANDOM_NOTE


def make_report(
    made: Planned,
    bundle: ExportBundle,
    validation: Validation,
    comparison: Comparison,
    run: Run,
) -> Report:
    """Collect everything that is known about the bundle. Nothing is predicted of its latency."""
    subject, device = made.subject, made.subject.device
    headroom = made.budget.weight_bytes - made.plan.resident_bytes
    found = {metric.name: metric.value for metric in validation.metrics}
    loss = None
    if made.plan.predicted_loss:
        distance = 1 - found["mean_cosine"]
        loss = LossCheck(made.plan.predicted_loss, distance, "of cosine distance")
    return Report(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=run.command,
        source=subject.settings.model,
        digest=subject.digest,
        task="tensors",
        profile=device.id,
        profile_title=device.title,
        recipe=subject.recipe.name,
        fits=headroom >= 0,
        headroom_bytes=headroom,
        dense_file_bytes=subject.dense.weight_bytes,
        bundle_file_bytes=bundle.weight_bytes,
        budget=made.budget,
        plan=made.plan,
        validation=validation,
        comparison=comparison,
        prediction=None,
        host_is_device=is_this_machine(device),
        seconds={stage: round(value, 2) for stage, value in run.clock.seconds.items()},
        peak_bytes=reporting.peak_bytes(),
        environment=reporting.environment(),
        notes=_notes(made, loss),
        loss=loss,
        spectra=reporting.remaining_losses(made.plan, made.table.loss),
    )


def finish(made: Planned, bundle: ExportBundle, report: Report) -> None:
    """Write plan, report, model card and lock, and seal the bundle with its manifest."""
    reporting.write_results(bundle, made.subject.settings, _lock(made), report)


def _lock(made: Planned) -> dict[str, object]:
    """What reproduces the bundle: versions, seed, and the hash of the calibration."""
    subject = made.subject
    return {
        "edgelr": __version__,
        "environment": reporting.environment(),
        "model": {"digest": subject.digest},
        "seed": subject.settings.seed,
        "calibration": [{"inputs": subject.calibrated_on, "sha256": subject.key}],
        "settings": subject.settings.given(),
        "recipe": asdict(subject.recipe),
    }


def _notes(made: Planned, loss: LossCheck | None) -> tuple[str, ...]:
    subject = made.subject
    notes = [f"Calibrated on: {subject.calibrated_on}."]
    if subject.drawn:
        notes.append(RANDOM_NOTE)
    if subject.linears.refused:
        left = ", ".join(f"{name} ({why})" for name, why in subject.linears.refused.items())
        notes.append(f"Left as they are: {left}.")
    if loss is not None:
        notes.append(
            f"The plan predicted a mean cosine distance of {loss.predicted:.4f} on its "
            f"calibration inputs; measured on the held-out ones: {loss.measured:.4f}."
        )
    return tuple(notes)
