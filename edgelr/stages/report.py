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
from typing import TYPE_CHECKING, Any

from edgelr import __version__
from edgelr.compress.methods import METHODS
from edgelr.core.bundle import MANIFEST, ExportBundle, Manifest, describe_files, write_manifest
from edgelr.core.dimensions import ModelShape
from edgelr.core.inputs import ImageInput, SoundInput
from edgelr.core.measurement import Comparison, Prediction
from edgelr.core.plan import Plan
from edgelr.core.report import LossCheck, Report
from edgelr.core.results import Validation
from edgelr.core.run import Run
from edgelr.core.settings import Settings, write_settings
from edgelr.device.identity import is_this_machine
from edgelr.device.latency import PhaseSize, device_runs, predict
from edgelr.graph.companions import GENAI
from edgelr.graph.workload import read_workload
from edgelr.plan.files import write_plan
from edgelr.report.card import license_of, model_card
from edgelr.report.figures import KEPT_SHARES
from edgelr.report.html import to_html
from edgelr.report.markdown import to_markdown
from edgelr.report.schema import SCHEMA_VERSION, to_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelr.stages.factorize import Factored
    from edgelr.stages.subject import Planned, Subject

TOLD_PROMPTS = 10
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
    made: Planned,
    factored: Factored,
    bundle: ExportBundle,
    validation: Validation,
    comparison: Comparison,
    dense: ExportBundle,
    run: Run,
) -> Report:
    """Collect everything that is known about the bundle."""
    subject, device = made.subject, made.subject.device
    here = is_this_machine(device) and bundle.manifest.precision == comparison.bundle.precision
    budget = made.budget
    buffers = budget.runtime_bytes + budget.activation_bytes + budget.cache_bytes
    prediction = _predicted(
        subject,
        dense,
        bundle,
        _measured_runs(comparison)
        if here
        else device_runs(device, subject.shape, subject.context_tokens),
        buffers + budget.fixed_weight_bytes + made.plan.resident_bytes,
    )
    headroom = made.budget.weight_bytes - made.plan.resident_bytes
    loss = _loss_check(made, validation)
    return Report(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=run.command,
        source=subject.settings.model,
        digest=subject.model.digest,
        task=subject.model.task,
        profile=device.id,
        profile_title=device.title,
        recipe=subject.recipe.name,
        fits=headroom >= 0,
        headroom_bytes=headroom,
        dense_file_bytes=dense.weight_bytes,
        bundle_file_bytes=bundle.weight_bytes,
        budget=made.budget,
        plan=made.plan,
        validation=validation,
        comparison=comparison,
        prediction=prediction,
        host_is_device=here,
        seconds={stage: round(value, 2) for stage, value in run.clock.seconds.items()},
        peak_bytes=peak_bytes(),
        environment=environment(),
        notes=(*_notes(made), *factored.notes, *_prediction_note(loss)),
        loss=loss,
        spectra=remaining_losses(made.plan, made.spectra.loss),
        license=license_of(subject.model.folder),
    )


def _predicted(
    subject: Subject,
    dense: ExportBundle,
    bundle: ExportBundle,
    runs: list[PhaseSize],
    resident_bytes: int,
) -> Prediction | None:
    """Predict the runs of a graph; of an encoder and a decoder, each its own."""
    shape = subject.shape

    def predicted(
        sizes: ModelShape,
        first: Path,
        second: Path,
        chosen: list[PhaseSize],
        given: ImageInput | SoundInput | None,
    ) -> Prediction | None:
        workloads = read_workload(first, given), read_workload(second, given)
        known = (subject.device, sizes, subject.precision)
        return predict(*known, *workloads, chosen, resident_bytes)

    of_images = bundle.manifest.matching is not None  # texts are read once, and not predicted
    if dense.encoder_path is None or bundle.encoder_path is None or of_images:
        return predicted(shape, dense.model_path, bundle.model_path, runs, subject.model.image)
    encoder = replace(shape, kv_heads=0, source_tokens=0)
    forward = [run for run in runs if run.tokens > 1]
    decode = [run for run in runs if run.tokens == 1]
    sound = subject.model.sound
    read = predicted(encoder, dense.encoder_path, bundle.encoder_path, forward, sound)
    written = predicted(shape, dense.model_path, bundle.model_path, decode, None)
    if read is None or written is None:
        return None
    return replace(read, phases=(*read.phases, *written.phases))


