"""Give the kept components the scales that make up best for the dropped ones.

With all scales at one, the gradient of the mean divergence KL(dense || compressed) with respect to
them is known exactly: the mean of ``p_k = (x . down_k) (up_k . g)``, where ``x`` is what a linear
of the compressed model reads and ``g`` the gradient of the divergence at its output. The curvature
is the Fisher information of the compressed model (Martens, 2014, arXiv:1412.1193): the mean of
``p p^T`` for labels that are sampled from it. A step of Gauss and Newton solves

    (E[p p^T] + ridge diag E[p_k^2]) (s - 1) = -gradient

for the components of all linears together, in which each makes up for what the others dropped, too.
The solution is folded into ``up``, so that nothing grows. (Safari and Hutter, 2026,
arXiv:2606.23568, rescale the components of one linear, from the dense model.)

There are more components than tokens to learn from, and the second order holds nearby only. A ridge
bounds both; how large it has to be is not known beforehand. One Krylov space, of the least squares
without it, has the solutions for all ridges (Frommer and Maass, SIAM J. Sci. Comput. 20, 1999), so
that the caller can measure several, and step again from the best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edgelr.compress.component_gradients import Derivatives, DerivativesWriter, products_of
from edgelr.compress.compressed_model import installed
from edgelr.compress.factors import FactorSet, LowRank
from edgelr.compress.gradient_pass import gradient_pass
from edgelr.core.vocabulary import Progress
from edgelr.model.losses import Inputs, answers, backward_twice, loss_of
from edgelr.model.sites import positions

if TYPE_CHECKING:
    from edgelr.data.calibration import Calibration
    from edgelr.model.loaded import LoadedModel

LARGEST_SCALE = 2.0  # a scale beyond is noise: those of a real model are between 0.8 and 1.4
KRYLOV_STEPS = 40  # ridges of one and more need less


@dataclass(frozen=True)
class Scales:
    """Scales for every ridge: ``1 + basis^T (tridiagonal + ridge)^-1 start``, in units.

    Attributes:
        factors: factors before the step.
        columns: unknowns of every site, by its name.
        unit: unit of every unknown, ``(k,)``: the inverse root mean square of ``p_k``.
        basis: orthonormal rows, ``(steps, k)``.
        tridiagonal: matrix of the least squares in that basis, ``(steps, steps)``.
        start: length of the right side, along the first row.
    """

    factors: FactorSet
    columns: dict[str, slice]
    unit: Tensor
    basis: Tensor
    tridiagonal: Tensor
    start: float

    def shifts(self, ridge: float) -> Tensor:
        """Solve for ``s - 1`` at a ridge, ``(k,)``."""
        size = len(self.tridiagonal)
        right = torch.zeros(size, dtype=torch.float64)
        right[:1] = self.start
        regular = self.tridiagonal + ridge * torch.eye(size, dtype=torch.float64)
        shifts: Tensor = torch.linalg.solve(regular, right).float() @ self.basis
        return shifts * self.unit

    def folded(self, ridge: float) -> FactorSet:
        """Return the factors with the scales of a ridge folded into ``up``."""
        scales = (1 + self.shifts(ridge)).clamp(0, LARGEST_SCALE)
        changed = dict(self.factors)
        for name, columns in self.columns.items():
            plain = changed[name]
            assert isinstance(plain, LowRank)
            changed[name] = LowRank(plain.down, plain.up * scales[columns, None], plain.shared)
        return changed


def components(factors: FactorSet) -> int:
    """Count the unknowns: the components of every ``LowRank`` product."""
    return sum(each.down.shape[1] for each in products_of(factors).values())


def solve_step(
    model: LoadedModel,
    factors: FactorSet,
    parts: list[Calibration],
    seed: int,
    folder: Path,
    progress: Progress,
) -> Scales:
    """Solve for one step of the scales of every ``LowRank`` product; others stay.

    Args:
        model: dense model.
        factors: factors of the compressed model.
        parts: calibration texts; where there are several, each weighs by its tokens.
        seed: random seed of the sampled labels or probes.
        folder: folder of the derivatives, two bytes for every token and component; the file is
            removed at the end.
        progress: function of ``("scales", done, total)`` in tokens.
    """
    found, gradient = collect(model, factors, parts, seed, folder, progress)
    scales = least_squares(factors, found, -gradient / found.unit)
    found.path.unlink()
    return scales


def least_squares(factors: FactorSet, found: Derivatives, right: Tensor) -> Scales:
    """Solve ``(E[p p^T] + ridge E[p_k^2]) (s - 1) = right`` for every ridge.

    Args:
        factors: factors before the step.
        found: derivatives ``p``, in units of their own.
        right: right side, ``(k,)``, in the same units.
    """
    unit = 1 / found.sizes()
    basis, tridiagonal, start = krylov_space(
        lambda v: unit * found.normal(unit * v), unit * right, KRYLOV_STEPS
    )
    return Scales(factors, found.columns, unit / found.unit, basis, tridiagonal, start)


def krylov_space(
    multiply: Callable[[Tensor], Tensor], right: Tensor, steps: int
) -> tuple[Tensor, Tensor, float]:
    """Reduce a symmetric matrix to a tridiagonal one by Lanczos' method, kept orthogonal.

    Args:
        multiply: function that multiplies the matrix with ``(n,)``.
        right: first direction, ``(n,)``.
        steps: largest number of rows; fewer where nothing is left.

    Returns:
        Orthonormal rows ``(steps, n)``, the matrix in their basis, and the length of ``right``.
    """
    length = float(right.norm())
    rows = [right / max(length, torch.finfo(torch.float32).tiny)]
    diagonal, beside = [], []
    for _ in range(min(steps, len(right))):
        image = multiply(rows[-1])
        diagonal.append(float(image @ rows[-1]))
        known = torch.stack(rows)
        for _ in range(2):  # twice is enough
            image = image - (known @ image) @ known
        beside.append(float(image.norm()))
        if beside[-1] <= 1e-6 * abs(diagonal[0]):
            break
        rows.append(image / beside[-1])
    size = len(diagonal)
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for place, value in enumerate(beside[: size - 1]):
        tridiagonal[place, place + 1] = tridiagonal[place + 1, place] = value
    return torch.stack(rows[:size]), tridiagonal, length


def collect(
    model: LoadedModel,
    factors: FactorSet,
    parts: list[Calibration],
    seed: int,
    folder: Path,
    progress: Progress,
) -> tuple[Derivatives, Tensor]:
    """Write ``p`` for sampled labels, and find the gradient of the mean divergence, ``(k,)``.

    The arguments are those of ``solve_step``.
    """
    sums = _Sums(model, DerivativesWriter.into(folder, factors))
    generator = torch.Generator().manual_seed(seed)
    loss = loss_of(model)

    def send(inputs: Inputs, mask: Tensor) -> None:
        with torch.no_grad():
            compared = loss.with_few_prompts(model, generator)
            expected = answers(compared, inputs, mask)
        sums.sampled = False
        with installed(model.module, factors, sums.watch):
            backward_twice(compared, inputs, mask, expected, generator, sums.between)
        sums.writer.flush()

    gradient_pass(model, {}, lambda *_: None, parts, send, "scales", progress)
    found = sums.writer.finish()
    return found, (sums.gradient / found.rows).float()


class _Sums:
    """Derivatives of the two gradients that are sent back through every batch.

    Args:
        model: dense model.
        writer: writer of the derivatives of the second gradient, that of sampled labels.
    """

    def __init__(self, model: LoadedModel, writer: DerivativesWriter) -> None:
        self.model, self.writer = model, writer
        self.positions = positions(model.sites)
        self.gradient = torch.zeros(writer.width, dtype=torch.float64)  # of the divergence, summed
        self.sampled = False  # which of the two gradients is on its way

    def between(self) -> None:
        """Note that the first gradient is through."""
        self.sampled = True

    def watch(self, name: str, hidden: Tensor) -> None:
        """Add derivatives of a linear as soon as its first product ``hidden`` has a gradient."""
        found = hidden.detach()
        hidden.register_hook(lambda sent: self._add(name, found * sent))

    def _add(self, name: str, p: Tensor) -> None:
        """Add ``(x . down_k) (up_k . g)`` of one linear, ``(..., positions, r)``."""
        if self.sampled:
            rows = loss_of(self.model).by_row(self.model, self.positions[name], p)
            self.writer.add(name, rows)
        else:
            self.gradient[self.writer.columns[name]] += p.flatten(0, -2).sum(0).double()
