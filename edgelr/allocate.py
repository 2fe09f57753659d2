"""Turn spectra and a budget into a plan; read and write plans as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edgelr.allocators import ALLOCATORS
from edgelr.candidates import Options, make_options
from edgelr.decompose import SpectrumTable
from edgelr.errors import BudgetError, InputError
from edgelr.recipes import Recipe
from edgelr.types import Choice, Plan, Precision, SiteGroup, SitePlan


@dataclass(frozen=True)
class Search:
    """Everything that decides a plan but the budget, so that a new budget costs milliseconds."""

    groups: list[SiteGroup]
    options: list[Options]
    recipe: Recipe

    @property
    def dense_bytes(self) -> int:
        return sum(option.dense.bytes for option in self.options)

    @property
    def smallest_bytes(self) -> int:
        """Bytes of the smallest plan that the recipe can make."""
        return sum(option.smallest.bytes for option in self.options)

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
            _site_plan(group, option, choices[group.name])
            for group, option in zip(self.groups, self.options, strict=True)
        ]
        return Plan(
            sites=tuple(sites),
            recipe=self.recipe.name,
            allocator=self.recipe.allocator,
            budget_bytes=budget_bytes,
            planned_bytes=sum(site.candidate.bytes for site in sites),
            predicted_loss=sum(site.candidate.predicted_loss for site in sites),
        )


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


def check_plan(plan: Plan, search: Search) -> None:
    """Refuse a plan that does not belong to this model.

    Raises:
        InputError: sites are missing, unknown, of another shape, or have an impossible rank.
    """
    planned = {site.name: site for site in plan.sites}
    expected = {group.name: group for group in search.groups}
    if planned.keys() != expected.keys() or len(plan.sites) != len(planned):
        odd = sorted(planned.keys() ^ expected.keys()) or ["a site that is listed twice"]
        raise InputError(
            f"The plan has {len(plan.sites)} sites and the model {len(expected)}; they differ in "
            f"{', '.join(odd[:3])}. Expected a plan of this very model: run 'edgelr plan' again."
        )
    for name, group in expected.items():
        site, limit = planned[name], min(group.in_features, group.out_features)
        shape = (site.in_features, site.out_features)
        if shape != (group.in_features, group.out_features):
            raise InputError(
                f"The plan has {name} as {shape}, the model as "
                f"{(group.in_features, group.out_features)}: run 'edgelr plan' again."
            )
        largest = limit - 1 if site.candidate.form == "pivoted" else limit
        if not 1 <= site.candidate.rank <= largest:
            raise InputError(
                f"The plan gives {name} rank {site.candidate.rank} as {site.candidate.form}; "
                f"expected 1 to {largest}."
            )


def _site_plan(group: SiteGroup, option: Options, choice: Choice) -> SitePlan:
    return SitePlan(
        name=group.name,
        in_features=group.in_features,
        out_features=group.out_features,
        candidate=choice.candidate,
        dense_bytes=option.dense.bytes,
        reason=choice.reason,
    )


def _rounded_up(share: float) -> float:
    return min(1.0, share + 0.001)
