"""What two models are compared by, in torch: unit embeddings, or logits of one label each.

Logits come as ``(rows, decisions, classes)``: a decision is a token, or the one label of a text
or an image; where these may have several labels, each of them is a decision between yes and no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import torch
from torch import nn
from torch.nn import functional

from edgelr.core.inputs import Pair, Prompts
from edgelr.core.tasks import TASKS, decides_each_label

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from edgelr.model.loaded import LoadedModel

Inputs: TypeAlias = Union["Tensor", Pair]

SAMPLED_TOKENS = 128  # drawing labels copies the probabilities
PROMPT_TOKENS = 1024  # that an image is compared with at once, where gradients are taken


def as_tensors(inputs: NDArray[Any] | Pair, mask: NDArray[Any]) -> tuple[Inputs, Tensor]:
    """Turn what a calibration yields into tensors."""
    if not isinstance(inputs, Pair):
        return torch.tensor(inputs), torch.tensor(mask)
    arrays = (inputs.source, inputs.source_mask, inputs.target)
    return Pair(*map(torch.tensor, arrays)), torch.tensor(mask)


def named_inputs(model: LoadedModel, inputs: Inputs, mask: Tensor) -> dict[str, Tensor]:
    """Name the arguments of a forward pass: of token ids with their mask, of pixels, or of a pair.

    Args:
        model: tells what it reads.
        inputs: token ids ``(rows, length)``, or pixels ``(rows, 3, side, side)``; or a pair.
        mask: ``(rows, length)``, 1 for real tokens; an image has no others. Of a pair, for those
            that are predicted: a decoder never looks ahead, at what is padding.
    """
    if isinstance(inputs, Pair):
        source = source_inputs(model, inputs.source, inputs.source_mask)
        return {**source, "decoder_input_ids": inputs.target[:, :-1]}
    if model.image is not None:
        return {"pixel_values": inputs, **_named_prompts(model)}
    return {"input_ids": inputs, "attention_mask": mask}


def source_inputs(model: LoadedModel, source: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Name what the encoder of a pair reads: texts with their mask, or sounds, of one length."""
    if model.sound is not None:
        return {"input_features": source}
    return {"input_ids": source, "attention_mask": mask}


def _named_prompts(model: LoadedModel) -> dict[str, Tensor]:
    """Name the arguments that are the same for every image; most models have none."""
    if model.prompts is None:
        return {}
    assert model.matching is not None
    ids, mask = torch.as_tensor(model.prompts.ids), torch.as_tensor(model.prompts.mask)
    return (
        {"input_ids": ids} if model.matching.padded else {"input_ids": ids, "attention_mask": mask}
    )


