"""Whitened decompositions of a graph's linears, from inputs that ONNX Runtime shows.

With ``H`` the mean of ``x x^T`` and ``S = H^{1/2}``, the truncated SVD of ``W S`` is the product
of its rank whose output is nearest to the original's (SVD-LLM, Wang et al., 2024,
arXiv:2403.07378). Dropping a component costs the square of its singular value, per position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgelr.compress.methods.svd_llm import INPUT_DAMPING
from edgelr.core.sites import LinearSite
from edgelr.core.vocabulary import Progress
from edgelr.data.readings import Reading
from edgelr.data.tensors import Samples
from edgelr.graph.expose import showing_values
from edgelr.graph.linears import Linear, find_linears
from edgelr.graph.open import open_foreign
from edgelr.graph.split import ArrayLowRank
from edgelr.runtime.runners.tensors import input_grams

Matrix = NDArray[np.float64]

GRAM_BYTES = 2**30  # of Grams in memory at once; a graph with more is run again for the others
_LOSSES = "losses.npz"


@dataclass(frozen=True)
class Components:
    """Factors of every linear at every rank, on disk.

    Attributes:
        folder: ``<index>.down.npy (k, in)`` and ``<index>.up.npy (k, out)`` float32, by the order
            of the linears.
        errors: mean squared error of the output at every rank, ``(k + 1,)``, by name of the site.
    """

    folder: Path
    errors: dict[str, Matrix]

    def truncate(self, name: str, rank: int) -> ArrayLowRank:
        """Read the first components of a site."""
        index = list(self.errors).index(name)
        down, up = (
            np.load(_file(self.folder, index, part), mmap_mode="r") for part in ("down", "up")
        )
        return ArrayLowRank(np.array(down[:rank]).T, np.array(up[:rank]))


def write_components(graph: Path, samples: Samples, folder: Path, progress: Progress) -> None:
    """Decompose every linear of a graph into a folder that ``read_components`` reads.

    Args:
        graph: graph file, in a folder that can be written.
        samples: inputs to calibrate on.
        folder: empty.
        progress: function called after each linear.
    """
    linears = find_linears(open_foreign(graph)).found
    index = {linear.site.name: position for position, linear in enumerate(linears)}
    errors = {}
    for batch in _batches(linears):
        grams = _grams(graph, batch, samples)
        for linear in batch:
            gram = grams.get(linear.site.input_name)
            down, up, error = decompose(linear.read_weight().astype(np.float64), gram)
            position = index[linear.site.name]
            np.save(_file(folder, position, "down"), down.T.astype(np.float32))
            np.save(_file(folder, position, "up"), up.astype(np.float32))
            errors[f"{position:05d}"] = error
            progress("decompose", len(errors), len(linears))
    np.savez(folder / _LOSSES, allow_pickle=False, **errors)


def read_components(folder: Path, names: Sequence[str]) -> Components:
    """Read what ``write_components`` wrote for the linears of these names, in order."""
    with np.load(folder / _LOSSES, allow_pickle=False) as file:
        return Components(folder, {name: file[f"{i:05d}"] for i, name in enumerate(names)})


def decompose(weight: Matrix, gram: Matrix | None) -> tuple[Matrix, Matrix, Matrix]:
    """Factorize a weight at every rank in the metric of its inputs.

    Args:
        weight: ``(out_features, in_features)``.
        gram: mean of ``x x^T``, ``(in_features, in_features)``; None weighs all inputs alike.

    Returns:
        ``down (in_features, k)`` and ``up (k, out_features)``, whose first ``r`` columns and rows
        are the factors of rank ``r``, and the mean squared error of the output at every rank,
        ``(k + 1,)``.
    """
    root, inverse = _roots(np.eye(weight.shape[1]) if gram is None else gram)
    whitened = weight @ root
    if weight.shape[0] <= weight.shape[1]:
        squares, left = np.linalg.eigh(whitened @ whitened.T)
        down, up = weight.T @ left[:, ::-1], left[:, ::-1].T
    else:
        squares, right = np.linalg.eigh(whitened.T @ whitened)
        down, up = inverse @ right[:, ::-1], (whitened @ right[:, ::-1]).T
    squares = np.maximum(squares[::-1], 0.0)
    error = np.append(np.cumsum(squares[::-1])[::-1], 0.0)
    return *_balanced(down, up), error


def singular_values(
    graph: Path,
) -> tuple[tuple[LinearSite, ...], Callable[[LinearSite], Matrix]]:
    """List the linears of a graph, and what computes the singular values of each."""
    linears = {each.site.name: each for each in find_linears(open_foreign(graph)).found}

    def values(site: LinearSite) -> Matrix:
        return np.linalg.svd(linears[site.name].read_weight().astype(np.float64), compute_uv=False)

    return tuple(each.site for each in linears.values()), values


def _roots(gram: Matrix) -> tuple[Matrix, Matrix]:
    """The symmetric square root of a Gram, damped, and its inverse."""
    mean = float(np.trace(gram)) / len(gram) or 1.0
    values, vectors = np.linalg.eigh(
        (1 - INPUT_DAMPING) * gram + INPUT_DAMPING * mean * np.eye(len(gram))
    )
    roots = np.sqrt(np.maximum(values, INPUT_DAMPING * mean))
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T


def _balanced(down: Matrix, up: Matrix) -> tuple[Matrix, Matrix]:
    """Give both factors of every component the same norm, as small precisions like them."""
    tiny = np.finfo(np.float64).tiny
    norms = np.linalg.norm(down, axis=0) + tiny, np.linalg.norm(up, axis=1) + tiny
    scale = np.sqrt(norms[1] / norms[0])
    return down * scale, up / scale[:, None]


def _batches(linears: Sequence[Linear]) -> Iterator[list[Linear]]:
    """Cut the linears where the Grams of what they read would fill the memory."""
    batch: list[Linear] = []
    for linear in linears:
        sizes = {each.site.input_name: each.site.in_features for each in (*batch, linear)}
        if batch and sum(8 * size**2 for size in sizes.values()) > GRAM_BYTES:
            yield batch
            batch = []
        batch.append(linear)
    if batch:
        yield batch


def _grams(graph: Path, linears: Sequence[Linear], samples: Samples) -> dict[str, Matrix]:
    """Run the graph, and return the Gram of every distinct input; none of what cannot be seen."""
    inputs = {linear.site.input_name: linear.readings for linear in linears if linear.readings}
    readings: list[Reading] = list(dict.fromkeys(each for many in inputs.values() for each in many))
    if not readings:
        return {}
    with showing_values(graph, [each.value for each in readings]) as shown:
        found = dict(zip(readings, input_grams(shown, readings, samples), strict=True))
    return {
        name: np.asarray(sum(found[each] for each in many)) / len(many)
        for name, many in inputs.items()
    }


def _file(folder: Path, index: int, part: str) -> Path:
    return folder / f"{index:05d}.{part}.npy"
