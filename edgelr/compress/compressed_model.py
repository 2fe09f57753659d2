"""The compressed model in torch, with which the exported graph must agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edgelr.compress.factors import Factors, FactorSet, LowRank
from edgelr.compress.forms import apply, dense_weight
from edgelr.core.intervals import in_blocks, upper_end
from edgelr.core.ranks import spearman, spearman_interval
from edgelr.core.tasks import TASKS
from edgelr.data.calibration import Calibration
from edgelr.model.convolutions import convolved, features_last
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import (
    Inputs,
    answers,
    as_tensors,
    counted,
    divergence,
    loss_of,
    total_variation,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    WatchHidden: TypeAlias = Callable[[Tensor], None]

EVALUATION_BATCH_TOKENS = 1024
_GEOMETRY = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")


class FactorizedLinear(nn.Module):
    """A linear that computes with factors; it has the attributes of an ``nn.Linear``.

    Args:
        dense: linear that it stands in for.
        factors: factors of its weight.
        watch: function that is called with the first product of a ``LowRank``, ``(..., rank)``.
    """

    def __init__(
        self, dense: nn.Linear, factors: Factors, watch: WatchHidden | None = None
    ) -> None:
        super().__init__()
        self.factors, self.watch = factors, watch
        self.weight, self.bias = dense.weight, dense.bias
        self.in_features, self.out_features = dense.in_features, dense.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        if self.watch is not None and isinstance(self.factors, LowRank):
            hidden = x @ self.factors.down
            self.watch(hidden)
            y = hidden @ self.factors.up
        else:
            y = apply(self.factors, x)
        return y if self.bias is None else y + self.bias


class FactorizedConvolution(nn.Module):
    """A convolution that computes as two, the second pointwise; it has the dense one's attributes.

    Args:
        dense: convolution that it stands in for.
        factors: factors of its weight as a matrix.
        watch: function that is called with the output of the first one, ``(..., rank)``.
    """

    def __init__(
        self, dense: nn.Conv2d, factors: LowRank, watch: WatchHidden | None = None
    ) -> None:
        super().__init__()
        self.dense, self.factors, self.watch = dense, factors, watch
        for name in _GEOMETRY:  # models read them to pad
            setattr(self, name, getattr(dense, name))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(images, in, ...)`` to ``(images, out, ...)``."""
        hidden = convolved(self.dense, x, self.factors.down)
        if self.watch is not None:
            seen = features_last(self.dense, hidden)
            self.watch(seen)
            hidden = seen.mT.view_as(hidden)  # what is watched has the gradient
        return functional.conv2d(hidden, self.factors.up.T[..., None, None], self.dense.bias)


@contextmanager
def installed(
    module: nn.Module, factors: FactorSet, watch: Callable[[str, Tensor], None] | None = None
) -> Iterator[None]:
    """Let the sites of ``module`` compute with their factors, for as long as the block runs.

    A table of embeddings, with the head that is tied to it, holds what it was rounded to.

    Args:
        module: module with a linear or convolution for every factor.
        factors: factors by the name of the site.
        watch: function that is called with the name of every ``LowRank`` that runs, and its first
            product ``(..., rank)``.
    """
    dense = {name: module.get_submodule(name) for name in factors}
    tables = {name for name, each in dense.items() if isinstance(each, nn.Embedding)}
    try:
        with multiplied(module, {name: factors[name] for name in tables}):
            for name in dense.keys() - tables:
                seen = None if watch is None else partial(watch, name)
                module.set_submodule(name, _factorized(dense[name], factors[name], seen))
            yield
    finally:
        for name, linear in dense.items():
            module.set_submodule(name, linear)


def _factorized(dense: nn.Module, factors: Factors, watch: WatchHidden | None) -> nn.Module:
    if isinstance(dense, nn.Linear):
        return FactorizedLinear(dense, factors, watch)
    assert isinstance(dense, nn.Conv2d)
    assert isinstance(factors, LowRank), "a convolution has no other form"
    return FactorizedConvolution(dense, factors, watch)


@contextmanager
def multiplied(module: nn.Module, factors: FactorSet) -> Iterator[None]:
    """Let the sites of ``module`` hold the products of their factors while the block runs.

    The product is the same matrix in every form, and costs what dense costs.
    """
    kept: dict[str, Tensor] = {}
    try:
        for name, each in factors.items():
            linear = module.get_submodule(name)
            assert isinstance(linear, (nn.Linear, nn.Conv2d, nn.Embedding))
            kept[name] = linear.weight.data
            linear.weight.data = dense_weight(each).reshape(linear.weight.shape).contiguous()
        yield
    finally:
        for name, weight in kept.items():
            module.get_submodule(name).weight.data = weight


