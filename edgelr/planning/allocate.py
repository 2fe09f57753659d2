"""Turn spectra and a budget into a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

from edgelr.compress.spectra import SpectrumTable
from edgelr.core.errors import BudgetError
from edgelr.core.plan import Candidate, Choice, Plan, SitePlan
from edgelr.core.sites import LinearSite, SiteGroup
from edgelr.core.vocabulary import PRECISION_BYTES, Precision, WeightPrecision
from edgelr.planning.allocators import ALLOCATORS
from edgelr.planning.allocators.cover import smallest_bytes
from edgelr.planning.candidates import Options, make_options, site_candidates, site_residency
from edgelr.planning.recipes import Recipe

Price: TypeAlias = Callable[[SiteGroup, Candidate], int]

BISECTIONS = 16  # of a range of budgets: finer than a row of a weight


@dataclass(frozen=True)
class Search:
    """Everything that decides a plan but the budget, so that a new budget costs milliseconds."""

    groups: list[SiteGroup]
    options: list[Options]
    recipe: Recipe
    values: Precision  # of what weights are multiplied with
    packs: bool = True  # whether the provider copies weights into layouts of its own
    price: Price | None = None  # of what is compared; a budget is in bytes all the same

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
        return self.made(self._choices(budget_bytes), budget_bytes)

    def _choices(self, budget_bytes: int) -> dict[str, Choice]:
        """Let the allocator choose; by the price, where something fits the budget that way."""

        def fits(choices: dict[str, Choice]) -> bool:
            return sum(choice.candidate.bytes for choice in choices.values()) <= budget_bytes

        priced = self._priced
        found = None if priced is None else priced.dearest(fits, priced.most)
        return found or ALLOCATORS.get(self.recipe.allocator)(self.options, budget_bytes)

    @cached_property
    def _priced(self) -> PricedSearch | None:
        return None if self.price is None else self.priced(self.price)

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
        search: search whose candidates are priced.
        options: options of every group, with prices in the place of bytes.
        originals: unpriced candidate of every priced one, by group.
    """

    search: Search
    options: list[Options]
    originals: dict[str, dict[Candidate, Candidate]]

    @cached_property
    def cheapest(self) -> int:
        """Price of the cheapest plan."""
        return smallest_bytes(self.options)

    @cached_property
    def most(self) -> int:
        """A price that no plan exceeds."""
        return sum(max(each.bytes for each in priced) for priced in self.originals.values())

    def dearest(
        self, fits: Callable[[dict[str, Choice]], bool], most: int
    ) -> dict[str, Choice] | None:
        """Spend as much as ``fits``, and ``most`` at most; None where nothing fits."""
        best, low, high = None, self.cheapest - 1, most + 1
        budget = most
        for _ in range(BISECTIONS):
            if budget <= low:
                break
            choices = self.choices(budget)
            if fits(choices):
                best, low = choices, budget
            else:
                high = budget
            budget = (low + high) // 2
        return best

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


def _rounded_up(share: float) -> float:
    return min(1.0, share + 0.001)
