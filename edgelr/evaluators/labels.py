"""Labels of texts or tokens: how many change, and how far the probabilities moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelr.evaluators import EVALUATORS, Evaluator, LabellingRunner, Progress
from edgelr.evaluators.perplexity import log_softmax
from edgelr.types import Metric

_BATCH = 32


def compare_labels(
    reference: LabellingRunner,
    candidate: LabellingRunner,
    samples: Sequence[str],
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Compare the labels that two models give to the same texts, or to their tokens.

    Args:
        reference: the original model.
        candidate: the compressed model.
        samples: texts.
        progress: called after each batch of texts.

    Returns:
        ``top1_agreement`` (share of equal labels), ``kl_divergence`` (mean of KL(reference ||
        candidate) per label, in nats) and ``total_variation`` (mean of half the absolute difference
        of the probabilities).
    """
    divergences, variations, agreements = [], [], []
    for start in range(0, len(samples), _BATCH):
        texts = samples[start : start + _BATCH]
        expected, found = log_softmax(reference.decide(texts)), log_softmax(candidate.decide(texts))
        divergences.append((np.exp(expected) * (expected - found)).sum(-1))
        variations.append(np.abs(np.exp(expected) - np.exp(found)).sum(-1) / 2)
        agreements.append(expected.argmax(-1) == found.argmax(-1))
        if progress:
            progress("evaluate", start + len(texts), len(samples))
    count = sum(map(len, agreements))
    return (
        Metric("top1_agreement", float(np.concatenate(agreements).mean()), None, count),
        Metric("kl_divergence", float(np.concatenate(divergences).mean()), None, count, "nats"),
        Metric("total_variation", float(np.concatenate(variations).mean()), None, count),
    )


EVALUATORS.register("labels")(
    Evaluator(("text-classification", "token-classification"), compare_labels)
)
