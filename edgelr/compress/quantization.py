"""Losses of quantization: a group's weights, dense and factorized, in 8 or 4 bits.

A rounded matrix is another matrix, so that its error costs what any other costs in the method's
metric: ``1/2 tr(D^T G D H)`` with ``D`` the difference to the original weight. It is computed for
the very numbers that ONNX Runtime's quantizer gives, and for every rank at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgelr.compress.block_quantized import Blocks, QuantizedLoss, quantize
from edgelr.compress.decompose import compressed_groups
from edgelr.compress.factors import Decomposed, Decomposition, Dense, FactorSet, LowRank, Reweighted
from edgelr.compress.forms import level
from edgelr.compress.shared_basis import best_up, metric_loss
from edgelr.core.plan import Plan
from edgelr.core.sites import SiteGroup
from edgelr.core.vocabulary import WEIGHT_BITS, Progress, WeightPrecision
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import weight_of

if TYPE_CHECKING:
    from torch import Tensor

    from edgelr.compress.methods import ErrorMetric, Method
    from edgelr.compress.spectra import SpectrumTable
    from edgelr.compress.statistics import StatisticsStore


def rounded(matrix: Tensor, precision: WeightPrecision) -> Tensor:
    """Return the nearest matrix that ``precision`` can store, ``(in_features, out_features)``."""
    return _matrix(_stored(matrix, precision)).to(matrix)


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


def round_factors(
    model: LoadedModel,
    plan: Plan,
    factors: FactorSet,
    input_gram_of: Callable[[str], Tensor | None],
) -> Rounded:
    """Round the matrices that the plan stores in int8 or int4; the rest stays as it is.

    ``down`` is rounded first, and ``up`` solved again for what it became, so that it makes up for
    a part of the error before it is rounded itself.

    Args:
        model: dense model.
        plan: forms, ranks and precisions.
        factors: products of the sites that are not dense.
        input_gram_of: function that gives ``H`` of a site in the method's metric; None for the
            identity.
    """
    found, blocks = dict(factors), {}
    for site in plan.sites:
        chosen, key = site.candidate, f"{site.name}.weight"
        if chosen.form == "dense" and chosen.precision in WEIGHT_BITS:
            weight = weight_of(model, site.name).T
            blocks[key] = _stored(weight, chosen.precision)
            found[site.name] = Dense(_matrix(blocks[key]))
    for name, sites in compressed_groups(plan).items():
        precision = sites[0].candidate.precision
        if precision in WEIGHT_BITS:
            parts = [part for site in sites if isinstance(part := factors[site.name], LowRank)]
            ups = torch.cat([part.up for part in parts], dim=1)
            whole = level(LowRank(parts[0].down.double(), ups.double(), parts[0].shared))
            blocks[f"{name}.down"] = _stored(whole.down, precision)
            down = _matrix(blocks[f"{name}.down"])
            sizes = [site.out_features for site in sites]
            for site, up in zip(sites, whole.up.split(sizes, dim=1), strict=True):
                solved = best_up(down.double(), (whole.down @ up).T, input_gram_of(site.name))
                key = f"{site.name}.up"
                blocks[key] = _stored(solved, precision)
                found[site.name] = LowRank(down, _matrix(blocks[key]), whole.shared)
    return Rounded(found, blocks)


def _stored(matrix: Tensor, precision: WeightPrecision) -> Blocks:
    return quantize(matrix.float().contiguous().numpy(), precision)


def _matrix(blocks: Blocks) -> Tensor:
    return torch.from_numpy(blocks.dense())


def quantized_losses(
    model: LoadedModel,
    groups: list[SiteGroup],
    metric_of: tuple[StatisticsStore, Method],
    spectra: SpectrumTable,
    precision: WeightPrecision,
    progress: Progress,
) -> dict[str, QuantizedLoss]:
    """Predict the loss of every group in one precision; see ``quantized_loss``."""
    (store, method), found = metric_of, {}
    for done, group in enumerate(groups, start=1):
        weights = [weight_of(model, site.name).double() for site in group.sites]
        metrics = [method.metric(store.of(site)) for site in group.sites]
        factors = spectra.decomposition(group.name)
        found[group.name] = quantized_loss(weights, metrics, factors, precision)
        progress(f"rounding to {precision}", done, len(groups))
    return found


def quantized_loss(
    weights: list[Tensor], metrics: list[ErrorMetric], found: Decomposed, precision: WeightPrecision
) -> QuantizedLoss:
    """Predict the loss of a group when its weights, or its factors, are rounded.

    Args:
        weights: weight of each site, ``(out_features, in_features)``, float64.
        metrics: metric ``(G, H)`` of each site.
        found: factors of the group; those whose ranks are not nested are not offered rounded.
        precision: int8 or int4.
    """
    dense = sum(
        metric_loss(weight - rounded(weight.T, precision).T, metric)
        for weight, metric in zip(weights, metrics, strict=True)
    )
    if not isinstance(found, Decomposition | Reweighted):
        return QuantizedLoss(dense, np.full(len(found.loss), np.inf))
    even = level(LowRank(found.down.double(), found.up.double()))
    product = _product_loss(weights, metrics, even, precision)
    if isinstance(found, Reweighted):  # whose own losses are not errors in this metric
        exact = _product_loss(weights, metrics, even, None)
        product = found.loss + (product - exact).clamp_min(0.0)
    return QuantizedLoss(dense, product.numpy())


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
