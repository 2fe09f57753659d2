"""SoCo: a learned score for every component of every linear (Li et al., 2025, arXiv:2502.15092).

The scores ``s`` scale the components of an SVD, ``W' = U (Sigma * s) V^T`` with
``s = 2 sigmoid(theta)``, and are trained together to answer like the dense model, in three stages:
coarse compression under a budget; refinement, in turns, of the scores below the threshold and of
those above it; sparsification, where the scores below go to zero and the others, which may exceed
one, make up for them. Then ``s`` is folded into ``up``.

No code was released. Ours: distances are shares of what is lost without any component; the budget
acts through a price per parameter, which is steered until the threshold that fits the budget is
half the score of a dense component; components are ordered by their scores before the
sparsification, which still tell how much those above the threshold matter; and a linear that would
not be smaller than dense takes no part in the sparsification, as it will stay dense in the plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from edgelr.compress.factors import Decomposition
from edgelr.compress.heal.distillation import distillation_loss, pieces, shuffled_batches
from edgelr.compress.importance.components import AllComponents, side_by_side
from edgelr.compress.methods.metric import tail_loss
from edgelr.compress.spectra import SpectrumTable, write_spectrum
from edgelr.core.vocabulary import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from edgelr.compress.heal.distillation import Batch
    from edgelr.data.calibration import Calibration
    from edgelr.model.loaded import LoadedModel

STEPS = 60  # of all stages: a score goes from one to nearly zero within forty
BATCH_TOKENS = 512
KEEP = 0.8  # share of the parameters to aim at where none is known
MOST_KEPT = 0.95  # a training that may keep everything learns nothing
COARSE, REFINED = 1 / 3, 2 / 3  # shares of the steps after which the first two stages end
RATE, BETAS = 0.1, (0.9, 0.99)  # of Adam, which moves theta by about the rate in every step
HALF = 0.5  # where the threshold is steered to, and the width of the gate around it
FIRST_PRICE = 3e-3  # of all parameters; the result hardly depends on it, it doubles in two steps
GAIN, LEAD = 0.8, 1 / RATE  # of the price; the scores follow it about so many steps later
DEVIATION = 0.01  # weight of (s - 1)^2: it holds the scores that the distance does not feel


@dataclass(frozen=True)
class Schedule:
    """Length and aim of the training of the scores.

    Attributes:
        keep: share of the parameters that the training aims at, at most ``MOST_KEPT``.
        seed: random seed of the order of the texts.
        steps: steps of all three stages together.
    """

    keep: float = KEEP
    seed: int = 0
    steps: int = STEPS


@dataclass(frozen=True)
class Learned:
    """Scores and scales of all components side by side.

    Attributes:
        scores: importance of each component, ``(n,)``: those of the refinement.
        scales: factor of each component, ``(n,)``: those of the sparsification.
        threshold: score above which components are kept.
    """

    scores: Tensor
    scales: Tensor
    threshold: float


def learn_importance(
    model: LoadedModel,
    spectra: SpectrumTable,
    parts: list[Calibration],
    schedule: Schedule,
    folder: Path,
    progress: Progress,
) -> None:
    """Write the decomposition of every site into ``folder``, scaled, in the order of the scores.

    The loss of a rank is half the sum of the squared scores that it drops, so that the threshold
    of an allocator on singular values is one on scores. Full rank is not the dense weight.

    Args:
        model: dense model; it is the teacher, and stays as it is.
        spectra: nested decompositions of single sites.
        parts: calibration texts; where there are several, each weighs by its tokens.
        schedule: length and aim of the training.
        folder: folder that ``read_spectra`` reads.
        progress: function of ``("component importance", done, total)`` in steps.
    """
    components = side_by_side(spectra)
    texts = [pieces(model, parts, BATCH_TOKENS)]
    batches = shuffled_batches(texts, BATCH_TOKENS, schedule.seed)
    training = ScoreTraining(model, components, schedule.keep, batches)
    learned = training.run(schedule.steps, progress)
    scales, scores = components.split(learned.scales), components.split(learned.scores)
    for name, site in components.sites.items():
        order = scores[name].argsort(descending=True, stable=True)
        down = site.down[:, order].contiguous()
        up = (site.up * scales[name][:, None])[order].contiguous()
        loss = tail_loss(scores[name][order].double().square())
        write_spectrum(folder, name, Decomposition(down, up, loss))


class ScoreTraining:
    """The scores while they are learned, and the price of a parameter.

    Args:
        model: dense model.
        components: components whose scores are learned.
        keep: share of the parameters that may be kept, at most ``MOST_KEPT``.
        batches: batches of text, without end.
    """

    def __init__(
        self, model: LoadedModel, components: AllComponents, keep: float, batches: Iterator[Batch]
    ) -> None:
        self.model, self.components, self.batches = model, components, batches
        self.allowed = min(keep, MOST_KEPT) * float(components.dense.sum())
        self.theta = torch.zeros(len(components.owner), requires_grad=True)
        self.optimizer = torch.optim.Adam([self.theta], lr=RATE, betas=BETAS)
        self.price, self.threshold = FIRST_PRICE, 1.0
        self.none_dense = torch.zeros(len(components.dense), dtype=torch.bool)
        with torch.no_grad():  # the unit of every distance
            nothing = torch.zeros_like(self.theta)
            self.lost = float(self._distance(nothing, self.none_dense, next(batches)))

    def scores(self) -> Tensor:
        """Map theta to the scores, ``(n,)``; all of them are one at first."""
        return 2 * self.theta.sigmoid()

    def run(self, steps: int, progress: Progress) -> Learned:
        """Go through the three stages."""
        coarse, refined = round(COARSE * steps), round(REFINED * steps)
        for step in range(refined):
            self._compress(step if step >= coarse else None)
            progress("component importance", step + 1, steps)
        scores, threshold = self.scores().detach(), self.threshold
        kept = scores > threshold
        dense = self.components.dense_sites(kept)
        if not dense.all():
            for step in range(refined, steps):
                self._sparsify(kept, dense)
                progress("component importance", step + 1, steps)
        return Learned(scores, self.scores().detach(), threshold)

    def objective(self, scores: Tensor, batch: Batch) -> Tensor:
        """Weigh the distance to the dense model, the expected parameters, and the deviation."""
        gates = ((scores - HALF) / HALF).sigmoid()
        expected = (gates * self.components.cost).sum() / self.components.dense.sum()
        deviation = (scores - 1).square().mean()
        distance = self._distance(scores, self.none_dense, batch) / self.lost
        return distance + self.price * expected + DEVIATION * deviation

    def _compress(self, turn: int | None) -> None:
        """Move all scores, or in even turns those below the threshold, in odd ones the others."""
        below = self.scores().detach() < self.threshold
        moved = torch.ones_like(below) if turn is None else below if turn % 2 == 0 else ~below
        with torch.enable_grad():
            self._step(self.objective(self.scores(), next(self.batches)), moved)
        self._steer()

    def _steer(self) -> None:
        """Raise the price while the threshold is, and goes on to be, above a half; or lower it."""
        before = self.threshold
        self.threshold = self.components.threshold(self.scores().detach(), self.allowed)
        ahead = self.threshold + LEAD * (self.threshold - before)
        self.price *= math.exp(GAIN * (ahead - HALF))

    def _sparsify(self, kept: Tensor, dense: Tensor) -> None:
        """Move the scores of dropped components to zero; the others of a site make up for it."""
        ours = ~dense[self.components.owner]
        with torch.enable_grad():
            scores = self.scores()
            distance = self._distance(scores, dense, next(self.batches)) / self.lost
            deviation = (scores - kept.float()).square() * torch.where(kept, DEVIATION, 1.0)
            self._step(distance + deviation[ours].mean(), ours)

    def _step(self, loss: Tensor, moved: Tensor) -> None:
        """Update theta where ``moved (n,)``; elsewhere Adam's momentum would go on."""
        (gradient,) = torch.autograd.grad(loss, self.theta)
        before = self.theta.detach().clone()
        self.theta.grad = gradient * moved
        self.optimizer.step()
        with torch.no_grad():
            self.theta.copy_(torch.where(moved, self.theta, before))

    def _distance(self, scores: Tensor, dense: Tensor, batch: Batch) -> Tensor:
        factors = self.components.factors(scores, dense)
        return distillation_loss(self.model, factors, batch)
