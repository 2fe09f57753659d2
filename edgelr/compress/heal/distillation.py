"""The compressed model against the dense one, on the same inputs: the loss of healing.

Teacher and student are one module: it teaches as it is, and learns with its factors installed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch

from edgelr.compress.compressed_model import installed
from edgelr.core.tasks import TASKS
from edgelr.model.losses import answers, counted, decided_tokens, loss_of

if TYPE_CHECKING:
    from torch import Tensor

    from edgelr.compress.factors import FactorSet
    from edgelr.data.calibration import Calibration
    from edgelr.model.loaded import LoadedModel

    Batch: TypeAlias = tuple[Tensor, Tensor]  # see ``losses.named_inputs``

PIECE_TOKENS = 512  # attention costs more with the length; what a factor learns, hardly


class Piece(NamedTuple):
    """A row that is learned from: token ids ``(tokens,)``, or pixels ``(3, side, side)``."""

    inputs: Tensor
    tokens: int


def pieces(model: LoadedModel, parts: list[Calibration], batch_tokens: int) -> list[Piece]:
    """Take every row without its padding; texts of encoders, and images, stay whole."""
    longest = min(PIECE_TOKENS, batch_tokens)
    rows = [
        Piece(torch.tensor(inputs), tokens)
        for part in parts
        for inputs, tokens in part.rows()
        if tokens
    ]
    if not loss_of(model).cuts_rows:
        return rows
    return [Piece(ids, len(ids)) for row in rows for ids in row.inputs.split(longest)]


def shuffled_batches(texts: list[list[Piece]], batch_tokens: int, seed: int) -> Iterator[Batch]:
    """Yield batches without end, in an order of its own in every epoch.

    Texts weigh by the roots of their lengths, as they do where Grams are added: an epoch has each
    row of the shortest once, and of a longer text as many rows, drawn anew, as its weight asks for.
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(rows: list[Piece], count: int) -> list[Piece]:
        return [rows[index] for index in torch.randperm(len(rows), generator=generator)[:count]]

    lengths = [sum(row.tokens for row in rows) for rows in texts]
    counts = [
        max(1, round(len(rows) * math.sqrt(min(lengths) / length)))
        for rows, length in zip(texts, lengths, strict=True)
    ]
    while True:
        epoch = [row for each in zip(texts, counts, strict=True) for row in drawn(*each)]
        yield from batches(drawn(epoch, len(epoch)), batch_tokens)


def batches(rows: Iterable[Piece], batch_tokens: int) -> Iterator[Batch]:
    """Group neighbours into batches of at most ``batch_tokens`` with padding, one row at least."""
    batch: list[Piece] = []
    for row in rows:
        longest = max(each.tokens for each in [*batch, row])
        if batch and longest * (len(batch) + 1) > batch_tokens:
            yield _padded(batch)
            batch = []
        batch.append(row)
    yield _padded(batch)


def _padded(rows: list[Piece]) -> Batch:
    tokens_first = [row.inputs.movedim(-1, 0) for row in rows]  # pairs of texts are (2, tokens)
    inputs = torch.nn.utils.rnn.pad_sequence(tokens_first, batch_first=True).movedim(1, -1)
    lengths = torch.tensor([row.tokens for row in rows])
    return inputs, (torch.arange(int(lengths.max())) < lengths[:, None]).long()


def distillation_loss(model: LoadedModel, factors: FactorSet, batch: Batch) -> Tensor:
    """Compare the model with ``factors`` with the dense one; a float64 scalar.

    Decoders, and models that label: mean of KL(dense || compressed) over the real tokens, or over
    the texts or images, in nats. Others: mean over the texts or images of half the squared distance
    of the two answers: of embeddings, one minus their cosine.
    """
    with torch.no_grad():
        teacher = answers(model, *batch)
    with installed(model.module, factors):
        student = answers(model, *batch)
    if not TASKS.get(model.task).answers_numbers:
        return _divergence(student.float(), teacher.float(), counted(student, model, *batch))
    return (student - teacher).square().sum(-1).mean() / 2  # 1 - cosine, without cancellation


@torch.no_grad()
def mean_distillation_loss(
    model: LoadedModel, factors: FactorSet, rows: list[Piece], batch_tokens: int
) -> float:
    """Average ``distillation_loss`` over tokens, texts or images."""
    total, count = 0.0, 0
    for inputs, mask in batches(rows, batch_tokens):
        decided = decided_tokens(model, inputs, mask)
        units = len(inputs) if TASKS.get(model.task).by_row else int(decided.sum())
        total += units * float(distillation_loss(model, factors, (inputs, mask)))
        count += units
    return total / count


def _divergence(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    loss: Tensor = _Divergence.apply(student, teacher, real)  # type: ignore[no-untyped-call]
    return loss


class _Divergence(torch.autograd.Function):
    """Mean of KL(teacher || student) over real tokens, with its gradient in closed form.

    The gradient ``softmax(student) - softmax(teacher)`` overwrites the teacher's logits: with a
    large vocabulary, the copies that autograd keeps would be most of the memory.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
        """Sum row by row: ``student`` and ``teacher`` (rows, length, vocabulary)."""
        total = torch.zeros((), dtype=torch.float64)
        tokens = real.sum()
        for ours, theirs, counts in zip(student, teacher, real, strict=True):
            log_ours, log_theirs = ours.log_softmax(-1), theirs.log_softmax(-1)
            wanted = log_theirs.exp()
            losses = (wanted * (log_theirs - log_ours)).sum(-1)  # (length,)
            total += losses[counts].double().sum()
            theirs.copy_(log_ours.exp_().sub_(wanted).mul_(counts[:, None] / tokens))
        ctx.residual = teacher
        return total / tokens

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Scale the residual."""
        return ctx.residual.mul_(gradients[0]), None, None
