"""Give the kept components the scales that make up best for what was dropped.

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

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edgelr.compress.component_gradients import Derivatives, DerivativesWriter, by_row, products_of
from edgelr.compress.compressed_model import installed
from edgelr.compress.factors import FactorSet, LowRank
from edgelr.compress.statistics import gradient_pass
from edgelr.core.vocabulary import Progress
from edgelr.model.losses import Inputs, answers, backward_twice, with_few_prompts

if TYPE_CHECKING:
    from edgelr.data.calibration import Calibration
    from edgelr.model.loaded import LoadedModel


LARGEST_SCALE = 2.0  # a scale beyond is noise: those of a real model are between 0.8 and 1.4
KRYLOV_STEPS = 40  # ridges of one and more need less


@dataclass(frozen=True)
class Scales:
    """Scales for every ridge: ``1 + basis^T (tridiagonal + ridge)^-1 start``, in units.

    Attributes:
        factors: before.
        columns: of the unknowns of every site, by its name.
        unit: of every unknown, ``(k,)``: the inverse root mean square of ``p_k``.
        basis: orthonormal rows, ``(steps, k)``.
        tridiagonal: the least squares in that basis, ``(steps, steps)``.
        start: length of its right side, along the first row.
    """

    factors: FactorSet
    columns: dict[str, slice]
    unit: Tensor
    basis: Tensor
    tridiagonal: Tensor
    start: float

    def shifts(self, ridge: float) -> Tensor:
        """Solve for ``s - 1``, ``(k,)``, at a ridge."""
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
    positions: Mapping[str, float] | None = None,
) -> Scales:
    """Solve for one step of the scales of every ``LowRank`` product; others stay.

    Args:
        model: dense.
        factors: of the compressed model.
        parts: calibration texts; where there are several, each weighs by its tokens.
        seed: of the sampled labels or probes.
        folder: receives the derivatives, two bytes for every token and component, while it runs.
        progress: called with ``("scales", done, total)`` in tokens.
        positions: how often a site runs for each token, see ``LinearSite``; once where none says.
    """
    found, gradient = collect(model, factors, parts, seed, folder, progress, positions or {})
    scales = least_squares(factors, found, -gradient / found.unit)
    found.path.unlink()
    return scales


def least_squares(factors: FactorSet, found: Derivatives, right: Tensor) -> Scales:
    """Solve ``(E[p p^T] + ridge E[p_k^2]) (s - 1) = right`` for every ridge.

    Args:
        factors: before.
        found: ``p``, in units of its own.
        right: ``(k,)``, in the same units.
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
        multiply: the matrix, applied to ``(n,)``.
        right: the first direction, ``(n,)``.
        steps: at most; fewer where nothing is left.

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
    positions: Mapping[str, float],
) -> tuple[Derivatives, Tensor]:
    """Write ``p`` for sampled labels, and find the gradient of the mean divergence, ``(k,)``.

    The arguments are those of ``solve_step``.
    """
    writer = DerivativesWriter.into(folder, factors)
    gradient = torch.zeros(writer.width, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    sampled = False  # which of the two gradients of a batch is on its way

    def add(name: str, hidden: Tensor, sent: Tensor) -> None:
        p = hidden * sent  # (x . down_k) (up_k . g)
        if sampled:
            writer.add(name, by_row(model, positions.get(name, 1.0), p))
        else:
            gradient[writer.columns[name]] += p.flatten(0, -2).sum(0).double()

    def watch(name: str, hidden: Tensor) -> None:
        found = hidden.detach()
        hidden.register_hook(lambda sent: add(name, found, sent))

    def send(inputs: Inputs, mask: Tensor) -> None:
        nonlocal sampled
        with torch.no_grad():
            compared = with_few_prompts(model, generator)
            expected = answers(compared, inputs, mask)
        sampled = False
        with installed(model.module, factors, watch):
            backward_twice(compared, inputs, mask, expected, generator, between)
        writer.flush()

    def between() -> None:
        nonlocal sampled
        sampled = True

    gradient_pass(model, {}, lambda *_: None, parts, send, "scales", progress)
    found = writer.finish()
    return found, (gradient / found.rows).float()
