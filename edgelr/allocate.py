"""Turn spectra and a budget into a plan; read and write plans as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from edgelr.allocators import ALLOCATORS
from edgelr.allocators.cover import smallest_bytes
from edgelr.candidates import (
    Options,
    largest_rank,
    make_candidate,
    make_options,
    site_candidates,
)
from edgelr.errors import BudgetError, InputError
from edgelr.recipes import Recipe
from edgelr.spectra import SpectrumTable
from edgelr.types import PRECISION_BYTES, Choice, LinearSite, Plan, Precision, SiteGroup, SitePlan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Search:
    """Everything that decides a plan but the budget, so that a new budget costs milliseconds."""

    groups: list[SiteGroup]
    options: list[Options]
    recipe: Recipe

    @cached_property
    def dense_bytes(self) -> int:
        """Bytes of every site as it is."""
        sites = {site.name: site.parameters for group in self.groups for site in group.sites}
        return sum(sites.values()) * PRECISION_BYTES[self.precision]

    @cached_property
    def smallest_bytes(self) -> int:
        """Bytes of the smallest plan that the recipe can make."""
        return smallest_bytes(self.options)

    @property
    def precision(self) -> Precision:
        return self.options[0].dense.precision

    def plan(self, budget_bytes: int) -> Plan:
        """Allocate ``budget_bytes`` over the sites.

        Raises:
            BudgetError: even the smallest plan is larger.
        """
        if self.smallest_bytes > budget_bytes:
            raise BudgetError(
                f"The smallest plan of the recipe {self.recipe.name!r} needs "
                f"{self.smallest_bytes:,} bytes for the factorizable weights, and the budget is "
                f"{budget_bytes:,}. The nearest feasible point is --keep "
                f"{_rounded_up(self.smallest_bytes / self.dense_bytes):.3f}."
            )
        choices = ALLOCATORS.get(self.recipe.allocator)(self.options, budget_bytes)
        sites = [
            site
            for group in self.groups
            if group.name in choices
            for site in plan_sites(group, choices[group.name])
        ]
        order = {site.name: index for index, site in enumerate(self._sites())}
        return Plan(
            sites=tuple(sorted(sites, key=lambda site: order[site.name])),
            recipe=self.recipe.name,
            allocator=self.recipe.allocator,
            budget_bytes=budget_bytes,
            planned_bytes=sum(site.candidate.bytes for site in sites),
            predicted_loss=sum(site.candidate.predicted_loss for site in sites),
        )

    def _sites(self) -> list[LinearSite]:
        """Every site once, those of the first groups first."""
        return list({site.name: site for group in self.groups for site in group.sites}.values())


def prepare(
    groups: list[SiteGroup],
    spectra: SpectrumTable,
    recipe: Recipe,
    precision: Precision,
    rank_multiple: int,
) -> Search:
    """List every group's candidates once."""
    options = [
        make_options(group, spectra.loss[group.name], recipe.forms, precision, rank_multiple)
        for group in groups
    ]
    return Search(groups, options, recipe)


def write_plan(plan: Plan, path: Path) -> None:
    """Write ``plan.json``, made to be read and edited by people."""
    path.write_bytes(TypeAdapter(Plan).dump_json(plan, indent=2))


def read_plan(path: Path) -> Plan:
    """Read a plan, possibly edited.

    Raises:
        InputError: the file is no plan.
    """
    try:
        return TypeAdapter(Plan).validate_json(path.read_bytes(), extra="forbid")
    except (OSError, ValidationError) as error:
        raise InputError(
            f"{path} is not a plan ({error}); expected a file that 'edgelr plan' wrote."
        ) from error


def follow_plan(plan: Plan, search: Search, loss: Mapping[str, NDArray[np.float64]]) -> Plan:
    """Check a plan, possibly edited, and count again what it costs.

    People change forms, ranks and groups, not bytes.

    Raises:
        InputError: sites are missing, unknown, of another shape, or have an impossible rank.
    """
    _require_same_sites(plan, search)
    groups = {group.name: group for group in search.groups}
    planned = {site.name: site for site in plan.sites}
    sites = []
    for site in plan.sites:
        group = groups.get(site.group or site.name)
        members = [planned.get(member.name) for member in group.sites] if group else []
        if group is None or any(other is None or not _agree(site, other) for other in members):
            raise InputError(
                f"The plan puts {site.name} into the group {site.group or site.name!r}, and the "
                f"sites of that group do not have one form and rank. Expected the same group, form "
                f"and rank for all of them, in a grouping that the recipe has ('--grouping')."
            )
        form, rank = site.candidate.form, site.candidate.rank
        if not 1 <= rank <= largest_rank(form, group):
            raise InputError(
                f"The plan gives {site.name} rank {rank} as {form}; expected 1 to "
                f"{largest_rank(form, group)}."
            )
        cost = 0.0 if form == "dense" else float(loss[group.name][rank])
        if not math.isfinite(cost):
            raise InputError(f"The method has no factors of rank {rank} for {site.name}.")
        priced = make_candidate(form, group, rank, search.precision, cost)
        index = [member.name for member in group.sites].index(site.name)
        sites.append(replace(site, candidate=site_candidates(group, priced)[index]))
    return replace(
        plan,
        sites=tuple(sites),
        planned_bytes=sum(site.candidate.bytes for site in sites),
        predicted_loss=sum(site.candidate.predicted_loss for site in sites),
    )


def plan_sites(group: SiteGroup, choice: Choice) -> list[SitePlan]:
    """Say what each site of a group becomes."""
    width = PRECISION_BYTES[choice.candidate.precision]
    together = len(group.sites) > 1
    return [
        SitePlan(
            name=site.name,
            in_features=site.in_features,
            out_features=site.out_features,
            candidate=candidate,
            dense_bytes=site.parameters * width,
            reason=choice.reason,
            group=group.name if together else None,
        )
        for site, candidate in zip(
            group.sites, site_candidates(group, choice.candidate), strict=True
        )
    ]


def _agree(site: SitePlan, other: SitePlan) -> bool:
    return (site.group, site.candidate.form, site.candidate.rank) == (
        other.group,
        other.candidate.form,
        other.candidate.rank,
    )


def _require_same_sites(plan: Plan, search: Search) -> None:
    planned = {site.name: (site.in_features, site.out_features) for site in plan.sites}
    expected = {
        site.name: (site.in_features, site.out_features)
        for group in search.groups
        for site in group.sites
    }
    if planned.keys() != expected.keys() or len(plan.sites) != len(planned):
        odd = sorted(planned.keys() ^ expected.keys()) or ["a site that is listed twice"]
        raise InputError(
            f"The plan has {len(plan.sites)} sites and the model {len(expected)}; they differ in "
            f"{', '.join(odd[:3])}. Expected a plan of this very model: run 'edgelr plan' again."
        )
    for name, shape in expected.items():
        if planned[name] != shape:
            raise InputError(
                f"The plan has {name} as {planned[name]}, the model as {shape}: run 'edgelr plan' "
                f"again."
            )


def _rounded_up(share: float) -> float:
    return min(1.0, share + 0.001)
