"""Write a bundle, compare it with torch and with the original, and time it."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelr.compress.decompose import in_forms
from edgelr.compress.reference_outputs import write_answers
from edgelr.core.bundle import ExportBundle, read_bundle, write_manifest
from edgelr.core.cache import Cache
from edgelr.core.errors import ProviderError
from edgelr.core.graph_files import graph_file
from edgelr.core.measurement import Comparison
from edgelr.core.results import Metric, Validation
from edgelr.core.settings import Settings
from edgelr.core.vocabulary import Precision
from edgelr.data.labels import truth_notes
from edgelr.data.text import PROMPTS, EvaluationSize
from edgelr.device.gate import make_gate
from edgelr.graph.build import GraphTarget, build
from edgelr.graph.companions import copy_companions, write_genai_config
from edgelr.graph.factorize import EXACT
from edgelr.runtime import calls as jobs
from edgelr.runtime import measure
from edgelr.runtime.worker_client import Worker
from edgelr.stages.baselines import dense_in
from edgelr.stages.factorize import Factored
from edgelr.stages.staging import Workplace
from edgelr.stages.subject import DenseExport, Listener, Planned, dense_manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
GPU_NOTE = (
    "Parity is that of the same plan in float32 on the CPU{compared}. Accuracy is that of the file "
    "that ships, on this machine's GPU."
)


def require_provider(settings: Settings, dense: DenseExport) -> None:
    """Make sure that a provider that was asked for by name really runs the model.

    Raises:
        ProviderError: it would not.
    """
    if settings.provider is not None:
        with Worker() as worker:
            worker.open(dense.bundle, settings.provider)


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
    write_answers(model, factors, _prompts(made), GREEDY_TOKENS, place.scratch / "answers.npz")

    def write(folder: Path, precision: Precision, accuracy_level: int) -> ExportBundle:
        name = graph_file(model.task, precision)
        (folder / "onnx").mkdir(parents=True)
        newest = min(device.max_opset, settings.opset or device.max_opset)
        target = GraphTarget(precision, newest, device.ir_version, accuracy_level)
        traced, path = made.dense.traced, folder / "onnx" / name
        opset, ir_version = build(
            model, traced, subject.sites, factors, path, target, factored.blocks
        )
        copy_companions(model.folder, folder)
        manifest = dense_manifest(model, precision, opset, ir_version, folder / "onnx" / name)
        manifest = replace(
            manifest,
            profile=device.id,
            max_drop=subject.max_drop,
            context_tokens=subject.context_tokens,
            shape=subject.shape,
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


def _prompts(made: Planned) -> list[NDArray[Any]]:
    """Token ids ``(length,)`` of a few texts; or a few of the images or sounds that calibrate.

    Where images and texts are compared, they come in turns.
    """
    model = made.subject.model
    if model.sound is not None:
        return list(made.calibration[0].inputs.source[: len(PROMPTS)])
    if model.image is not None:
        images = list(made.calibration[0].inputs[: len(PROMPTS)])
        if model.prompts is None:
            return images
        rows = zip(model.prompts.ids, model.prompts.mask, strict=True)
        texts = [ids[: mask.sum()] for ids, mask in islice(rows, len(PROMPTS))]
        return [each for both in zip_longest(images, texts) for each in both if each is not None]
    return [np.array(made.subject.tokenizer.encode(text).ids) for text in PROMPTS]


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
    listener.progress("parity", 0, 1)
    parity = jobs.parity(twin or bundle, place.scratch / "answers.npz", limit=PARITY_LIMIT)
    if twin is not None:
        error = jobs.twin_error(bundle, twin, place.scratch / "answers.npz")
        parity = replace(parity, twin_max_error=error, twin_limit=FLOAT16_LIMIT if half else None)
    listener.progress("parity", 1, 1)
    text = subject.texts.write_judged(place.scratch)
    metrics, on_gpu = _accuracy(made, bundle, twin, text, listener)
    note = HALF_NOTE if half else WHOLE_NOTE.format(level=subject.device.accuracy_level)
    if on_gpu:
        compared = ", with which the float16 file was compared there" if half else ""
        note = GPU_NOTE.format(compared=compared)
    told = () if twin is None and not on_gpu else (note,)
    notes = (*told, *truth_notes(subject.model.task, metrics))
    return Validation(
        parity=parity,
        metrics=metrics,
        gate=make_gate(subject.model.task, metrics, subject.max_drop),
        precision=bundle.manifest.precision if on_gpu else "float32",
        provider="CUDAExecutionProvider" if on_gpu else "CPUExecutionProvider",
        text=subject.texts.judged_on,
        notes=notes,
    )


def _accuracy(
    made: Planned,
    bundle: ExportBundle,
    twin: ExportBundle | None,
    text: Path,
    listener: Listener,
) -> tuple[tuple[Metric, ...], bool]:
    """Compare with the original: what ships on a GPU, where the device and this machine have one.

    Returns:
        The metrics, and whether they were measured on a GPU.
    """
    original, asked = made.dense.bundle, made.subject.settings.provider
    options: dict[str, Any] = {"size": EVALUATION, "progress": listener.progress}
    if (asked or made.subject.device.provider) == "cuda":
        with nullcontext() if asked == "cuda" else suppress(ProviderError):
            return jobs.accuracy(original, bundle, text, "cuda", **options), True
    return jobs.accuracy(original, _runnable(bundle, twin), text, **options), False


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
