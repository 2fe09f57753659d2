"""Distances of answers, embeddings, and labels drawn from logits: functions of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

SAMPLED_TOKENS = 128  # drawing labels copies the probabilities


def pool(hidden: Tensor, mask: Tensor, pooling: str | None) -> Tensor:
    """Pool ``(batch, tokens, hidden)`` to ``(batch, hidden)`` over the real tokens.

    The rules are those of sentence-transformers.
    """
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask[..., None].to(hidden.dtype)
    if pooling == "max":
        return hidden.masked_fill(weights == 0, -torch.inf).amax(1)
    places = weights.cumsum(1) * weights  # 1 for the first real token
    if pooling == "last_token":
        weights = (places == places.amax(1, keepdim=True)).to(hidden.dtype)
    elif pooling == "weighted_mean":
        weights = places
    total = weights.sum(1)
    return (hidden * weights).sum(1) / (total.sqrt() if pooling == "mean_sqrt_len" else total)


def divergence(found: Tensor, expected: Tensor) -> Tensor:
    """KL(expected || found) of logits ``(..., classes)``, in nats."""
    wanted = expected.double().log_softmax(-1)
    return (wanted.exp() * (wanted - found.double().log_softmax(-1))).sum(-1)


def total_variation(found: Tensor, expected: Tensor) -> Tensor:
    """Half the absolute difference of the probabilities of logits ``(..., classes)``."""
    return (found.softmax(-1) - expected.softmax(-1)).abs().sum(-1) / 2


def sampled_residual(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Probabilities minus one-hot labels drawn from them, the shape of ``logits``.

    It is the gradient of the cross entropy against these labels.
    """
    residual = logits.softmax(-1)
    for row in residual:  # (decisions, classes): a row at a time, because drawing makes a copy
        for piece in row.split(SAMPLED_TOKENS):
            labels = drawn(piece, generator)
            piece.scatter_add_(1, labels, piece.new_full(labels.shape, -1.0))
    return residual


def drawn(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a class for every row of ``(rows, classes)``, ``(rows, 1)``, by one number each.

    ``torch.multinomial`` takes a random number for every class, and eight times as long.
    """
    sums = probabilities.cumsum(-1)
    share = torch.rand((len(sums), 1), generator=generator, dtype=sums.dtype)
    found = torch.searchsorted(sums, share * sums[:, -1:], right=True)
    return found.clamp_max(sums.shape[-1] - 1)
