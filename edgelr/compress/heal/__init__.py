"""Heal the factors: train them, and nothing else, to answer like the dense model.

Distillation with the dense model as its own teacher: WeLore (arXiv:2407.11239) trains low-rank
components alone. What is returned is never worse on the held-out text than what was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgelr.compress.factors import FactorSet
from edgelr.compress.heal.distillation import (
    distillation_loss,
    mean_distillation_loss,
    pieces,
    shuffled_batches,
)
from edgelr.compress.heal.state import State
from edgelr.compress.heal.students import Student, student_of
from edgelr.compress.heal.training import Training, multiplies_bfloat16
from edgelr.compress.heal.values import Healed, Healing
from edgelr.core.vocabulary import Progress
from edgelr.data.calibration import Calibration
from edgelr.model.loaded import LoadedModel

if TYPE_CHECKING:
    from edgelr.compress.heal.distillation import Batch, Piece

__all__ = ["Healed", "Healing", "heal", "multiplies_bfloat16"]


@dataclass(frozen=True)
class _Distillation:
    """The student's answers compared with the teacher's.

    Attributes:
        model: dense model: the teacher, and the student with its factors installed.
        student: factors that learn.
        asked: length and kind of the training.
        judges: held-out rows.
    """

    model: LoadedModel
    student: Student
    asked: Healing
    judges: list[Piece]

    @torch.no_grad()
    def evaluate(self) -> float:
        """Mean loss of the held-out rows."""
        factors = self.student.factors()
        return mean_distillation_loss(self.model, factors, self.judges, self.asked.batch_tokens)

    def loss(self, batch: Batch) -> Tensor:
        """Loss of one batch, differentiable."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.asked.bfloat16):
            return distillation_loss(self.model, self.student.factors(), batch)


def heal(
    model: LoadedModel,
    factors: FactorSet,
    calibration: list[Calibration],
    held_out: Calibration,
    asked: Healing,
    folder: Path,
    progress: Progress,
) -> Healed:
    """Train the factors to answer like the dense model, and return their best state.

    Args:
        model: dense model; it is the teacher, and stays as it is.
        factors: products that were not pivoted; sites without factors stay dense.
        calibration: texts to train on; see ``shuffled_batches`` for how much of each.
        held_out: text that decides which state is best; some thousand tokens are enough, because an
            evaluation costs about half as much as training on it.
        asked: length and kind of the training.
        folder: folder of this very healing. One that was interrupted continues from its last
            evaluation, to the same bytes where only the steps are limited; a finished one is read.
        progress: function of ``("healing", done, total)`` in steps, else in seconds.

    Raises:
        EnvironmentProblem: an adapter was asked for, and peft is not installed.
    """
    student = student_of(factors, asked)
    distilled = _Distillation(model, student, asked, pieces(model, [held_out], asked.batch_tokens))
    if not student.parameters:
        return _unchanged(factors, distilled.evaluate(), asked)
    training = Training(student.parameters, asked, folder)
    texts = [pieces(model, [part], asked.batch_tokens) for part in calibration]
    batches = shuffled_batches(texts, asked.batch_tokens, asked.seed)
    with _frozen(model.module), torch.enable_grad():
        state = training.run(batches, distilled.loss, distilled.evaluate, progress)
    return _healed(student.graduate() if state.best_step else factors, state)


def _healed(factors: FactorSet, state: State) -> Healed:
    return Healed(
        factors=factors,
        steps=state.step,
        best_step=state.best_step,
        first_loss=state.first_loss,
        best_loss=state.best_loss,
        seconds=state.seconds,
        note=state.note,
    )


def _unchanged(factors: FactorSet, loss: float, asked: Healing) -> Healed:
    note = (
        f"None of {len(factors)} factorized linears can be trained with sites={asked.sites!r} and "
        f"adapter={asked.adapter!r}: the factors are as they were."
    )
    return Healed(factors, 0, 0, loss, loss, 0.0, note)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let no parameter of ``module`` collect gradients while the block runs."""
    asking = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        module.requires_grad_(False)
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)
