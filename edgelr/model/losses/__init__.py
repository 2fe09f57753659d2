"""Answers that models are compared by, in torch, and their gradients: numbers, or logits.

Numbers are unit embeddings, or scores over their standard deviation.

Logits come as ``(rows, decisions, classes)``: a decision is a token, or the one label of a text
or an image; where these may have several labels, each of them is a decision between yes and no.

What differs between modalities is in the files of this package, one for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from edgelr.core.inputs import with_arrays
from edgelr.core.tasks import TASKS, decides_each_label
from edgelr.model.losses.distances import (
    divergence,
    drawn,
    pool,
    sampled_residual,
    total_variation,
)
from edgelr.model.losses.protocol import (
    LOSSES,
    Inputs,
    ModalityLoss,
    SitePositions,
    SourcePositions,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from edgelr.model.loaded import LoadedModel

__all__ = [
    "LOSSES",
    "Inputs",
    "ModalityLoss",
    "SitePositions",
    "SourcePositions",
    "answers",
    "as_tensors",
    "backward",
    "backward_twice",
    "counted",
    "decided_tokens",
    "decisions_per_row",
    "divergence",
    "drawn",
    "loss_of",
    "named_inputs",
    "pool",
    "total_variation",
]


def loss_of(model: LoadedModel) -> ModalityLoss:
    """Find the loss of a model's modality.

    Raises:
        InputError: no package that is installed runs this modality in torch.
    """
    return LOSSES.get(model.modality)


def as_tensors(inputs: Any, mask: NDArray[Any]) -> tuple[Inputs, Tensor]:
    """Turn a batch of calibration rows into tensors."""
    return with_arrays(inputs, torch.tensor), torch.tensor(mask)


def named_inputs(model: LoadedModel, inputs: Inputs, mask: Tensor) -> dict[str, Tensor]:
    """Name the arguments of a forward pass.

    Args:
        model: model that runs.
        inputs: token ids ``(rows, length)``, pixels ``(rows, 3, side, side)``, or sources and
            targets.
        mask: 1 for real tokens, ``(rows, length)``; an image has no others. Of targets, for the
            tokens that are predicted: a decoder never looks ahead, at what is padding.
    """
    return loss_of(model).named_inputs(model, inputs, mask)


def answers(model: LoadedModel, inputs: Inputs, mask: Tensor) -> Tensor:
    """Run a batch; the arguments are those of ``named_inputs``.

    Returns:
        Logits ``(rows, decisions, classes)``; or in float64 unit embeddings ``(rows, hidden)``, or
        scores over their deviation ``(rows, 1)``.
    """
    return _compared(model, mask, named_inputs(model, inputs, mask))


def counted(answered: Tensor, model: LoadedModel, inputs: Inputs, mask: Tensor) -> Tensor:
    """Tell which decisions have a loss, ``(rows, decisions)``; numbers count once."""
    if TASKS.get(model.task).by_row:
        return torch.ones(answered.shape[:-1], dtype=torch.bool)
    return decided_tokens(model, inputs, mask)


def decided_tokens(model: LoadedModel, inputs: Inputs, mask: Tensor) -> Tensor:
    """Tell which tokens have a loss, ``(rows, length)``: no padding, or only masked ones."""
    return loss_of(model).decided(model, inputs, mask)


def decisions_per_row(model: LoadedModel) -> int:
    """Count the decisions about a text or an image: one label, or each of them."""
    config: Any = model.module.config
    if TASKS.get(model.task).loss != "label":
        return 1
    several = decides_each_label(config.problem_type, config.num_labels)
    return int(config.num_labels) if several else 1


def backward(model: LoadedModel, inputs: Inputs, mask: Tensor, generator: torch.Generator) -> None:
    """Send back gradients whose second moment is the Fisher information of the model.

    Logits: the gradient of the cross entropy against labels sampled from the model itself,
    ``p - onehot(label)``; labels from data would give the empirical Fisher instead. Embedding: an
    encoder has no head, and what its users compare are pooled, normalized embeddings. Read as the
    mean of a Gaussian of unit variance, an embedding ``e`` has the Fisher ``J^T J``, and the
    gradients ``J^T noise`` of ``<e, noise>`` have just that moment; the predicted loss is then
    half the squared distance of the embeddings, which is one minus their cosine. Scores of a
    reranker, divided by their standard deviation, likewise: half the mean squared distance is one
    minus their correlation, where errors have nothing to do with the scores. Prompts: labels
    are sampled from the softmax over them, also where every prompt has a probability of its own:
    what is judged is the choice.
    """
    model = loss_of(model).with_few_prompts(model, generator)
    _send_sampled(model, _differentiable(model, inputs, mask), inputs, mask, generator)


def backward_twice(
    model: LoadedModel,
    inputs: Inputs,
    mask: Tensor,
    expected: Tensor,
    generator: torch.Generator,
    between: Callable[[], None],
) -> None:
    """Send two gradients back through one forward pass.

    The first is that of the sum, over all that has a loss, of KL(expected || answer), or of half
    the squared distance of the embeddings; the second that of ``backward``.

    Args:
        model: model that is differentiated.
        inputs: inputs of a batch.
        mask: mask of the batch.
        expected: answers of another model to the batch, see ``answers``.
        generator: random generator of the sampled labels or probes.
        between: function that is called after the first gradient.
    """
    answered = _differentiable(model, inputs, mask)
    found = answered.detach()
    if TASKS.get(model.task).answers_numbers:
        residual = found - expected
    else:
        real = counted(answered, model, inputs, mask)
        residual = (found.softmax(-1) - expected.softmax(-1)).mul_(real[..., None])
    answered.backward(residual, retain_graph=True)
    between()
    _send_sampled(model, answered, inputs, mask, generator)


def _differentiable(model: LoadedModel, inputs: Inputs, mask: Tensor) -> Tensor:
    """Run a batch so that its answers can be sent back."""
    with loss_of(model).differentiable(model, inputs, mask) as given:
        return _compared(model, mask, given)


def _compared(model: LoadedModel, mask: Tensor, given: dict[str, Tensor]) -> Tensor:
    loss = loss_of(model)
    return loss.compared(model, model.module(**given, **loss.options), mask)


def _send_sampled(
    model: LoadedModel, answered: Tensor, inputs: Inputs, mask: Tensor, generator: torch.Generator
) -> None:
    """Send the gradients of ``backward`` back from given answers."""
    traits = TASKS.get(model.task)
    if traits.answers_numbers:
        answered.backward(torch.randn(answered.shape, generator=generator).to(answered.dtype))
        return
    real = counted(answered, model, inputs, mask)
    if traits.loss == "mask_label":  # a few of the tokens: labels of the others are not drawn
        answered = answered[real][None]
        answered.backward(sampled_residual(answered.detach(), generator))
        return
    residual = sampled_residual(answered.detach(), generator)
    answered.backward(residual.mul_(real[..., None]))