def _measured_runs(comparison: Comparison) -> list[PhaseSize]:
    phases = [each for each in comparison.bundle.phases if each.phase != "text"]
    return [
        PhaseSize(
            each.batch, each.tokens, each.context_tokens if each.phase == "decode" else each.tokens
        )
        for each in phases
    ]


def finish(made: Planned, bundle: ExportBundle, report: Report) -> None:
    """Write plan, report, model card and lock, and seal the bundle with its manifest."""
    write_results(bundle, made.subject.settings, _lock(made), report)


def write_results(
    bundle: ExportBundle, settings: Settings, lock: dict[str, object], report: Report
) -> None:
    """Write what a bundle holds beside its graph, and seal it with its manifest."""
    folder = bundle.folder
    inner, reports = folder / "edgelr", folder / "reports"
    reports.mkdir()
    write_plan(report.plan, inner / "plan.json")
    write_settings(settings, inner / "edgelr.yaml")
    (inner / "lock.json").write_text(json.dumps(lock, indent=2) + "\n")
    (reports / f"{report.profile}.json").write_text(to_json(report), encoding="utf-8")
    (reports / f"{report.profile}.md").write_text(to_markdown(report), encoding="utf-8")
    (reports / f"{report.profile}.html").write_text(to_html(report), encoding="utf-8")
    reads_images, in_genai = bundle.manifest.image is not None, (folder / GENAI).exists()
    card = model_card(report, reads_images, in_genai, settings.with_tests)
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


def _lock(made: Planned) -> dict[str, object]:
    """What reproduces the bundle: versions, revision, seed, and the hash of the calibration."""
    return {
        "edgelr": __version__,
        "environment": environment(),
        "model": {"digest": made.subject.model.digest, "revision": made.subject.model.revision},
        "seed": made.subject.settings.seed,
        "calibration": [
            {"text": part.description, "tokens": part.tokens, "sha256": part.key}
            for part in made.calibration
        ],
        "settings": made.subject.settings.given(),
        "recipe": asdict(made.subject.recipe),
    }


def _notes(made: Planned) -> tuple[str, ...]:
    parts = ", ".join(f"{part.description} ({part.tokens:,} tokens)" for part in made.calibration)
    notes = [f"Calibrated on: {parts}."]
    matching = made.subject.model.matching
    if matching is not None:
        count, first = len(matching.prompts), "”, “".join(matching.prompts[:TOLD_PROMPTS])
        more = ", …" if count > TOLD_PROMPTS else ""
        notes.append(f"Every image is compared with {count:,} prompts: “{first}”{more}.")
    if made.loss_factor is not None:
        notes.append(
            f"Bad end of the measured loss over the predicted loss, on held-out text: "
            f"{made.loss_factor:.2f} at this plan."
        )
    return tuple(notes)


def _loss_check(made: Planned, validation: Validation) -> LossCheck | None:
    """Set the measured loss beside the predicted one, where they have the same unit."""
    predicted = made.plan.predicted_loss
    if not METHODS.get(made.subject.recipe.method).predicts_loss or not predicted:
        return None
    found = {metric.name: metric for metric in validation.metrics}
    if "perplexity" in found and found["perplexity"].baseline:
        measured = math.log(found["perplexity"].value / found["perplexity"].baseline)
        return LossCheck(predicted, measured, "nats per token")
    if "mean_cosine" in found:
        return LossCheck(predicted, 1 - found["mean_cosine"].value, "of cosine distance")
    if "kl_divergence" in found:
        return LossCheck(predicted, found["kl_divergence"].value, "nats")
    return None


def _prediction_note(loss: LossCheck | None) -> tuple[str, ...]:
    """Say how far the predicted loss is from the measured one."""
    if loss is None:
        return ()
    text = (
        f"The plan predicted a loss of {loss.predicted:.4f} {loss.unit} on its calibration text; "
        f"measured on the evaluation text: {loss.measured:.4f}, "
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