def mean_loss(model: LoadedModel, texts: Calibration) -> float:
    """Mean cross entropy of the predicted tokens, in nats per token."""
    return float(np.concatenate(token_losses(model, texts)).mean())


@torch.no_grad()
def token_losses(model: LoadedModel, texts: Calibration) -> list[NDArray[np.float64]]:
    """Cross entropy of the predicted tokens in nats, ``(tokens,)`` of every row; no padding.

    They are the next tokens of a decoder's text, and the targets of an encoder-decoder.
    """
    rows = []
    for inputs, mask in _tensors(texts):
        wanted, real = loss_of(model).next_tokens(inputs, mask)
        logits = answers(model, inputs, mask)[:, : wanted.shape[1]]
        losses = functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), reduction="none"
        ).view(real.shape)
        rows += [row[kept].double().numpy() for row, kept in zip(losses, real, strict=True)]
    return rows


@torch.no_grad()
def all_answers(model: LoadedModel, texts: Calibration) -> Tensor:
    """Answers to every text, where these have a loss: see ``losses.answers``.

    Returns:
        Unit embeddings ``(texts, hidden)``, scores ``(pairs, 1)``, or logits
        ``(decisions, classes)``.
    """
    rows = []
    for inputs, mask in _tensors(texts):
        answered = answers(model, inputs, mask)
        rows.append(answered[counted(answered, model, inputs, mask)])
    return torch.cat(rows)


def likeness(model: LoadedModel, texts: Calibration, original: Tensor) -> float:
    """Mean cosine to ``original`` of unit embeddings; the share of equal labels of logits.

    Of scores, their rank correlation.
    """
    found = all_answers(model, texts)
    traits = TASKS.get(model.task)
    if traits.loss == "score":
        return spearman(found[:, 0].numpy(), original[:, 0].numpy())
    if traits.loss == "embedding":
        return float((found * original).sum(-1).mean())
    return float((found.argmax(-1) == original.argmax(-1)).double().mean())


def loss_increase(model: LoadedModel, held_out: Calibration) -> Callable[[], float]:
    """Return a function that tells how much the loss of ``model`` has grown since now.

    In nats per token for a decoder, in cosine distance for an encoder without a head, in half the
    squared distance of scores over their deviation for a reranker, and in nats of divergence from
    the labels' probabilities of now for one that labels.
    """
    traits = TASKS.get(model.task)
    if traits.predicts_tokens:
        dense_loss = mean_loss(model, held_out)
        return lambda: mean_loss(model, held_out) - dense_loss
    original = all_answers(model, held_out)
    if traits.answers_numbers:
        return lambda: float((all_answers(model, held_out) - original).square().sum(-1).mean() / 2)
    return lambda: float(divergence(all_answers(model, held_out), original).mean())


def gate_increase(model: LoadedModel, held_out: Calibration) -> Callable[[], float]:
    """Return a function for the loss that the accuracy gate limits, see ``gate.loss_limit``.

    It gives the upper end of the loss, because the gate decides on the bad end of its figure.

    The share of labels that change grows with the root of the divergence, in which losses are
    predicted: twice its square is what is compared (Pinsker's inequality has these units). Few
    labels change, so that no less is taken than the total variation, of which a share is expected
    to change. Theirs is no upper end: the limit leaves room for it.
    """
    traits = TASKS.get(model.task)
    if traits.predicts_tokens:
        before = token_losses(model, held_out)

        def added() -> float:
            pairs = zip(token_losses(model, held_out), before, strict=True)
            return upper_end(*in_blocks([after - row for after, row in pairs]))

        return added
    original = all_answers(model, held_out)
    if traits.loss == "score":
        return lambda: _lost_order(all_answers(model, held_out), original)
    if traits.loss == "embedding":
        return lambda: upper_end(1 - (all_answers(model, held_out) * original).sum(-1).numpy())

    def increase() -> float:
        found = all_answers(model, held_out)
        changed = float((found.argmax(-1) != original.argmax(-1)).double().mean())
        moved = float(total_variation(found, original).mean())
        return 2 * max(moved, changed) ** 2

    return increase


def _lost_order(found: Tensor, original: Tensor) -> float:
    """One minus the low end of the rank correlation of scores ``(pairs, 1)``."""
    scores = found[:, 0].numpy(), original[:, 0].numpy()
    sure = spearman_interval(*scores)
    return 1 - (spearman(*scores) if sure is None else sure.low)


def _tensors(texts: Calibration) -> Iterator[tuple[Inputs, Tensor]]:
    rows = max(1, math.ceil(EVALUATION_BATCH_TOKENS / texts.length))
    for inputs, mask in texts.batches(rows):
        yield as_tensors(inputs, mask)
