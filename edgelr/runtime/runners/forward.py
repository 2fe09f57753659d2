"""Encoders of texts and of images: phases, outputs, pooling and decisions that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgelr.core.vocabulary import Array, Pooling
from edgelr.runtime.requests import TimedPhase

if TYPE_CHECKING:
    from edgelr.runtime.session import Session

FORWARD_TOKENS = 128  # of a text, where the model reads as many
_BATCHES = (1, 8)


def forward_phases(tokens: int) -> list[TimedPhase]:
    """List runs of one input and of several, of so many tokens each."""
    return [TimedPhase("forward", batch, tokens) for batch in _BATCHES]


def output_of(session: Session) -> str:
    """Name the output of a graph: ``last_hidden_state``, or else its first."""
    wanted = "last_hidden_state"
    return wanted if wanted in session.outputs else next(iter(session.outputs))


def unit(vectors: Array) -> Array:
    """Normalize vectors ``(rows, features)``."""
    normalized: Array = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return normalized


def pooled(hidden: Array, mask: Array, pooling: Pooling) -> Array:
    """Pool ``(batch, tokens, features)`` over the real tokens to unit vectors.

    What a graph has pooled itself, ``(batch, features)``, is only normalized.

    The rules are those of sentence-transformers; that of ``mean_sqrt_len`` changes only the length.
    """
    if hidden.ndim == 2:
        return unit(hidden)
    if pooling == "cls":
        return unit(hidden[:, 0])
    if pooling == "max":
        return unit(np.where(mask[..., None] == 1, hidden, -np.inf).max(1))
    places = np.cumsum(mask, axis=-1) * mask  # 1 for the first real token
    if pooling == "last_token":
        mask = (places == places.max(-1, keepdims=True)).astype(mask.dtype)
    elif pooling == "weighted_mean":
        mask = places
    weights = (mask / mask.sum(-1, keepdims=True)).astype(np.float32)
    return unit((hidden * weights[..., None]).sum(1))


def vector_of(output: Array, pooling: Pooling) -> Array:
    """Pool what a graph answers to a row alone, ``(tokens, features)``, to a unit vector."""
    found: Array = pooled(output[None], np.ones((1, len(output)), np.int64), pooling)[0]
    return found


def each_decision(logits: Array) -> Array:
    """Turn ``(rows, labels)`` into decisions between yes and no, ``(rows * labels, 2)``."""
    both = np.stack((logits, np.zeros_like(logits)), axis=-1)
    return both.reshape(-1, 2)
