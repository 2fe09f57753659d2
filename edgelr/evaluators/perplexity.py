"""Language modelling: perplexity of both models, and how far apart their predictions are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgelr.evaluators import EVALUATORS, Array, CausalRunner, Evaluator, Progress
from edgelr.types import Metric

_ROWS = 64  # positions at once: 25 MB of float64 for a vocabulary of 49152


@dataclass(slots=True)
class Totals:
    """Sums over the predicted tokens, in nats."""

    tokens: int = 0
    reference_loss: float = 0.0
    candidate_loss: float = 0.0
    divergence: float = 0.0
    agreements: int = 0


def compare_language_models(
    reference: CausalRunner,
    candidate: CausalRunner,
    samples: Array,
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Compare next-token predictions, chunk by chunk; one chunk's logits are held at a time.

    Args:
        reference: the original model.
        candidate: the compressed model.
        samples: token chunks, ``(chunks, length)`` int64. Each chunk is run alone, without BOS, and
            its first token is never predicted.
        progress: called after each chunk.

    Returns:
        ``perplexity`` (token-weighted), ``kl_divergence`` (mean of KL(reference || candidate) per
        token, in nats) and ``top1_agreement`` (share of equal most likely tokens).
    """
    totals = Totals()
    for done, chunk in enumerate(samples, start=1):
        expected = reference.logits(chunk[None])[0][0]
        found = candidate.logits(chunk[None])[0][0]
        add(totals, expected[:-1], found[:-1], chunk[1:])
        if progress:
            progress("evaluate", done, len(samples))
    return metrics_of(totals)


def add(totals: Totals, expected: Array, found: Array, targets: Array) -> None:
    """Add positions: logits ``(rows, vocabulary)`` of both models, next tokens ``(rows,)``."""
    for start in range(0, len(targets), _ROWS):
        rows = slice(start, start + _ROWS)
        _add(totals, expected[rows], found[rows], targets[rows])


def _add(totals: Totals, expected: Array, found: Array, targets: Array) -> None:
    reference = log_softmax(expected)
    candidate = log_softmax(found)
    rows = np.arange(len(targets))
    totals.tokens += len(targets)
    totals.reference_loss -= float(reference[rows, targets].sum())
    totals.candidate_loss -= float(candidate[rows, targets].sum())
    totals.divergence += float((np.exp(reference) * (reference - candidate)).sum())
    totals.agreements += int((expected.argmax(-1) == found.argmax(-1)).sum())


def log_softmax(logits: Array) -> Array:
    """Compute the logarithm of the softmax over the last axis, in float64."""
    shifted: Array = logits - logits.max(-1, keepdims=True).astype(np.float64)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return shifted


def metrics_of(totals: Totals) -> tuple[Metric, ...]:
    """Divide the sums by the tokens."""
    tokens = totals.tokens
    with np.errstate(over="ignore"):  # a ruined model's perplexity is infinite, and no bug
        perplexity = np.exp(totals.candidate_loss / tokens)
        baseline = np.exp(totals.reference_loss / tokens)
    return (
        Metric("perplexity", float(perplexity), float(baseline), tokens),
        Metric("kl_divergence", totals.divergence / tokens, None, tokens, "nats/token"),
        Metric("top1_agreement", totals.agreements / tokens, None, tokens),
    )


EVALUATORS.register("perplexity")(Evaluator(("text-generation",), compare_language_models))
