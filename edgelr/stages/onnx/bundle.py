"""Write the split graph, and compare it with its own factors in the original graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgelr.core.bundle import read_bundle, write_manifest
from edgelr.core.measurement import Prediction
from edgelr.core.results import Parity
from edgelr.core.vocabulary import Precision
from edgelr.data.tensors import SAMPLES, take, write_samples
from edgelr.device.latency import Workload, predict
from edgelr.graph.linears import find_linears
from edgelr.graph.open import open_foreign
from edgelr.graph.save import save_graph
from edgelr.graph.split import SplitLinears
from edgelr.runtime import calls
from edgelr.runtime.runners.tensors import largest_output, write_answers
from edgelr.stages.onnx.costs import GraphPlanned, ranks_of
from edgelr.stages.onnx.original import foreign_manifest, graph_files, kept_samples
from edgelr.stages.onnx.subject import RANDOM_NOTE, GraphSubject, told
from edgelr.stages.source import Written
from edgelr.stages.staging import Staging

PARITY_LIMITS: dict[Precision, float] = {"float32": 1e-3, "float16": 2e-2}  # of the largest output
PARITY_SAMPLES = 4
GROWN = 1.2  # a graph that is read as floats is told to be larger from here on
FACTORS = "the original graph with its factors multiplied out"


def write_split_graph(made: GraphPlanned, folder: Path) -> Written:
    """Write the graph in which the planned linears are split, and what it is timed on."""
    subject, device = made.subject, made.subject.device
    model = open_foreign(subject.original.model_path)
    components = made.costs.weights.components
    ranks = ranks_of(made.plan)
    factors = {name: components.truncate(name, rank) for name, rank in ranks.items()}
    SplitLinears(find_linears(model), factors)(model)
    graph = folder / subject.original.manifest.model_file
    graph.parent.mkdir(parents=True)
    newest = min(device.max_opset, subject.settings.opset or device.max_opset)
    save_graph(model, graph, newest, device.ir_version, check=False)
    manifest = foreign_manifest(subject.settings.model, subject.digest, graph, subject.precision)
    write_manifest(folder, replace(manifest, profile=device.id, max_drop=subject.max_drop))
    write_samples(folder / SAMPLES, kept_samples(subject.held_out))
    return Written(read_bundle(folder))


def compare_with_factors(made: GraphPlanned, written: Written, place: Staging) -> Parity:
    """Compare the split graph with the original one whose weights are the factors' products."""
    few = take(made.subject.held_out, 0, PARITY_SAMPLES)
    expected = made.costs.weights.outputs(ranks_of(made.plan), few)
    write_answers(place.answers, few, expected)
    limit = PARITY_LIMITS[made.subject.precision] * largest_output(expected)
    return replace(calls.parity(written.bundle, place.answers, limit), against=FACTORS)


def predicted_run(
    subject: GraphSubject, dense: Workload, bundle: Workload, resident_bytes: int
) -> Prediction | None:
    """Predict one run of both graphs; a sample counts as one token."""
    known = (subject.device, subject.shape, subject.precision)
    found = predict(*known, dense, bundle, subject.runs, resident_bytes)
    if found is None:
        return None
    return replace(found, phases=tuple(replace(each, key="forward") for each in found.phases))


def sample_notes(made: GraphPlanned) -> tuple[str, ...]:
    """Say what the graph was calibrated on, which linears are left as they are, and what grew."""
    subject = made.subject
    notes = [f"Calibrated on: {subject.calibrated_on}."]
    if subject.drawn:
        notes.append(RANDOM_NOTE)
    if subject.linears.refused:
        notes.append(f"Left as they are: {told(subject.linears.refused)}.")
    given_bytes = sum(file.stat().st_size for file in graph_files(subject.given))
    if subject.original.weight_bytes > GROWN * given_bytes:
        notes.append(
            f"The weights that are factorized were smaller in {subject.given.name}, by another "
            f"type: its {given_bytes:,} bytes are {subject.original.weight_bytes:,} as floats, "
            f"which sizes are compared with."
        )
    return tuple(notes)


def origin(made: GraphPlanned) -> dict[str, object]:
    """Name the graph and the inputs that it was calibrated on, with their hashes."""
    subject = made.subject
    return {
        "model": {"digest": subject.digest},
        "calibration": [{"inputs": subject.calibrated_on, "sha256": subject.key}],
    }
