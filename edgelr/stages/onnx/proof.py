"""Write the split graph; compare it with its own factors and with the original; time it."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgelr.core.bundle import MANIFEST, ExportBundle, read_bundle, write_manifest
from edgelr.core.errors import InputError, ProviderError
from edgelr.core.measurement import Comparison
from edgelr.core.results import Validation
from edgelr.core.vocabulary import Precision
from edgelr.data.tensors import SAMPLES, count, load_samples, read_samples, take, write_samples
from edgelr.device.gate import make_gate
from edgelr.graph.inputs import read_inputs
from edgelr.graph.linears import find_linears
from edgelr.graph.open import open_foreign
from edgelr.graph.save import save_graph
from edgelr.graph.split import SplitLinears
from edgelr.runtime import calls as jobs
from edgelr.runtime import measure
from edgelr.runtime.runners import tensors
from edgelr.stages.onnx.original import dense_bundle, foreign_manifest, kept_samples
from edgelr.stages.onnx.planning import Planned
from edgelr.stages.onnx.source import open_source
from edgelr.stages.onnx.subject import Subject

if TYPE_CHECKING:
    from edgelr.core.cache import Cache
    from edgelr.stages.subject import Listener

PARITY_LIMITS: dict[Precision, float] = {"float32": 1e-3, "float16": 2e-2}  # of the largest output
PARITY_SAMPLES = 4


def write_bundle(made: Planned, folder: Path) -> ExportBundle:
    """Write the graph in which the planned linears are split, and what it is timed on."""
    subject, device = made.subject, made.subject.device
    model = open_foreign(subject.dense.model_path)
    components = made.weights.components
    factors = {name: components.truncate(name, rank) for name, rank in made.ranks.items()}
    SplitLinears(find_linears(model), factors)(model)
    graph = folder / subject.dense.manifest.model_file
    graph.parent.mkdir(parents=True)
    newest = min(device.max_opset, subject.settings.opset or device.max_opset)
    save_graph(model, graph, newest, device.ir_version, check=False)
    manifest = foreign_manifest(subject.settings.model, subject.digest, graph, subject.precision)
    write_manifest(folder, replace(manifest, profile=device.id, max_drop=subject.max_drop))
    write_samples(folder / SAMPLES, kept_samples(subject.held_out))
    return read_bundle(folder)


def validate(made: Planned, bundle: ExportBundle, scratch: Path, listener: Listener) -> Validation:
    """Compare with the factors multiplied out (parity) and with the original (accuracy)."""
    subject = made.subject
    listener.progress("parity", 0, 1)
    few = take(subject.held_out, 0, PARITY_SAMPLES)
    expected = made.weights.outputs(made.ranks, few)
    parity = tensors.parity(bundle, expected, few, PARITY_LIMITS[subject.precision])
    listener.progress("parity", 1, 1)
    inputs = scratch / "held_out.npz"
    write_samples(inputs, subject.held_out)
    metrics = jobs.tensor_accuracy(subject.dense, bundle, inputs, progress=listener.progress)
    return Validation(
        parity=parity,
        metrics=metrics,
        gate=make_gate("tensors", metrics, subject.max_drop),
        precision=subject.precision,
        provider="CPUExecutionProvider",
        text=subject.judged_on,
    )


def measure_both(subject: Subject, bundle: ExportBundle, listener: Listener) -> Comparison:
    """Time the original and the bundle in turns, on the device's provider where it is usable.

    Raises:
        ProviderError: a provider was asked for by name, and is not used on this machine.
    """
    asked = subject.settings.provider
    if (asked or subject.device.provider) == "cuda":
        with suppress(ProviderError):
            return measure.measure(subject.dense, bundle, "cuda", progress=listener.progress)
        if asked == "cuda":
            raise ProviderError("CUDA was asked for with --provider, and is not used on this host.")
    return measure.measure(subject.dense, bundle, "cpu", progress=listener.progress)


def validate_again(
    bundle: ExportBundle,
    against: str | None,
    data: Path | None,
    max_drop: float | None,
    provider: str,
    cache: Cache,
    listener: Listener,
) -> Validation:
    """Judge a finished bundle again.

    Args:
        bundle: what is judged.
        against: the original ``.onnx`` file or module, or a bundle of it; None takes the bundle's
            source.
        data: an ``.npz`` of inputs; None takes the samples that the bundle keeps.
        max_drop: overrides the limit of the bundle.
        provider: ``cpu`` or ``cuda``.
        cache: where the original is prepared.
        listener: hears of progress.

    Raises:
        InputError: the original has changed, or the inputs do not fit it.
    """
    samples = load_samples(bundle.folder / SAMPLES)
    if data is not None:
        samples = read_samples(data, read_inputs(open_foreign(bundle.model_path)))
    source = against or bundle.manifest.source
    if (Path(source) / MANIFEST).exists():
        reference = read_bundle(Path(source))
    else:
        reference = dense_bundle(open_source(source, cache).graph, cache)
    if against is None and reference.manifest.digest != bundle.manifest.digest:
        raise InputError(
            f"{source} has changed since the bundle was made (digest {reference.manifest.digest}, "
            f"then {bundle.manifest.digest}). Name the original graph with --against."
        )
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs.npz"
        write_samples(inputs, samples)
        metrics = jobs.tensor_accuracy(
            reference, bundle, inputs, provider, progress=listener.progress
        )
    limit = bundle.manifest.max_drop if max_drop is None else max_drop
    return Validation(
        parity=None,
        metrics=metrics,
        gate=None if limit is None else make_gate("tensors", metrics, limit),
        precision=bundle.manifest.precision,
        provider=provider,
        text=f"{data or SAMPLES}, {count(samples)} samples",
    )
