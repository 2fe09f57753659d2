"""The second half of the story: from a plan to a bundle, and to the proof that it works."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import machine, platform, python_version

from edgelr import __version__
from edgelr.allocate import write_plan
from edgelr.cache import Cache, replace_folder, require_space, unfinished
from edgelr.compressed import installed, write_answers
from edgelr.decompose import in_forms
from edgelr.device import is_this_machine
from edgelr.errors import InputError, ProviderError
from edgelr.factoring import Factored
from edgelr.gate import make_gate
from edgelr.graph.build import build
from edgelr.graph.companions import copy_companions, write_genai_config
from edgelr.graph.rewrite import EXACT
from edgelr.graph.workload import read_workload
from edgelr.latency import Run, device_runs, predict
from edgelr.methods import METHODS
from edgelr.planning import (
    DenseExport,
    Listener,
    Planned,
    Subject,
    dense_manifest,
)
from edgelr.report.card import model_card
from edgelr.report.markdown import to_markdown
from edgelr.report.schema import SCHEMA_VERSION, to_json
from edgelr.rivals import dense_in
from edgelr.runtime import jobs, measure
from edgelr.runtime.bundle import MANIFEST, describe_files, read_bundle, write_manifest
from edgelr.runtime.child import Worker
from edgelr.settings import Settings, write_settings
from edgelr.text import EvaluationSize
from edgelr.types import (
    Comparison,
    ExportBundle,
    Manifest,
    Precision,
    Report,
    Validation,
)

PARITY_LIMIT = 1e-3  # of float32 logits or hidden states
FLOAT16_LIMIT = 2e-2  # of the largest output: eleven bits, through every layer
GREEDY_TOKENS = 64
EVALUATION = EvaluationSize(chunks=8, length=1024, sentences=500)
WHOLE_NOTE = (
    "MatMulNBits multiplies in eight bits (accuracy level {level}). Parity is that of the same "
    "weights at level 1, in float32; accuracy and latency are those of the file that ships."
)
HALF_NOTE = (
    "The bundle ships in float16. Parity and accuracy are those of the same plan in float32 on the "
    "CPU; the float16 file was loaded there and compared with it."
)
PROMPTS = (
    "The capital of France is",
    "Photosynthesis is the process by which",
    "def fibonacci(n):\n    ",
    "In 1905, Albert Einstein published a paper that",
    "A short list of things to pack for a walk in the mountains: water,",
)
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


@dataclass(frozen=True)
class Workplace:
    """Where a bundle is made: ``bundle`` becomes the result, ``scratch`` goes away."""

    bundle: Path
    scratch: Path


def preflight(out: Path, force: bool, cache: Cache) -> None:
    """Refuse, before any work, what would fail at the end.

    Raises:
        InputError: ``out`` holds something that must not be lost.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (out / MANIFEST).exists():
            raise InputError(
                f"{out} exists and is no edgelr bundle; expected an empty or a new folder. Name "
                f"another one with --out: edgelr does not delete what it did not write."
            )
        if not force:
            raise InputError(
                f"{out} holds a bundle; expected an empty or a new folder. Add --force to replace "
                f"it, or name another one with --out."
            )
    _require_writable(out.absolute())
    require_space(out, 2**20, "The bundle")
    require_space(cache.root, 2**20, "The cache")


