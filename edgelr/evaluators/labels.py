"""Labels of texts, tokens or images: how many change, and how far the probabilities moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgelr.evaluators import EVALUATORS, Array, Evaluator, LabellingRunner, Progress
from edgelr.evaluators.perplexity import log_softmax
from edgelr.intervals import mean_interval, share_interval
from edgelr.types import Interval, Metric

_BATCH = 32


def compare_labels(
    reference: LabellingRunner,
    candidate: LabellingRunner,
    samples: Sequence[Any],
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Compare the labels that two models give to the same texts, their tokens, or images.

    Args:
        reference: the original model.
        candidate: the compressed model.
        samples: texts, or image files.
        progress: called after each batch of them.

    Returns:
        ``top1_agreement`` (share of equal labels), ``kl_divergence`` (mean of KL(reference ||
        candidate) per label, in nats) and ``total_variation`` (mean of half the absolute difference
        of the probabilities).
    """
    divergences, variations, agreements = [], [], []
    for start in range(0, len(samples), _BATCH):
        batch = samples[start : start + _BATCH]
        expected, found = log_softmax(reference.decide(batch)), log_softmax(candidate.decide(batch))
        divergences.append((np.exp(expected) * (expected - found)).sum(-1))
        variations.append(np.abs(np.exp(expected) - np.exp(found)).sum(-1) / 2)
        agreements.append(expected.argmax(-1) == found.argmax(-1))
        if progress:
            progress("evaluate", start + len(batch), len(samples))
    count, units = sum(map(len, agreements)), len(samples)
    agrees, apart, moved = map(np.concatenate, (agreements, divergences, variations))
    agreed = share_interval(agrees, units)
    return (
        Metric("top1_agreement", float(agrees.mean()), None, count, "", agreed),
        Metric("kl_divergence", float(apart.mean()), None, count, "nats", _interval(apart, units)),
        Metric("total_variation", float(moved.mean()), None, count, "", _interval(moved, units)),
    )


def _interval(values: Array, units: int) -> Interval | None:
    """Resample what was found for every decision in runs of neighbours: of one text, as a rule."""
    parts = np.array_split(values, max(1, min(units, len(values))))
    return mean_interval([part.mean() for part in parts], np.array(list(map(len, parts))))


EVALUATORS.register("labels")(
    Evaluator(
        ("text-classification", "token-classification", "image-classification"), compare_labels
    )
)
