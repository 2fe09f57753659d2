"""The original graph as a bundle: what its compressed form is calibrated on and compared with."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np

from edgelr.core.bundle import ExportBundle, Manifest, read_bundle, write_manifest
from edgelr.core.cache import file_digest, require_space
from edgelr.core.errors import InputError
from edgelr.core.modality import TENSORS
from edgelr.core.results import DenseParity
from edgelr.core.run import Run
from edgelr.core.vocabulary import Precision
from edgelr.data.tensors import Samples, count, feeds, take
from edgelr.graph.linears import Linears, find_linears
from edgelr.graph.open import external_files, open_foreign
from edgelr.graph.residency import read_residency
from edgelr.graph.save import read_versions, save_graph
from edgelr.runtime.requests import Execution
from edgelr.runtime.runners.tensors import open_tensors
from edgelr.runtime.validate import max_abs_error

NEWEST = 1000  # no limit: the graph keeps its operator set and its file format
COMPARED_SAMPLES = 4
KEPT_BYTES = 2**20  # of held-out samples in a bundle


def dense_bundle(source: Path, run: Run) -> ExportBundle:
    """Write the original as a bundle, or find it written.

    Raises:
        InputError: the file is no graph.
        EnvironmentProblem: the disk has no room for it.
    """
    open_foreign(source)
    files = graph_files(source)
    require_space(run.cache.root, 4 * sum(file.stat().st_size for file in files), "The cache")
    source_digest = file_digest(files)

    def write(folder: Path) -> None:
        graph = folder / "onnx" / "model.onnx"
        graph.parent.mkdir()
        save_graph(open_foreign(source), graph, NEWEST, NEWEST, check=False)
        found = find_linears(open_foreign(graph)).found
        precision = in_one_precision(Linears(found, {}))[0] if found else "float32"
        write_manifest(folder, foreign_manifest(str(source), source_digest, graph, precision))

    return read_bundle(run.stage("onnx-source", (source_digest,), write))


def graph_files(source: Path) -> list[Path]:
    """List a graph and the files that hold its weights."""
    return [source, *external_files(source)]


def require_equal(source: Path, opened: ExportBundle, samples: Samples) -> DenseParity:
    """Compare a graph that was opened for compression with the file, as ONNX Runtime runs it.

    Args:
        source: graph file as it was given.
        opened: the same graph, folded and written as a bundle.
        samples: inputs, of which a few are run.

    Raises:
        InputError: the two answer differently.
    """
    few = take(samples, 0, COMPARED_SAMPLES)
    exact = Execution(as_written=True)
    runners = [open_tensors(path, exact) for path in (source, opened.model_path)]
    errors, largest = [0.0], [0.0]
    for index in range(count(few)):
        expected, found = (runner.outputs(feeds(few, index)) for runner in runners)
        for name, output in expected.items():
            errors.append(max_abs_error(found[name], output))
            largest.append(float(np.abs(output[np.isfinite(output)]).max(initial=0.0)))
    parity = DenseParity("ONNX Runtime", count(few), max(errors), 0.0, max(largest))
    if not parity.passed:
        raise InputError(
            f"{source}: the graph as edgelr reads it differs by {parity.max_abs_error:.2e} from "
            f"what ONNX Runtime computes, where the largest output is {parity.largest_output:.2e}. "
            f"Expected the same answers. This is an error of edgelr's: please report the graph."
        )
    return parity


def foreign_manifest(
    source: str, source_digest: str, graph: Path, precision: Precision
) -> Manifest:
    """Describe a graph that is written."""
    opset, ir_version = read_versions(graph)
    return Manifest(
        task="tensors",
        modality=TENSORS,
        precision=precision,
        model_file=f"onnx/{graph.name}",
        source=source,
        revision=None,
        digest=source_digest,
        opset=opset,
        ir_version=ir_version,
        context_tokens=0,
        residency=read_residency(graph, "cpu"),
    )


def kept_samples(samples: Samples) -> Samples:
    """Take the samples that a bundle keeps, to be timed and judged again: one, or a few."""
    one = sum(array[0].nbytes for array in samples.values())
    return take(samples, 0, max(1, KEPT_BYTES // max(1, one)))


def in_one_precision(linears: Linears) -> tuple[Precision, Linears]:
    """Keep the linears of the precision that most weights have."""
    sizes: Counter[Precision] = Counter()
    for linear in linears.found:
        sizes[linear.precision] += linear.site.parameters
    precision = sizes.most_common(1)[0][0]
    others = [each for each in linears.found if each.precision != precision]
    refused = {each.site.name: f"it is in {each.precision}" for each in others}
    kept = tuple(each for each in linears.found if each.precision == precision)
    return precision, Linears(kept, {**linears.refused, **refused})


def digest_of(samples: Samples) -> str:
    """Hash samples to 16 hexadecimal digits."""
    total = hashlib.sha256()
    for name, array in sorted(samples.items()):
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]
