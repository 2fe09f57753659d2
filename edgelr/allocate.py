"""Turn spectra and a budget into a plan; read and write plans as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from pydantic import TypeAdapter, ValidationError

from edgelr.allocators import ALLOCATORS
from edgelr.allocators.cover import smallest_bytes
from edgelr.candidates import (
    CONVOLUTION_FORMS,
    QUANTIZED_FORMS,
    Options,
    largest_rank,
    make_candidate,
    make_options,
    site_candidates,
    site_residency,
)
from edgelr.errors import BudgetError, InputError
from edgelr.recipes import Recipe
from edgelr.spectra import SpectrumTable
from edgelr.types import (
    PRECISION_BYTES,
    Candidate,
    Choice,
    LinearSite,
    Plan,
    Precision,
    SiteGroup,
    SitePlan,
    WeightPrecision,
)

Price: TypeAlias = Callable[[SiteGroup, Candidate], int]


@dataclass(frozen=True)
class Search:
    """Everything that decides a plan but the budget, so that a new budget costs milliseconds."""

    groups: list[SiteGroup]
    options: list[Options]
    recipe: Recipe
    values: Precision  # of what weights are multiplied with
    packs: bool = True  # whether the provider copies weights into layouts of its own

    @cached_property
    def dense_bytes(self) -> int:
        """Bytes of every site as it is."""
        return sum(self._dense_bytes(site) for site in self._sites())

    @cached_property
    def smallest_bytes(self) -> int:
        """Bytes of the smallest plan that the recipe can make."""
        return smallest_bytes(self.options)

    def _dense_bytes(self, site: LinearSite) -> int:
        return site.parameters * PRECISION_BYTES[self.values]

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
        return self.made(choices, budget_bytes)

    def without(self, excluded: Callable[[SiteGroup, Candidate], bool]) -> Search:
        """Leave candidates out; what a group is as it is stays."""
        options = [
            replace(
                option,
                compressed=tuple(each for each in option.compressed if not excluded(group, each)),
            )
            for group, option in zip(self.groups, self.options, strict=True)
        ]
        return replace(self, options=options)

    def priced(self, price: Price) -> PricedSearch:
        """Search with something else than bytes as the budget, such as nanoseconds."""
        options, originals = [], {}
        for group, option in zip(self.groups, self.options, strict=True):
            known = {
                replace(each, bytes=price(group, each)): each
                for each in (option.dense, *option.compressed)
            }
            dense, *compressed = known
            options.append(replace(option, dense=dense, compressed=tuple(compressed)))
            originals[option.name] = known
        return PricedSearch(self, options, originals)

    def resident_bytes(self, group: SiteGroup, candidate: Candidate) -> int:
        """Memory of what a group becomes."""
        return sum(site_residency(group, candidate, self.values, self.packs))

    def made(self, choices: dict[str, Choice], budget_bytes: int | None = None) -> Plan:
        """Put the choices of all groups together; without a budget, it is what they take."""
        if budget_bytes is None:
            budget_bytes = sum(choice.candidate.bytes for choice in choices.values())
        sites = [
            site
            for group in self.groups
            if group.name in choices
            for site in self._planned(group, choices[group.name])
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

    def _planned(self, group: SiteGroup, choice: Choice) -> Iterator[SitePlan]:
        """Say what each site of a group becomes."""
        parts = site_candidates(group, choice.candidate, self.values)
        resident = site_residency(group, choice.candidate, self.values, self.packs)
        for site, candidate, resident_bytes in zip(group.sites, parts, resident, strict=True):
            yield SitePlan(
                name=site.name,
                in_features=site.in_features,
                out_features=site.out_features,
                candidate=candidate,
                dense_bytes=self._dense_bytes(site),
                reason=choice.reason,
                group=group.name if len(group.sites) > 1 else None,
                resident_bytes=resident_bytes,
            )

    def _sites(self) -> list[LinearSite]:
        """Every site once, those of the first groups first."""
        return list({site.name: site for group in self.groups for site in group.sites}.values())


@dataclass(frozen=True)
class PricedSearch:
    """A search whose budget is a sum of prices.

    Attributes:
        search: what is searched.
        options: of every group, with prices in the place of bytes.
        originals: by group, what every priced candidate is.
    """

    search: Search
    options: list[Options]
    originals: dict[str, dict[Candidate, Candidate]]

    @cached_property
    def cheapest(self) -> int:
        """Price of the cheapest plan."""
        return smallest_bytes(self.options)

    def choices(self, budget: int) -> dict[str, Choice]:
        """Allocate ``budget`` over the groups; it is at least ``cheapest``."""
        found = ALLOCATORS.get(self.search.recipe.allocator)(self.options, budget)
        return {
            name: replace(choice, candidate=self.originals[name][choice.candidate])
            for name, choice in found.items()
        }


def prepare(
    groups: list[SiteGroup],
    spectra: SpectrumTable,
    recipe: Recipe,
    values: Precision,
    rank_multiple: int,
    weights: tuple[WeightPrecision, ...] = (),
    packs: bool = True,
) -> Search:
    """List every group's candidates once; see ``candidates.make_options``."""
    options = [
        make_options(
            group,
            spectra.loss[group.name],
            recipe.forms,
            values,
            rank_multiple,
            weights,
            spectra.quantized.get(group.name),
        )
        for group in groups
    ]
    return Search(groups, options, recipe, values, packs)


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


def follow_plan(plan: Plan, search: Search, spectra: SpectrumTable) -> Plan:
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
        cost = _cost(site, group, spectra)
        if not math.isfinite(cost):
            raise InputError(
                f"The method has no {form} factors of rank {rank} for {site.name} in "
                f"{site.candidate.precision}."
            )
        precision = site.candidate.precision
        priced = make_candidate(form, group, rank, cost, precision, search.values)
        index = [member.name for member in group.sites].index(site.name)
        candidate = site_candidates(group, priced, search.values)[index]
        resident = site_residency(group, priced, search.values, search.packs)[index]
        sites.append(replace(site, candidate=candidate, resident_bytes=resident))
    return replace(
        plan,
        sites=tuple(sites),
        planned_bytes=sum(site.candidate.bytes for site in sites),
        predicted_loss=sum(site.candidate.predicted_loss for site in sites),
    )


def _cost(site: SitePlan, group: SiteGroup, spectra: SpectrumTable) -> float:
    """Predicted loss of what a plan makes of a group; infinite where that cannot be made."""
    chosen = site.candidate
    if group.sites[0].kernel and chosen.form not in CONVOLUTION_FORMS:
        return math.inf
    if chosen.precision in PRECISION_BYTES:
        return 0.0 if chosen.form == "dense" else float(spectra.loss[group.name][chosen.rank])
    lost = spectra.quantized.get(group.name, {}).get(chosen.precision)
    if lost is None or chosen.form not in QUANTIZED_FORMS:
        return math.inf
    return lost.dense if chosen.form == "dense" else float(lost.product[chosen.rank])


def _agree(site: SitePlan, other: SitePlan) -> bool:
    ours, theirs = site.candidate, other.candidate
    return (site.group, ours.form, ours.rank, ours.precision) == (
        other.group,
        theirs.form,
        theirs.rank,
        theirs.precision,
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
