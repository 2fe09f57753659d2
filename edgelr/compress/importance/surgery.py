"""SVD-Surgeon: which components to drop, and how to rescale the others, in closed form.

Optimal brain surgery (Hassibi and Stork, 1992) in the basis of a decomposition (Safari and Hutter,
2026, arXiv:2606.23568). Let component ``k`` of a linear be scaled by ``s_k``: all of them by one is
the dense weight. At one token the derivative of the loss with respect to ``s_k`` is
``p_k = (x . down_k) (up_k . g)``, ``g`` the gradient of the loss at the linear's output, so that
``F = E[p p^T]`` is the Fisher information of the scales. Dropping the components ``C`` and giving
the kept ones ``S`` their best scales ``s_S = 1 + F_SS^-1 F_SC 1`` costs, to second order,
``1/2 1^T (F_CC - F_CS F_SS^-1 F_SC) 1``: less than dropping alone, and in units of the loss.

Ours: one order of the components, that of a backward elimination, serves every rank; and ``F`` is
shrunk towards its diagonal by as much as its own noise asks for, so that few tokens promise little.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgelr.compress.factors import Decomposition, Reweighted
from edgelr.compress.gradient_pass import fisher_pass
from edgelr.compress.grams import add_gram, mirrored
from edgelr.compress.importance.components import nested
from edgelr.compress.methods.metric import tail_loss
from edgelr.compress.spectra import SpectrumTable, write_spectrum
from edgelr.core.vocabulary import Array, Progress
from edgelr.model.convolutions import features_last, first_product
from edgelr.model.sites import positions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgelr.data.calibration import Calibration
    from edgelr.model.loaded import LoadedModel

LEAST_SHRINKAGE = 0.01  # the inverse stays bounded even where components are copies of each other
FLOOR = 1e-12  # of what components cost, for those that cost nothing: pruned weights have them
AT_ONCE, FEW = 8, 64  # eight components are eliminated at once until 64 are left, then each alone


@dataclass
class _Sums:
    """Sums over the tokens of one site.

    Attributes:
        gram: sum of ``p p^T``, ``(k, k)``, upper panels only.
        pairs: sum of ``p_i^2 p_j^2`` over all pairs of different components.
    """

    gram: Tensor
    pairs: float = 0.0

    def add(self, p: Tensor) -> None:
        """Add ``p (tokens, k)``."""
        add_gram(self.gram, p)
        self.pairs += pair_products(p)

    def fisher(self, tokens: int) -> Tensor:
        """Estimate ``E[p p^T]``, correlations shrunk, ``(k, k)`` in float64."""
        mean = mirrored(self.gram).double() / tokens
        return shrunk(mean, self.pairs / tokens, tokens)


def collect_importance(
    model: LoadedModel,
    spectra: SpectrumTable,
    parts: list[Calibration],
    units_per_token: float,
    folder: Path,
    seed: int,
    progress: Progress,
) -> None:
    """Write the decomposition of every site into ``folder``, reweighted, in order of importance.

    Args:
        model: model in float32.
        spectra: nested decompositions of single sites.
        parts: calibration texts; where there are several, each weighs by its tokens.
        units_per_token: losses per token, see ``SiteStatistics``.
        folder: folder that ``read_spectra`` reads.
        seed: random seed of the sampled labels or probes.
        progress: function of ``("component importance", done, total)`` in tokens, then of
            ``("component order", done, total)`` in sites.
    """
    sums = _summed(model, spectra, parts, seed, progress)
    tokens, per_token = sum(part.tokens for part in parts), positions(model.sites)
    for done, name in enumerate(spectra.loss, start=1):
        plain = nested(spectra, name)
        unit = _units(plain)
        units = unit[:, None] * unit / (units_per_token / per_token[name])
        fisher = sums.pop(name).fisher(round(tokens * per_token[name])) * units
        write_spectrum(folder, name, reweighted(plain, fisher))
        progress("component order", done, len(spectra.loss))


def reweighted(plain: Decomposition, fisher: Tensor) -> Reweighted:
    """Order components by importance, with the loss of every number of kept ones.

    With ``F = L L^T`` in that order, keeping ``r`` components and giving them their best scales
    costs half the squared sums of the columns of ``L`` from ``r`` on: the Schur complement of a
    leading block is the product of what is left of ``L``.

    Args:
        plain: decomposition of one site.
        fisher: Fisher information of the scales, ``(k, k)``, positive definite, float64.
    """
    order = torch.from_numpy(elimination_order(fisher.numpy()))
    root = torch.linalg.cholesky(fisher[order][:, order])
    down, up = plain.down[:, order].contiguous(), plain.up[order].contiguous()
    return Reweighted(down, up, root, tail_loss(root.sum(0).square()))


def elimination_order(fisher: Array) -> Array:
    """Order components by backward elimination, the one that is eliminated last first.

    Eliminating component ``i`` costs ``1/2 s_i^2 / [F_SS^-1]_ii`` at the best scales ``s`` of the
    components ``S`` that are left. The inverse loses the rows of what goes by a downdate.

    Args:
        fisher: Fisher information of the scales, ``(k, k)``, positive definite.
    """
    size = np.sqrt(fisher.diagonal())  # correlations are inverted: their size is one
    inverse = np.linalg.inv(fisher / (size[:, None] * size))
    scaled = size.copy()  # best scales of what is left, times their sizes
    left, gone = np.arange(len(fisher)), []
    while len(left):
        costs = scaled**2 / inverse.diagonal()
        ranking = np.argsort(-costs, kind="stable")
        count = AT_ONCE if len(left) > FEW else 1
        stay, go = np.sort(ranking[:-count]), ranking[-count:]
        across = np.linalg.solve(inverse[np.ix_(go, go)], inverse[go])  # (count, left)
        scaled = (scaled - scaled[go] @ across)[stay]
        inverse = inverse[np.ix_(stay, stay)] - inverse[np.ix_(stay, go)] @ across[:, stay]
        gone.append(left[go][::-1])
        left = left[stay]
    return np.concatenate(gone)[::-1].astype(np.int64)


def shrunk(mean: Tensor, pairs: float, tokens: int) -> Tensor:
    """Shrink the entries beside the diagonal by the share of them that is noise.

    An entry has the variance ``(E[p_i^2 p_j^2] - F_ij^2) / tokens``; summed over all entries and
    divided by their squares that is the shrinkage of least expected error (Ledoit and Wolf, 2004;
    Schaefer and Strimmer, 2005, with unequal variances as the target).

    Args:
        mean: mean of ``p p^T`` over the tokens, ``(k, k)``, float64.
        pairs: mean of ``p_i^2 p_j^2``, summed over all pairs of different components.
        tokens: number of tokens of the means.
    """
    diagonal = mean.diagonal()
    signal = float(mean.square().sum() - diagonal.square().sum())
    noise = max(pairs - signal, 0.0) / tokens
    share = min(max(noise / signal, LEAST_SHRINKAGE), 1.0) if signal else 1.0
    return (1 - share) * mean + torch.diag(share * diagonal + FLOOR)


def pair_products(p: Tensor) -> float:
    """Sum ``p_i^2 p_j^2`` over the pairs of different columns and over the rows of ``p``."""
    squares = p.square()
    return float((squares.sum(1).square() - squares.square().sum(1)).sum())


def _summed(
    model: LoadedModel,
    spectra: SpectrumTable,
    parts: list[Calibration],
    seed: int,
    progress: Progress,
) -> dict[str, _Sums]:
    """Sum over the tokens, for every site, in units of the predicted losses of its components.

    Factors are read again for every batch: those of all sites are larger than the model.
    """
    sums = {
        name: _Sums(torch.zeros(len(loss) - 1, len(loss) - 1))
        for name, loss in spectra.loss.items()
    }

    def add(name: str, module: nn.Module, x: Tensor, gradient: Tensor) -> None:
        plain = nested(spectra, name)
        inner = first_product(module, x.detach(), plain.down)
        outer = features_last(module, gradient) @ plain.up.T
        p = inner.mul_(outer).div_(_units(plain).float())
        sums[name].add(p.flatten(0, -2))

    def watch(name: str, module: nn.Module, x: Tensor, output: Tensor) -> None:
        output.register_hook(lambda gradient: add(name, module, x, gradient))

    generator = torch.Generator().manual_seed(seed)
    watched = {name: model.module.get_submodule(name) for name in sums}
    fisher_pass(model, watched, watch, parts, generator, "component importance", progress)
    return sums


def _units(plain: Decomposition) -> Tensor:
    """Root of the predicted loss of each component, ``(k,)``: it makes ``p`` about one."""
    squares = -plain.loss.diff()
    least = max(FLOOR * float(squares.max()), torch.finfo(torch.float32).tiny)
    return squares.clamp_min(least).sqrt()
