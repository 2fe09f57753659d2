"""Give the kept components their best scales, so that they make up for the dropped ones.

The closed-form relative of learned importance (Safari and Hutter, 2026, arXiv:2606.23568), for
factors that are chosen already, and for those of all linears at once. At one token, the derivative
of the loss with respect to the scale of component ``k`` is ``p_k = (x . down_k) (up_k . g)``, ``g``
the gradient of the loss at the linear's output, and that with respect to all that was dropped is
``q``, the sum of ``g . (W - W') x`` over the linears. To second order the scales ``s`` cost
``1/2 E[(q - sum_k (s_k - 1) p_k)^2]``: least squares with one unknown per component, in which every
linear makes up for what the others dropped, too. The solution is folded into ``up``, so that
nothing grows.

There are more components than tokens to learn from, and the second order holds near the dense model
only. A ridge ``lambda sum_k E[p_k^2] (s_k - 1)^2`` bounds both; how large it has to be is not known
beforehand. One Krylov space, of the least squares without it, has the solutions for all ridges
(Frommer and Maass, SIAM J. Sci. Comput. 20, 1999), so that the caller can measure several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from edgelr.convolutions import features_last, first_product
from edgelr.factors import FactorSet, LowRank
from edgelr.statistics import fisher_pass
from edgelr.tasks import TASKS

if TYPE_CHECKING:
    from edgelr.calibration import Calibration
    from edgelr.types import LoadedModel

Progress = Callable[[str, int, int], None]

LARGEST_SCALE = 2.0  # a scale beyond is noise: those of a real model are between 0.8 and 1.4
KRYLOV_STEPS = 40  # ridges of one and more need less
PIECE_NUMBERS = 2**24  # of derivatives, that are in memory at once
LARGEST_STORED = 60000.0  # just below what float16 holds
_FILE = "derivatives.float16"


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
    return sum(each.down.shape[1] for each in _products(factors).values())


def _products(factors: FactorSet) -> dict[str, LowRank]:
    """The factors that have components to scale."""
    return {name: each for name, each in factors.items() if isinstance(each, LowRank)}


def solve_scales(
    model: LoadedModel,
    factors: FactorSet,
    parts: list[Calibration],
    seed: int,
    folder: Path,
    progress: Progress,
    positions: Mapping[str, float] | None = None,
) -> Scales:
    """Solve for the scales of the components of every ``LowRank`` product; others stay.

    Args:
        model: dense; its gradients are those of the Fisher information, as in ``statistics``.
        factors: products, as ``truncate`` makes them.
        parts: calibration texts; where there are several, each weighs by its tokens.
        seed: of the sampled labels or probes.
        folder: receives the derivatives, two bytes for every token and component, while it runs.
        progress: called with ``("scales", done, total)`` in tokens.
        positions: how often a site runs for each token, see ``LinearSite``; once where none says.
    """
    found = _collect(model, factors, parts, seed, folder, progress, positions or {})
    unit = 1 / found.sizes()
    basis, tridiagonal, start = krylov_space(
        lambda v: unit * found.normal(unit * v), unit * found.right(), KRYLOV_STEPS
    )
    folded = unit / found.unit  # derivatives are stored in a unit of their own
    (folder / _FILE).unlink()
    return Scales(factors, found.columns, folded, basis, tridiagonal, start)


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


@dataclass
class _Derivatives:
    """Derivatives of the loss at every token, or text, in a file.

    Attributes:
        path: of ``p / unit``, ``(rows, k)`` float16.
        columns: of every site in it.
        unit: about the root mean square of every ``p_k``, ``(k,)``.
        dropped: ``q``, ``(rows,)``.
    """

    path: Path
    columns: dict[str, slice]
    unit: Tensor
    dropped: Tensor

    def pieces(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``p / unit`` and ``q`` of as many rows as fit in memory."""
        width, rows = len(self.unit), len(self.dropped)
        stored = np.memmap(self.path, np.float16, "r", shape=(rows, width))
        step = max(1, PIECE_NUMBERS // width)
        for start in range(0, rows, step):
            piece = torch.from_numpy(stored[start : start + step].astype(np.float32))
            yield piece, self.dropped[start : start + step]

    def mean(self, of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Mean over the rows of what ``of`` sums over the rows of a piece, ``(k,)``."""
        total = torch.zeros(len(self.unit))
        for piece, dropped in self.pieces():
            total += of(piece, dropped)
        return total / len(self.dropped)

    def sizes(self) -> Tensor:
        """Root mean square of every column, ``(k,)``."""
        squares = self.mean(lambda p, _: p.square().sum(0))
        return squares.sqrt().clamp_min(torch.finfo(torch.float16).tiny)

    def normal(self, v: Tensor) -> Tensor:
        """Mean of ``p p^T v``."""
        return self.mean(lambda p, _: p.T @ (p @ v))

    def right(self) -> Tensor:
        """Mean of ``p q``."""
        return self.mean(lambda p, q: p.T @ q)


@dataclass
class _Writer:
    """Adds up what the linears have for the rows of a batch, and writes it.

    Attributes:
        file: receives ``p / unit``.
        width: of a row.
        unit: from the first batch, ``(k,)``.
        p: of the running batch, ``(rows, k)``.
        dropped: ``q`` of every batch, ``(rows,)`` each; that of the running one comes last.
    """

    file: BinaryIO
    width: int
    unit: Tensor | None = None
    p: Tensor | None = None
    dropped: list[Tensor] = field(default_factory=list)

    def add(self, p: Tensor, q: Tensor, columns: slice) -> None:
        """Add ``p (rows, r)`` and ``q (rows,)`` of one linear."""
        if self.p is None:
            self.p = torch.zeros(len(p), self.width)
            self.dropped.append(torch.zeros(len(p)))
        self.p[:, columns] = p
        self.dropped[-1] += q

    def flush(self) -> None:
        """Write the batch that every linear has added to."""
        assert self.p is not None
        if self.unit is None:
            size = self.p.square().mean(0).sqrt()
            self.unit = size.clamp_min(max(1e-6 * float(size.max()), 1e-30))
        stored = (self.p / self.unit).clamp(-LARGEST_STORED, LARGEST_STORED).half()
        self.file.write(stored.numpy().tobytes())
        self.p = None


def _collect(
    model: LoadedModel,
    factors: FactorSet,
    parts: list[Calibration],
    seed: int,
    folder: Path,
    progress: Progress,
    positions: Mapping[str, float],
) -> _Derivatives:
    """Write the derivatives of every token of a decoder, or every text of an encoder."""
    products = _products(factors)
    columns, width = {}, 0
    for name, each in products.items():
        columns[name] = slice(width, width := width + each.down.shape[1])
    image = model.image
    whole = TASKS[model.task].by_row or TASKS[model.task].has_pairs  # positions of two lengths
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _FILE).open("wb") as file:
        writer = _Writer(file, width)

        def add(name: str, module: nn.Module, x: Tensor, plain: Tensor, gradient: Tensor) -> None:
            gradient = features_last(module, gradient)
            p = first_product(module, x, products[name].down) * (gradient @ products[name].up.T)
            q = (gradient * plain).sum(-1) - p.sum(-1)
            if image is not None:  # windows of it lie one after another
                each = round(image.tokens * positions.get(name, 1.0))
                if model.prompts is not None:  # one image at a time, and what it is compared with
                    each = q.numel()
                p, q = p.reshape(-1, each, p.shape[-1]), q.reshape(-1, each)
            p, q = (p.sum(1), q.sum(1)) if whole else (p.flatten(0, -2), q.flatten())
            writer.add(p, q, columns[name])

        def watch(name: str, module: nn.Module, x: Tensor, output: Tensor) -> None:
            assert isinstance(module, (nn.Linear, nn.Conv2d))
            plain, x = features_last(module, output.detach()), x.detach()
            if module.bias is not None:
                plain = plain - module.bias
            output.register_hook(lambda gradient: add(name, module, x, plain, gradient))

        def written(what: str, done: int, total: int) -> None:
            writer.flush()
            progress(what, done, total)

        generator = torch.Generator().manual_seed(seed)
        modules = {name: model.module.get_submodule(name) for name in products}
        fisher_pass(model, modules, watch, parts, generator, "scales", written)
    assert writer.unit is not None
    return _Derivatives(folder / _FILE, columns, writer.unit, torch.cat(writer.dropped))