def with_few_prompts(model: LoadedModel, generator: torch.Generator) -> LoadedModel:
    """Draw some of the prompts where they are many: an image is compared with all at once."""
    if model.prompts is None:
        return model
    count, length = model.prompts.ids.shape
    most = max(2, PROMPT_TOKENS // length)
    if count <= most:
        return model
    drawn = torch.randperm(count, generator=generator)[:most].numpy()
    few = Prompts(model.prompts.ids[drawn], model.prompts.mask[drawn])
    return replace(model, prompts=few)


def _differentiable_inputs(model: LoadedModel, inputs: Inputs, mask: Tensor) -> dict[str, Tensor]:
    """The same arguments, of which one wants a gradient: parameters want none."""
    if isinstance(inputs, Pair):
        return named_inputs(model, inputs, mask)  # see ``_embedding_gradients``
    if model.image is not None:
        return {"pixel_values": inputs.detach().requires_grad_(), **_named_prompts(model)}
    embed: nn.Module = model.module.get_input_embeddings()  # type: ignore[operator]
    return {"inputs_embeds": embed(inputs).requires_grad_(), "attention_mask": mask}


@contextmanager
def _embedding_gradients(module: nn.Module) -> Iterator[None]:
    """Let what every table of embeddings gives want a gradient while the block runs."""

    def want(_module: nn.Module, _args: Any, output: Tensor) -> None:
        output.requires_grad_()

    tables = (each for each in module.modules() if isinstance(each, nn.Embedding))
    handles = [table.register_forward_hook(want) for table in tables]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def answers(model: LoadedModel, inputs: Inputs, mask: Tensor) -> Tensor:
    """Run a batch; the arguments are those of ``named_inputs``.

    Returns:
        Logits ``(rows, decisions, classes)``, or unit embeddings ``(rows, hidden)`` in float64.
    """
    return _compared(model, mask, named_inputs(model, inputs, mask))


def counted(answered: Tensor, model: LoadedModel, inputs: Inputs, mask: Tensor) -> Tensor:
    """Tell which decisions have a loss, ``(rows, decisions)``; an embedding counts once."""
    if TASKS.get(model.task).by_row:
        return torch.ones(answered.shape[:-1], dtype=torch.bool)
    return decided_tokens(model, inputs, mask)


def decided_tokens(model: LoadedModel, inputs: Inputs, mask: Tensor) -> Tensor:
    """Tell which tokens have a loss, ``(rows, length)``: no padding, or only what is masked."""
    real = mask.bool()
    return real if model.mask_token is None else real & (inputs == model.mask_token)


def backward(model: LoadedModel, inputs: Inputs, mask: Tensor, generator: torch.Generator) -> None:
    """Send back gradients whose second moment is the Fisher information of the model.

    Logits: the gradient of the cross entropy against labels sampled from the model itself,
    ``p - onehot(label)``; labels from data would give the empirical Fisher instead. Embedding: an
    encoder has no head, and what its users compare are pooled, normalized embeddings. Read as the
    mean of a Gaussian of unit variance, an embedding ``e`` has the Fisher ``J^T J``, and the
    gradients ``J^T noise`` of ``<e, noise>`` have just that moment; the predicted loss is then
    half the squared distance of the embeddings, which is one minus their cosine. Prompts: labels
    are sampled from the softmax over them, also where every pair has a probability of its own:
    what is judged is the choice.
    """
    model = with_few_prompts(model, generator)
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
        model: what is differentiated.
        inputs: of a batch.
        mask: of it.
        expected: what another model answers to the batch: see ``answers``.
        generator: of the sampled labels or probes.
        between: called after the first.
    """
    answered = _differentiable(model, inputs, mask)
    found = answered.detach()
    if TASKS.get(model.task).loss == "embedding":
        residual = found - expected
    else:
        real = counted(answered, model, inputs, mask)
        residual = (found.softmax(-1) - expected.softmax(-1)).mul_(real[..., None])
    answered.backward(residual, retain_graph=True)
    between()
    _send_sampled(model, answered, inputs, mask, generator)


def _differentiable(model: LoadedModel, inputs: Inputs, mask: Tensor) -> Tensor:
    """Run a batch so that its answers can be sent back."""
    tables = isinstance(inputs, Pair) or model.prompts is not None
    with _embedding_gradients(model.module) if tables else nullcontext():
        return _compared(model, mask, _differentiable_inputs(model, inputs, mask))


def _send_sampled(
    model: LoadedModel, answered: Tensor, inputs: Inputs, mask: Tensor, generator: torch.Generator
) -> None:
    """Send back what ``backward`` describes, from what it answered."""
    if TASKS.get(model.task).loss == "embedding":
        answered.backward(torch.randn(answered.shape, generator=generator).to(answered.dtype))
        return
    real = counted(answered, model, inputs, mask)
    if model.mask_token is not None:  # a few of the tokens: labels of the others are not drawn
        answered = answered[real][None]
        answered.backward(_sampled_residual(answered.detach(), generator))
        return
    residual = _sampled_residual(answered.detach(), generator)
    answered.backward(residual.mul_(real[..., None]))


def pool(hidden: Tensor, mask: Tensor, pooling: str | None) -> Tensor:
    """Pool ``(batch, tokens, hidden)`` to ``(batch, hidden)`` over the real tokens."""
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def divergence(found: Tensor, expected: Tensor) -> Tensor:
    """KL(expected || found) of logits ``(..., classes)``, in nats."""
    wanted = expected.double().log_softmax(-1)
    return (wanted.exp() * (wanted - found.double().log_softmax(-1))).sum(-1)


def total_variation(found: Tensor, expected: Tensor) -> Tensor:
    """Half the absolute difference of the probabilities of logits ``(..., classes)``."""
    return (found.softmax(-1) - expected.softmax(-1)).abs().sum(-1) / 2


def decisions_per_row(model: LoadedModel) -> int:
    """Count what is decided about a text or an image: one label, or each of them."""
    config: Any = model.module.config
    if TASKS.get(model.task).loss != "label":
        return 1
    several = decides_each_label(config.problem_type, config.num_labels)
    return int(config.num_labels) if several else 1


def _compared(model: LoadedModel, mask: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    traits = TASKS.get(model.task)
    options = {"use_cache": False} if traits.loss.endswith("_token") else {}
    output = model.module(**inputs, **options)
    found: Tensor = getattr(output, traits.output)
    if traits.loss == "embedding":  # float64: cosines near 1 are compared
        return functional.normalize(pool(found, mask, model.pooling).double(), dim=-1)
    if traits.loss == "choice":
        return found[:, None]
    if traits.loss != "label":
        return found
    config: Any = model.module.config
    if decides_each_label(config.problem_type, config.num_labels):
        return torch.stack((found, torch.zeros_like(found)), dim=-1)
    return found[:, None]


def _sampled_residual(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Probabilities minus one-hot labels drawn from them, the shape of ``logits``."""
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
