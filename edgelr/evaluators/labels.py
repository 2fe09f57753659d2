"""Labels of texts, tokens or images: how many change, and how far the probabilities moved.

What a mask is filled with is a label like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgelr.evaluators import EVALUATORS, Evaluator, LabellingRunner, Progress
from edgelr.evaluators.perplexity import log_softmax
from edgelr.types import Metric

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
    count = sum(map(len, agreements))
    return (
        Metric("top1_agreement", float(np.concatenate(agreements).mean()), None, count),
        Metric("kl_divergence", float(np.concatenate(divergences).mean()), None, count, "nats"),
        Metric("total_variation", float(np.concatenate(variations).mean()), None, count),
    )


EVALUATORS.register("labels")(
    Evaluator(
        ("text-classification", "token-classification", "fill-mask", "image-classification"),
        compare_labels,
    )
)
