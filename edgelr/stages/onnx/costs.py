"""What every rank of a graph's linears costs the outputs, and the memory that a run takes."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edgelr.compress.spectra import SpectrumTable
from edgelr.core.intervals import upper_end
from edgelr.core.plan import Budget, Plan
from edgelr.core.run import Run
from edgelr.core.vocabulary import PRECISION_BYTES
from edgelr.data.tensors import take, write_samples
from edgelr.graph.residency import read_residency
from edgelr.planning.allocate import Search
from edgelr.runtime.requests import TimedInputs, TimedPhase
from edgelr.runtime.worker_client import Worker
from edgelr.stages.onnx.components import Components, read_components, write_components
from edgelr.stages.onnx.sensitivity import PROBE_SAMPLES, Weights, measure_losses, open_probe
from edgelr.stages.onnx.subject import GraphSubject
from edgelr.stages.subject import Planned, make_search

SEARCH_SAMPLES = 64  # on which plans are judged while they are made
JOINT = (0.9, 0.75, 0.6)  # kept shares of plans that are measured as a whole
_LOSSES = "losses.npz"


@dataclass(frozen=True)
class GraphCosts:
    """What the linears of a graph cost.

    Attributes:
        weights: original graph with weights that can be replaced.
        spectra: predicted cosine distance of the outputs, of every linear at every rank.
    """

    weights: Weights
    spectra: SpectrumTable


GraphPlanned: TypeAlias = Planned[GraphSubject, GraphCosts]


def ranks_of(plan: Plan) -> dict[str, int]:
    """Read the ranks of the linears that are split."""
    return {site.name: site.candidate.rank for site in plan.sites if site.changed}


def graph_costs(subject: GraphSubject, run: Run) -> GraphCosts:
    """Decompose the linears, and measure what each costs the outputs."""
    with run.time("decomposition"):
        components = decomposed(subject, run)
    with run.time("sensitivity"):
        weights = open_probe(subject.original.model_path, components, subject.selection)
        return GraphCosts(weights, spectra(subject, weights, run))


def decomposed(subject: GraphSubject, run: Run) -> Components:
    """Decompose the linears, or find them decomposed."""
    graph = subject.original.model_path

    def write(folder: Path) -> None:
        write_components(graph, subject.calibration, folder, run.progress)

    folder = run.stage("onnx-components", (subject.key,), write)
    return read_components(folder, [site.name for site in subject.linears.sites])


def spectra(subject: GraphSubject, weights: Weights, run: Run) -> SpectrumTable:
    """Measure what linears cost the outputs, or find it measured.

    Those that no rank makes smaller are not measured.
    """
    sites = subject.linears.sites
    flat = {name: np.zeros_like(error) for name, error in weights.components.errors.items()}
    options = make_search(subject, SpectrumTable(Path(), flat)).options
    names = [option.name for option in options if option.compressed]

    def write(folder: Path) -> None:
        samples = take(subject.selection, 0, PROBE_SAMPLES)
        found = measure_losses(weights, names, samples, run.progress)
        search = make_search(subject, SpectrumTable(folder, {**flat, **found}))
        factor = joint_factor(subject, weights, search)
        arrays = {str(index): factor * found[name] for index, name in enumerate(names)}
        np.savez(folder / _LOSSES, allow_pickle=False, **arrays)

    folder = run.stage("onnx-losses", (subject.key, names), write)
    with np.load(folder / _LOSSES, allow_pickle=False) as file:
        found = {name: file[str(index)] for index, name in enumerate(names)}
    return SpectrumTable(
        folder, {site.name: found.get(site.name, flat[site.name]) for site in sites}
    )


def joint_factor(subject: GraphSubject, weights: Weights, search: Search) -> float:
    """Compare what plans cost the outputs with the sum of what their linears cost alone.

    Returns:
        Geometric mean of measured over predicted loss.
    """
    samples = take(subject.selection, 0, PROBE_SAMPLES)
    expected, logarithms = weights.outputs({}, samples), []
    for share in JOINT:
        plan = search.plan(max(search.smallest_bytes, round(share * search.dense_bytes)))
        if plan.predicted_loss > 0:
            measured = float(np.mean(weights.distances(ranks_of(plan), samples, expected)))
            logarithms.append(math.log(max(measured, 1e-12) / plan.predicted_loss))
    return float(np.exp(np.mean(logarithms))) if logarithms else 1.0


def graph_budget(subject: GraphSubject) -> Budget:
    """Add up the device's memory; what one run takes is measured here, on the original."""
    device, original = subject.device, subject.original
    with Worker() as worker, tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs.npz"
        write_samples(inputs, take(subject.held_out, 0, 1))
        worker.open(original, inputs=TimedInputs(samples=inputs))
        before = worker.memory()
        worker.run_ms(TimedPhase("forward", 1, 0))
        activations = max(0, worker.memory().peak_bytes - before.resident_bytes)
    planned = PRECISION_BYTES[subject.precision] * subject.planned_parameters
    fixed = read_residency(original.model_path, device.provider).bytes - planned
    return Budget(
        device_bytes=device.visible_bytes,
        reserved_bytes=device.reserved_bytes,
        runtime_bytes=device.runtime_bytes,
        fixed_weight_bytes=max(0, fixed),
        activation_bytes=activations,
        cache_bytes=0,
        context_tokens=0,
    )


def measured_distance(subject: GraphSubject, weights: Weights) -> Callable[[Plan], float]:
    """Return what measures a plan on inputs that whitened no weight: upper end of the distance."""
    samples = take(subject.selection, 0, SEARCH_SAMPLES)
    expected = weights.outputs({}, samples)
    return lambda plan: upper_end(weights.distances(ranks_of(plan), samples, expected))