def _require_writable(out: Path) -> None:
    """Refuse a place in which no folder can be made."""
    parent = next(path for path in out.parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(
            f"{out} cannot be written: {parent} is {'read-only' if parent.is_dir() else 'a file'}. "
            f"Expected a folder that can be written. Name another one with --out."
        )


def require_room(subject: Subject, out: Path, cache: Cache) -> None:
    """Refuse to start what the disks cannot hold, now that the size of the model is known."""
    parameters = sum(p.numel() for p in subject.model.module.parameters())
    # A dense export (twice while it is written), Grams, factors at full rank; the bundle, its twin.
    require_space(cache.root, 4 * 8 * parameters, "The cache of this model")
    require_space(out, 4 * 3 * parameters, "The bundle")


def require_provider(settings: Settings, dense: DenseExport) -> None:
    """Make sure that a provider that was asked for by name really runs the model.

    Raises:
        ProviderError: it would not.
    """
    if settings.provider is not None:
        with Worker() as worker:
            worker.open(dense.bundle, settings.provider)


@contextmanager
def workplace(out: Path, force: bool) -> Iterator[Workplace]:
    """Give a folder that becomes ``out`` in one step, if the block ends well."""
    out = out.resolve()
    with unfinished(out) as root:
        place = Workplace(root / "bundle", root / "scratch")
        place.bundle.mkdir()
        place.scratch.mkdir()
        yield place
        if out.exists() and not force and any(out.iterdir()):
            raise InputError(f"{out} was filled by another run meanwhile; --force replaces it.")
        replace_folder(place.bundle, out)


def write_bundle(
    made: Planned, factored: Factored, place: Workplace
) -> tuple[ExportBundle, ExportBundle | None]:
    """Write the graph and its companions, and what the torch model answers.

    Returns:
        The bundle and, where it ships in float16 or multiplies in whole numbers, its exact float32
        twin in the scratch folder: both are one plan, and the twin is what can be compared with
        torch to the last digits.
    """
    subject = made.subject
    model, device, settings = subject.model, subject.device, subject.settings
    factors = in_forms(factored.factors, made.plan, device.rank_multiple)
    with installed(model.module, factors):
        prompts = [subject.tokenizer.encode(text).ids for text in PROMPTS]
        write_answers(model, prompts, GREEDY_TOKENS, place.scratch / "answers.npz")

    def write(folder: Path, precision: Precision, accuracy_level: int) -> ExportBundle:
        name = "model.onnx" if precision == "float32" else "model_fp16.onnx"
        (folder / "onnx").mkdir(parents=True)
        opset, ir_version = build(
            model,
            made.dense.traced,
            subject.sites,
            factors,
            folder / "onnx" / name,
            precision,
            min(device.max_opset, settings.opset or device.max_opset),
            device.ir_version,
            factored.blocks,
            accuracy_level,
        )
        copy_companions(model.folder, folder)
        manifest = dense_manifest(model, precision, opset, ir_version, folder / "onnx" / name)
        manifest = replace(
            manifest,
            model_file=f"onnx/{name}",
            profile=device.id,
            max_drop=subject.max_drop,
            context_tokens=subject.context_tokens,
        )
        write_manifest(folder, manifest)
        return read_bundle(folder)

    level = device.accuracy_level if factored.blocks else EXACT
    bundle = write(place.bundle, subject.precision, level)
    write_genai_config(
        made.dense.folder / "traced",
        place.bundle,
        bundle.manifest.model_file,
        device.provider,
        subject.context_tokens,
    )
    if subject.precision == "float32" and level == EXACT:
        return bundle, None
    return bundle, write(place.scratch / "float32", "float32", EXACT)


def validate(
    made: Planned,
    bundle: ExportBundle,
    twin: ExportBundle | None,
    place: Workplace,
    listener: Listener,
) -> Validation:
    """Compare with torch (parity) and with the original (accuracy), in child processes."""
    subject = made.subject
    half = bundle.manifest.precision == "float16"
    checked = _runnable(bundle, twin)
    listener.progress("parity", 0, 1)
    parity = jobs.parity(twin or bundle, place.scratch / "answers.npz", limit=PARITY_LIMIT)
    if twin is not None:
        prompts = [subject.tokenizer.encode(text).ids for text in PROMPTS]
        error = jobs.twin_error(bundle, twin, prompts)
        parity = replace(parity, twin_max_error=error, twin_limit=FLOAT16_LIMIT if half else None)
    listener.progress("parity", 1, 1)
    text = place.scratch / "evaluation.txt"
    text.write_text(subject.texts.evaluation, encoding="utf-8")
    metrics = jobs.accuracy(
        made.dense.bundle, checked, text, size=EVALUATION, progress=listener.progress
    )
    note = HALF_NOTE if half else WHOLE_NOTE.format(level=subject.device.accuracy_level)
    notes = () if twin is None else (note,)
    return Validation(
        parity=parity,
        metrics=metrics,
        gate=make_gate(subject.model.task, metrics, subject.max_drop),
        precision="float32",
        provider="CPUExecutionProvider",
        text=f"{subject.texts.evaluation_name}, first half",
        notes=notes,
    )


def _runnable(bundle: ExportBundle, twin: ExportBundle | None) -> ExportBundle:
    """What this machine's CPU can run: the twin of what ships in float16."""
    half = bundle.manifest.precision == "float16"
    return twin if half and twin is not None else bundle


def measure_both(
    made: Planned, bundle: ExportBundle, twin: ExportBundle | None, cache: Cache, listener: Listener
) -> tuple[Comparison, ExportBundle]:
    """Time the dense export and the bundle in turns, on the device's provider where it is usable.

    Returns:
        The comparison, and the dense export in the precision that ships.
    """
    subject = made.subject
    shipped_dense = dense_in(
        subject.model, made.dense, bundle.manifest.precision, subject.device, cache
    )
    asked = made.subject.settings.provider
    length = min(128, made.subject.context_tokens // 2)
    lengths = (length,)
    if (asked or made.subject.device.provider) == "cuda":
        with suppress(ProviderError):
            found = measure.measure(
                shipped_dense, bundle, "cuda", None, lengths, lengths, progress=listener.progress
            )
            return found, shipped_dense
        if asked == "cuda":
            raise ProviderError("CUDA was asked for with --provider, and is not used on this host.")
    pair = (made.dense.bundle, _runnable(bundle, twin))
    found = measure.measure(*pair, "cpu", None, lengths, lengths, progress=listener.progress)
    return found, shipped_dense


def make_report(
    made: Planned,
    factored: Factored,
    bundle: ExportBundle,
    validation: Validation,
    comparison: Comparison,
    dense: ExportBundle,
    seconds: dict[str, float],
    command: str,
) -> Report:
    """Collect everything that is known about the bundle."""
    subject, device = made.subject, made.subject.device
    here = is_this_machine(device) and bundle.manifest.precision == comparison.bundle.precision
    budget = made.budget
    buffers = budget.runtime_bytes + budget.activation_bytes + budget.cache_bytes
    prediction = predict(
        device,
        subject.shape,
        subject.precision,
        read_workload(dense.model_path),
        read_workload(bundle.model_path),
        _measured_runs(comparison)
        if here
        else device_runs(device, subject.shape, subject.context_tokens),
        buffers + budget.fixed_weight_bytes + made.plan.resident_bytes,
    )
    headroom = made.budget.weight_bytes - made.plan.resident_bytes
    return Report(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=command,
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
        seconds={stage: round(value, 2) for stage, value in seconds.items()},
        peak_bytes=peak_bytes(),
        environment=environment(),
        notes=(*_notes(made), *factored.notes, *_prediction_note(made, validation)),
    )


def _measured_runs(comparison: Comparison) -> list[Run]:
    return [
        Run(phase.batch, phase.tokens, phase.context_tokens + phase.tokens)
        if phase.phase != "decode"
        else Run(phase.batch, 1, phase.context_tokens)
        for phase in comparison.bundle.phases
    ]


def finish(made: Planned, bundle: ExportBundle, report: Report) -> None:
    """Write plan, report, model card and lock, and seal the bundle with its manifest."""
    folder = bundle.folder
    inner, reports = folder / "edgelr", folder / "reports"
    reports.mkdir()
    write_plan(made.plan, inner / "plan.json")
    write_settings(made.subject.settings, inner / "edgelr.yaml")
    (inner / "lock.json").write_text(json.dumps(_lock(made), indent=2) + "\n")
    (reports / f"{report.profile}.json").write_text(to_json(report), encoding="utf-8")
    (reports / f"{report.profile}.md").write_text(to_markdown(report), encoding="utf-8")
    (folder / "README.md").write_text(model_card(report), encoding="utf-8")
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
        "settings": made.subject.settings.model_dump(mode="json", exclude_defaults=True),
        "recipe": asdict(made.subject.recipe),
    }


def _notes(made: Planned) -> tuple[str, ...]:
    parts = ", ".join(f"{part.description} ({part.tokens:,} tokens)" for part in made.calibration)
    notes = [f"Calibrated on: {parts}."]
    if made.loss_factor is not None:
        notes.append(
            f"Measured over predicted loss on held-out text: {made.loss_factor:.2f} at this plan."
        )
    return tuple(notes)


def _prediction_note(made: Planned, validation: Validation) -> tuple[str, ...]:
    """Say how far the predicted loss is from the measured one, where they have the same unit."""
    if not METHODS.get(made.subject.recipe.method).predicts_loss or not made.plan.predicted_loss:
        return ()
    found = {metric.name: metric for metric in validation.metrics}
    if "perplexity" in found and found["perplexity"].baseline:
        measured = math.log(found["perplexity"].value / found["perplexity"].baseline)
        unit = "nats per token"
    elif "mean_cosine" in found:
        measured, unit = 1 - found["mean_cosine"].value, "of cosine distance"
    else:
        return ()
    predicted = made.plan.predicted_loss
    text = (
        f"The plan predicted a loss of {predicted:.4f} {unit} on its calibration text; measured on "
        f"the evaluation text: {measured:.4f}, {measured / predicted:.2f} times as much."
    )
    return (text,)
