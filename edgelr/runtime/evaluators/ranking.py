"""Scores of pairs of texts: whether a reranker still sorts passages as the original does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelr.core.intervals import mean_interval
from edgelr.core.ranks import same_order, spearman, spearman_interval
from edgelr.core.results import Metric
from edgelr.core.vocabulary import Progress
from edgelr.data.pairs import Pair
from edgelr.runtime.evaluators import EVALUATORS, Evaluator, ScoringRunner

_BATCH = 32


def compare_scores(
    reference: ScoringRunner,
    candidate: ScoringRunner,
    samples: Sequence[Pair],
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Compare the scores that two models give to the same pairs of a query and a passage.

    What an application does with scores is to sort by them. Their rank correlation is the same
    whatever function that rises is applied to them; a constant has none.

    Args:
        reference: runner of the original model.
        candidate: runner of the compressed model.
        samples: pairs of texts.
        progress: callback after each batch of them.

    Returns:
        ``spearman`` (rank correlation of the scores), ``same_order`` (share of two pairs that both
        models put in one order) and ``score_distance`` (half the mean squared difference of the
        scores over the original's variance: one minus their correlation, as it is predicted).
    """
    parts = []
    for start in range(0, len(samples), _BATCH):
        batch = samples[start : start + _BATCH]
        parts.append((reference.score(batch), candidate.score(batch)))
        if progress:
            progress("evaluate", start + len(batch), len(samples))
    expected, found = (np.concatenate(each).astype(np.float64) for each in zip(*parts, strict=True))
    apart = (found - expected) ** 2 / (2 * expected.var())
    ordered, count = spearman(expected, found), len(samples)
    return (
        Metric("spearman", ordered, None, count, "", spearman_interval(expected, found)),
        Metric("same_order", same_order(expected, found), None, count),
        Metric("score_distance", float(apart.mean()), None, count, "", mean_interval(apart)),
    )


EVALUATORS.register("ranking")(Evaluator(("text-ranking",), compare_scores))
