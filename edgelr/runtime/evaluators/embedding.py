"""Embeddings: how far the vectors moved, and whether similarities keep their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgelr.core.intervals import mean_interval
from edgelr.core.ranks import spearman
from edgelr.core.results import Metric
from edgelr.core.vocabulary import Array, Progress
from edgelr.runtime.evaluators import EVALUATORS, EmbeddingRunner, Evaluator

NEAREST = 10
FEWEST = 50  # samples of which ten are few
_BATCH = 32


def compare_embeddings(
    reference: EmbeddingRunner,
    candidate: EmbeddingRunner,
    samples: Sequence[Any],
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Compare the embeddings that two encoders give to the same texts or images.

    Args:
        reference: runner of the original model.
        candidate: runner of the compressed model.
        samples: at least three texts, or image files.
        progress: callback after each batch of them.

    Returns:
        ``mean_cosine`` and ``min_cosine`` between the two vectors of a sample, and ``spearman``:
        the rank correlation of all pairwise similarities, which is what retrieval depends on. Of
        enough samples also ``overlap_at_10``: the share of a sample's ten nearest that stay them.
    """
    pairs = []
    for start in range(0, len(samples), _BATCH):
        batch = samples[start : start + _BATCH]
        pairs.append((reference.embed(batch), candidate.embed(batch)))
        if progress:
            progress("evaluate", start + len(batch), len(samples))
    expected = _unit_rows([first for first, _ in pairs])
    found = _unit_rows([second for _, second in pairs])
    cosines = (expected * found).sum(-1)
    count = len(samples)
    kept = overlap(expected, found, NEAREST) if count >= FEWEST else None
    return (
        Metric("mean_cosine", float(cosines.mean()), None, count, "", mean_interval(cosines)),
        Metric("min_cosine", float(cosines.min()), None, count),
        Metric("spearman", spearman(_similarities(expected), _similarities(found)), None, count),
        *(
            []
            if kept is None
            else [Metric("overlap_at_10", float(kept.mean()), None, count, "", mean_interval(kept))]
        ),
    )


def overlap(expected: Array, found: Array, nearest: int) -> Array:
    """Find which share of the ``nearest`` samples stay so, of every unit vector: ``(samples,)``."""
    first, second = (_nearest(vectors, nearest) for vectors in (expected, found))
    same: Array = (first[:, :, None] == second[:, None, :]).any(-1).mean(-1)
    return same


def _nearest(vectors: Array, count: int) -> Array:
    """Name the most similar other samples, ``(samples, count)``; ties go to the first."""
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -np.inf)
    nearest: Array = np.argsort(-similarities, axis=-1, kind="stable")[:, :count]
    return nearest


def _unit_rows(parts: Sequence[Array]) -> Array:
    """Join batches of vectors, and normalize them in float64: a cosine must not exceed 1."""
    vectors = np.concatenate(parts).astype(np.float64)
    unit: Array = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def _similarities(vectors: Array) -> Array:
    """Compute the cosine of every pair of unit vectors, ``(texts * (texts - 1) / 2,)``."""
    rows, columns = np.triu_indices(len(vectors), k=1)
    similarities: Array = (vectors @ vectors.T)[rows, columns]
    return similarities


EVALUATORS.register("embedding")(Evaluator(("feature-extraction",), compare_embeddings))
