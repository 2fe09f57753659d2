"""Decompose every group once, for every rank; make factors by plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from edgelr.compress.factors import (
    Decomposed,
    Factors,
    FactorSet,
    Kronecker,
    LowRank,
    Tied,
    TiedFit,
)
from edgelr.compress.forms import balance, pivot
from edgelr.compress.methods import SiteStatistics
from edgelr.compress.shared_basis import factorize_stacked, fit_coefficients, tie
from edgelr.compress.spectra import SpectrumTable, write_spectrum
from edgelr.core.errors import InputError
from edgelr.core.plan import Plan, SitePlan
from edgelr.core.sites import SiteGroup
from edgelr.core.vocabulary import Coefficients, Progress
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import weight_of

if TYPE_CHECKING:
    from torch import Tensor

    from edgelr.compress.methods import Method
    from edgelr.compress.statistics import StatisticsStore


def decompose(
    model: LoadedModel,
    groups: list[SiteGroup],
    statistics: StatisticsStore,
    method: Method,
    folder: Path,
    progress: Progress,
    coefficients: Coefficients = "fitted",
) -> None:
    """Write the decomposition of every group into ``folder``; see ``decompose_group``.

    Raises:
        InputError: the statistics of a group are not finite, so that nothing can be predicted.
    """
    for done, group in enumerate(groups, start=1):
        weights = [weight_of(model, site.name).double() for site in group.sites]
        given = [statistics.of(site) for site in group.sites]
        for each in given:
            _require_finite(group.name, "inputs", each.input_gram)
            _require_finite(group.name, "output gradients", each.output_gradient_gram)
        result = decompose_group(group, weights, given, method, coefficients)
        _require_finite(group.name, "predicted losses", result.loss[result.loss != torch.inf])
        write_spectrum(folder, group.name, result)
        progress("decomposition", done, len(groups))


def decompose_group(
    group: SiteGroup,
    weights: list[Tensor],
    statistics: list[SiteStatistics],
    method: Method,
    coefficients: Coefficients = "fitted",
) -> Decomposed:
    """Factorize the weights of one group together.

    Sites that read one tensor are one taller weight: exact. Sites of several blocks are stacked
    under the sum of their inputs' Grams. Basis Sharing keeps the coefficients that come out of that
    (``stacked``: their loss is an upper bound); ``fitted`` ones are solved for each site's inputs.
    """
    if group.kind == "one":
        return method.decompose(weights[0], statistics[0])
    metrics = [method.metric(each) for each in statistics]
    if group.kind == "tied":
        return tie(weights[0], weights[1], (metrics[0], metrics[1]))
    inputs = [gram for _, gram in metrics if gram is not None]
    if group.kind == "input":
        return factorize_stacked(weights, metrics, inputs[0] if inputs else None)
    stacked = factorize_stacked(weights, metrics, torch.stack(inputs).sum(0) if inputs else None)
    return stacked if coefficients == "stacked" else fit_coefficients(stacked, weights, metrics)


def _require_finite(name: str, what: str, values: Tensor | None) -> None:
    if values is None or torch.isfinite(values).all():
        return
    raise InputError(
        f"The calibration statistics of {name} are not finite: its {what} overflow in float32 on "
        f"this calibration text. Check the model's outputs on it, or calibrate on another."
    )


def truncate(spectra: SpectrumTable, plan: Plan) -> FactorSet:
    """Make the factors that the plan asks for, as plain products; dense sites have none.

    Sites of a group get the same ``down``. ``in_forms`` gives them the forms of the plan.
    """
    return {
        name: factors
        for group, sites in compressed_groups(plan).items()
        for name, factors in products(spectra.decomposition(group), group, sites)
    }


def in_forms(factors: FactorSet, plan: Plan, block: int = 1) -> FactorSet:
    """Rewrite products in the forms of the plan; the matrices stay the same.

    Args:
        factors: factors that ``truncate`` made, possibly corrected since.
        plan: forms and groups.
        block: neighbours that pivot together; see ``forms.pivot``.
    """
    changed = dict(factors)
    for sites in compressed_groups(plan).values():
        if sites[0].candidate.form == "pivoted":
            changed.update(_pivoted([factors[site.name] for site in sites], sites, block))
    return changed


def compressed_groups(plan: Plan) -> dict[str, list[SitePlan]]:
    """Sites that are not dense, by the group that they are factorized in."""
    groups: dict[str, list[SitePlan]] = {}
    for site in plan.sites:
        if site.candidate.form != "dense":
            groups.setdefault(site.group or site.name, []).append(site)
    return groups


def products(result: Decomposed, name: str, sites: list[SitePlan]) -> Iterator[tuple[str, Factors]]:
    """Truncate one group and give every site its part."""
    if isinstance(result, TiedFit):
        first, second = sites
        yield first.name, Tied(result.weight, False, name)
        yield second.name, Tied(result.weight, True, name)
        return
    made = result.truncate(sites[0].candidate.rank)
    if isinstance(made, Kronecker):
        yield sites[0].name, made
        return
    shared = name if len(sites) > 1 else None
    made = balance(LowRank(made.down.double(), made.up.double(), shared))
    down = made.down.float()
    for site, up in zip(sites, _parts(made.up, sites), strict=True):
        yield site.name, LowRank(down, up.float().contiguous(), shared)


def _pivoted(
    factors: list[Factors], sites: list[SitePlan], block: int
) -> Iterator[tuple[str, Factors]]:
    """Pivot one group as a whole: its sites keep the first factor in common."""
    products = [each for each in factors if isinstance(each, LowRank)]
    ups = torch.cat([each.up.double() for each in products], dim=1)
    whole = pivot(LowRank(products[0].down.double(), ups, products[0].shared), block)
    first = whole.first.float()
    for site, second in zip(sites, _parts(whole.second, sites), strict=True):
        yield site.name, replace(whole, first=first, second=second.float().contiguous())


def _parts(up: Tensor, sites: list[SitePlan]) -> tuple[Tensor, ...]:
    """Cut the outputs of a group into those of its sites; a site alone keeps all of them."""
    if len(sites) == 1:
        return (up,)
    parts: tuple[Tensor, ...] = up.split([site.out_features for site in sites], dim=1)
    return parts
