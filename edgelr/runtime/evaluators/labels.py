"""Labels of texts, tokens or images: how many change, and how far the probabilities moved.

What a mask is filled with is a label like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgelr.core.intervals import change_interval, runs_interval, share_interval
from edgelr.core.results import Interval, Metric
from edgelr.core.vocabulary import Array, Progress
from edgelr.data.labels import ACCURACY
from edgelr.runtime.evaluators import EVALUATORS, Evaluator, Known, LabellingRunner
from edgelr.runtime.evaluators.perplexity import log_softmax

_BATCH = 32


def compare_labels(
    reference: LabellingRunner,
    candidate: LabellingRunner,
    samples: Sequence[Any] | Known,
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Compare the labels that two models give to the same texts, their tokens, or images.

    Args:
        reference: runner of the original model.
        candidate: runner of the compressed model.
        samples: texts, or image files.
        progress: callback after each batch of them.

    Returns:
        ``top1_agreement`` (share of equal labels), ``kl_divergence`` (mean of KL(reference ||
        candidate) per label, in nats) and ``total_variation`` (mean of half the absolute difference
        of the probabilities). Where it is known what is true, also ``top1_accuracy`` of both, and
        its ``change``.
    """
    truths = samples.truths if isinstance(samples, Known) else None
    given: Sequence[Any] = samples.samples if isinstance(samples, Known) else samples
    divergences, variations, chosen = [], [], []
    for start in range(0, len(given), _BATCH):
        batch = given[start : start + _BATCH]
        expected, found = log_softmax(reference.decide(batch)), log_softmax(candidate.decide(batch))
        divergences.append((np.exp(expected) * (expected - found)).sum(-1))
        variations.append(np.abs(np.exp(expected) - np.exp(found)).sum(-1) / 2)
        chosen.append((expected.argmax(-1), found.argmax(-1)))
        if progress:
            progress("evaluate", start + len(batch), len(given))
    before, after = map(np.concatenate, zip(*chosen, strict=True))
    apart, moved = map(np.concatenate, (divergences, variations))
    agrees, count, units = before == after, len(before), len(given)
    agreed = share_interval(agrees, units)
    around = [runs_interval(values, units) for values in (apart, moved)]
    return (
        Metric("top1_agreement", float(agrees.mean()), None, count, "", agreed),
        Metric("kl_divergence", float(apart.mean()), None, count, "nats", around[0]),
        Metric("total_variation", float(moved.mean()), None, count, "", around[1]),
        *([] if truths is None else _accuracy(before, after, truths, units)),
    )


def _accuracy(before: Array, after: Array, truths: Array, units: int) -> list[Metric]:
    """Count the labels that are right, of the decisions of which it is known."""
    known = truths >= 0
    right, still = before[known] == truths[known], after[known] == truths[known]
    count, baseline, share = len(right), float(right.mean()), float(still.mean())
    change = change_interval(right, still, units)
    around = change and Interval(
        max(0.0, baseline + change.low), min(1.0, baseline + change.high), change.units
    )
    return [
        Metric(ACCURACY, share, baseline, count, "", around),
        Metric(f"{ACCURACY}_change", share - baseline, None, count, "", change),
    ]


EVALUATORS.register("labels")(
    Evaluator(
        ("text-classification", "token-classification", "fill-mask", "image-classification"),
        compare_labels,
        reads_truths=True,
    )
)
