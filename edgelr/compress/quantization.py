"""Losses of quantization: a group's weights, dense and factorized, in 8, 4 or 2 bits.

A rounded matrix is another matrix, so that its error costs what any other costs in the method's
metric: ``1/2 tr(D^T G D H)`` with ``D`` the difference to the original weight. It is computed for
the very numbers that are stored; of factors, for every rank at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgelr.compress.block_quantized import Blocks, QuantizedLoss, quantize
from edgelr.compress.decompose import compressed_groups
from edgelr.compress.factors import Decomposed, Decomposition, Dense, FactorSet, LowRank, Reweighted
from edgelr.compress.forms import level
from edgelr.compress.rounding import ROUNDING
from edgelr.compress.shared_basis import best_up, metric_loss
from edgelr.compress.stored_weights import write_group
from edgelr.core.plan import Plan
from edgelr.core.sites import SiteGroup
from edgelr.core.vocabulary import LAYOUTS, Progress, WeightPrecision
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import weight_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from edgelr.compress.methods import ErrorMetric, Method
    from edgelr.compress.spectra import SpectrumTable
    from edgelr.compress.statistics import StatisticsStore

FACTOR_PRECISIONS: tuple[WeightPrecision, ...] = ("int8", "int4")  # that factors are offered in


def rounded(matrix: Tensor, precision: WeightPrecision) -> Tensor:
    """Return the nearest matrix that ``precision`` can store, ``(in_features, out_features)``."""
    return _matrix(quantize(matrix.float().contiguous().numpy(), precision)).to(matrix)


@dataclass(frozen=True)
class Rounded:
    """Factors as the graph will compute with them, and how the rounded ones are stored.

    Attributes:
        factors: factors of every site that is not as it was.
        blocks: quantized matrices by the name of the tensor: ``<site or group>.down``,
            ``<site>.up``, ``<site>.weight``.
    """

    factors: FactorSet
    blocks: dict[str, Blocks]


@dataclass(frozen=True)
class RoundedWeights:
    """What rounds the matrices of a plan.

    Attributes:
        rounding: name of the rounding.
        input_gram_of: function that gives ``H`` of a site in the method's metric; None for the
            identity.
        weight_of: function that gives the stored weight of a site in a precision.
    """

    rounding: str
    input_gram_of: Callable[[str], Tensor | None]
    weight_of: Callable[[str, WeightPrecision], Blocks]

    def round(
        self, matrix: Tensor, input_gram: Tensor | None, precision: WeightPrecision
    ) -> Blocks:
        """Round a matrix ``(in_features, out_features)`` in the metric of its inputs."""
        return _stored(self.rounding, matrix.T, (None, input_gram), [precision])[0]


def round_factors(plan: Plan, factors: FactorSet, weights: RoundedWeights) -> Rounded:
    """Round the matrices that the plan stores in int8, int4 or int2; the rest stays as it is.

    ``down`` is rounded first, and ``up`` solved again for what it became, so that it makes up for
    a part of the error before it is rounded itself.

    Args:
        plan: forms, ranks and precisions.
        factors: products of the sites that are not dense.
        weights: what rounds them.
    """
    found, blocks = dict(factors), {}
    for site in plan.sites:
        chosen, key = site.candidate, f"{site.name}.weight"
        if chosen.form == "dense" and chosen.precision in LAYOUTS:
            blocks[key] = weights.weight_of(site.name, chosen.precision)
            found[site.name] = Dense(_matrix(blocks[key]))
    for name, sites in compressed_groups(plan).items():
        precision = sites[0].candidate.precision
        if precision in LAYOUTS:
            parts = [part for site in sites if isinstance(part := factors[site.name], LowRank)]
            ups = torch.cat([part.up for part in parts], dim=1)
            whole = level(LowRank(parts[0].down.double(), ups.double(), parts[0].shared))
            grams = [weights.input_gram_of(site.name) for site in sites]
            blocks[f"{name}.down"] = weights.round(whole.down, grams[0], precision)
            down = _matrix(blocks[f"{name}.down"])
            sizes = [site.out_features for site in sites]
            own = whole.up.split(sizes, dim=1)
            for site, gram, up in zip(sites, grams, own, strict=True):
                solved = best_up(down.double(), (whole.down @ up).T, gram)
                hidden = _hidden_gram(down.double(), gram)
                key = f"{site.name}.up"
                blocks[key] = weights.round(solved, hidden, precision)
                found[site.name] = LowRank(down, _matrix(blocks[key]), whole.shared)
    return Rounded(found, blocks)


def _hidden_gram(down: Tensor, input_gram: Tensor | None) -> Tensor:
    """Gram of what ``down`` gives, ``(rank, rank)``: the metric of the inputs of ``up``."""
    return down.T @ (down if input_gram is None else input_gram @ down)


def _stored(
    rounding: str, weight: Tensor, metric: ErrorMetric, precisions: Sequence[WeightPrecision]
) -> list[Blocks]:
    """Round a weight ``(out_features, in_features)`` to each precision."""
    output_gram, input_gram = (None if each is None else each.numpy() for each in metric)
    arrays = (output_gram, input_gram)
    return ROUNDING.get(rounding).round(weight.numpy(), arrays, precisions)


def _matrix(blocks: Blocks) -> Tensor:
    return torch.from_numpy(blocks.dense())


def round_groups(
    model: LoadedModel,
    groups: list[SiteGroup],
    metric_of: tuple[StatisticsStore, Method],
    spectra: SpectrumTable,
    asked: tuple[str, Sequence[WeightPrecision]],
    folder: Path,
    progress: Progress,
) -> None:
    """Write every weight in each precision, and what that is predicted to lose, into ``folder``.

    Args:
        model: dense model.
        groups: linears that are planned together.
        metric_of: statistics, and the method that makes a metric of them.
        spectra: factors of every group.
        asked: name of the rounding, and the precisions.
        folder: folder that receives ``<group>.npz``; see ``stored_weights.write_group``.
        progress: function of ``("rounding", done, total)`` in groups.
    """
    (store, method), (rounding, precisions) = metric_of, asked
    for done, group in enumerate(groups, start=1):
        weights = [weight_of(model, site.name).double() for site in group.sites]
        metrics = [method.metric(store.of(site)) for site in group.sites]
        stored = [
            dict(zip(precisions, _stored(rounding, weight, metric, precisions), strict=True))
            for weight, metric in zip(weights, metrics, strict=True)
        ]
        factors = spectra.decomposition(group.name)
        losses = {
            each: QuantizedLoss(
                _stored_loss(weights, metrics, [blocks[each] for blocks in stored]),
                product_losses(weights, metrics, factors, each),
            )
            for each in precisions
        }
        sites = [site.name for site in group.sites]
        write_group(folder, group.name, dict(zip(sites, stored, strict=True)), losses)
        progress("rounding", done, len(groups))


def _stored_loss(weights: list[Tensor], metrics: list[ErrorMetric], stored: list[Blocks]) -> float:
    """Predict the loss of the stored weights of a group."""
    return sum(
        metric_loss((weight.float() - _matrix(blocks).T), _single(metric))
        for weight, metric, blocks in zip(weights, metrics, stored, strict=True)
    )


def _single(metric: ErrorMetric) -> ErrorMetric:
    """The metric in float32, which errors of rounding do not need more than."""
    output_gram, input_gram = (None if each is None else each.float() for each in metric)
    return output_gram, input_gram


def product_losses(
    weights: list[Tensor], metrics: list[ErrorMetric], found: Decomposed, precision: WeightPrecision
) -> NDArray[np.float64]:
    """Predict the loss of a group when its factors are rounded to nearest, at every rank.

    Args:
        weights: weight of each site, ``(out_features, in_features)``, float64.
        metrics: metric ``(G, H)`` of each site.
        found: factors of the group; those whose ranks are not nested are not offered rounded.
        precision: quantized precision; only ``FACTOR_PRECISIONS`` are offered.

    Returns:
        Predicted loss by number of kept components, ``(k + 1,)``; infinite where none are offered.
    """
    if precision not in FACTOR_PRECISIONS or not isinstance(found, Decomposition | Reweighted):
        return np.full(len(found.loss), np.inf)
    even = level(LowRank(found.down.double(), found.up.double()))
    product = _product_loss(weights, metrics, even, precision)
    if isinstance(found, Reweighted):  # whose own losses are not errors in this metric
        exact = _product_loss(weights, metrics, even, None)
        product = found.loss + (product - exact).clamp_min(0.0)
    return product.numpy()


def _product_loss(
    weights: list[Tensor],
    metrics: list[ErrorMetric],
    product: LowRank,
    precision: WeightPrecision | None,
) -> Tensor:
    """Loss of the product at every rank, rounded to ``precision`` or as it is, ``(k + 1,)``.

    ``||M - sum_k a_k b_k^T||^2`` in the roots of the metric, with ``a_k`` and ``b_k`` the rounded
    components: sums over the leading blocks of two Gram matrices. Blocks of ``up`` run over
    components, so that it holds for ranks of whole blocks.
    """
    down = product.down if precision is None else rounded(product.down, precision)
    total = torch.zeros(down.shape[1] + 1, dtype=torch.float64)
    ups = product.up.split([len(weight) for weight in weights], dim=1)
    for weight, up, (output_gram, input_gram) in zip(weights, ups, metrics, strict=True):
        up = up if precision is None else rounded(up.contiguous(), precision)  # (k, out)
        weighted_down = down if input_gram is None else input_gram @ down  # H D
        weighted_up = up if output_gram is None else up @ output_gram  # U G
        kept = (down.T @ weighted_down) * (weighted_up @ up.T)
        cross = ((weight @ weighted_down).T * weighted_up).sum(1)
        leading = kept.cumsum(0).cumsum(1).diagonal()
        total += metric_loss(weight, (output_gram, input_gram))
        total[1:] += 0.5 * leading - cross.cumsum(0)
    return total.clamp_min(0.0)
