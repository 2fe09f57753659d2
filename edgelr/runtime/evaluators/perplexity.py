"""Language modelling: perplexity of both models, and how far apart their predictions are."""

from __future__ import annotations

import numpy as np

from edgelr.core.intervals import in_blocks, mean_interval, share_interval
from edgelr.core.results import Interval, Metric
from edgelr.core.vocabulary import Array, Progress
from edgelr.runtime.evaluators import EVALUATORS, CausalRunner, Evaluator

_ROWS = 64  # positions at once: 25 MB of float64 for a vocabulary of 49152


def compare_language_models(
    reference: CausalRunner,
    candidate: CausalRunner,
    samples: Array,
    progress: Progress | None = None,
) -> tuple[Metric, ...]:
    """Compare next-token predictions, chunk by chunk; one chunk's logits are held at a time.

    Args:
        reference: runner of the original model.
        candidate: runner of the compressed model.
        samples: token chunks, ``(chunks, length)`` int64. Each chunk is run alone, without BOS, and
            its first token is never predicted.
        progress: callback after each chunk.

    Returns:
        ``perplexity`` (token-weighted), ``kl_divergence`` (mean of KL(reference || candidate) per
        token, in nats) and ``top1_agreement`` (share of equal most likely tokens); with intervals
        over blocks of tokens, that of the perplexity paired.
    """
    rows = []
    for done, chunk in enumerate(samples, start=1):
        expected = reference.logits(chunk[None])[0][0]
        found = candidate.logits(chunk[None])[0][0]
        rows.append(compared(expected[:-1], found[:-1], chunk[1:]))
        if progress:
            progress("evaluate", done, len(samples))
    return metrics_of(rows)


def compared(expected: Array, found: Array, targets: Array) -> Array:
    """Compare logits ``(rows, vocabulary)`` of both models, next tokens ``(rows,)``.

    Returns:
        Losses of the reference and of the candidate, divergence, agreement: ``(4, rows)``.
    """
    parts = [slice(start, start + _ROWS) for start in range(0, len(targets), _ROWS)]
    return np.concatenate(
        [_compared(expected[part], found[part], targets[part]) for part in parts], axis=-1
    )


def _compared(expected: Array, found: Array, targets: Array) -> Array:
    reference = log_softmax(expected)
    candidate = log_softmax(found)
    rows = np.arange(len(targets))
    return np.stack(
        [
            -reference[rows, targets],
            -candidate[rows, targets],
            (np.exp(reference) * (reference - candidate)).sum(-1),
            expected.argmax(-1) == found.argmax(-1),
        ]
    )


def log_softmax(logits: Array) -> Array:
    """Compute the logarithm of the softmax over the last axis, in float64."""
    shifted: Array = logits - logits.max(-1, keepdims=True).astype(np.float64)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return shifted


def metrics_of(chunks: list[Array]) -> tuple[Metric, ...]:
    """Average over all tokens; ``chunks`` are ``(4, tokens)`` each, see ``compared``."""
    reference, candidate, divergence, agreement = np.concatenate(chunks, axis=-1).mean(-1)
    tokens = sum(chunk.shape[-1] for chunk in chunks)
    apart = mean_interval(*in_blocks([chunk[2] for chunk in chunks]))
    agrees = np.concatenate([chunk[3] for chunk in chunks])
    with np.errstate(over="ignore"):  # a ruined model's perplexity is infinite, and no bug
        perplexity, baseline = float(np.exp(candidate)), float(np.exp(reference))
        raised = mean_interval(*in_blocks([chunk[1] - chunk[0] for chunk in chunks]))
        if raised is not None:
            low, high = (baseline * float(np.exp(end)) for end in (raised.low, raised.high))
            raised = Interval(low, high, raised.units)
    agreed = share_interval(agrees, apart.units if apart else 1)
    return (
        Metric("perplexity", perplexity, baseline, tokens, interval=raised),
        Metric("kl_divergence", float(divergence), None, tokens, "nats/token", apart),
        Metric("top1_agreement", float(agreement), None, tokens, "", agreed),
    )


EVALUATORS.register("perplexity")(Evaluator(("text-generation",), compare_language_models))
