"""Plans in files: they are read, checked against a model, and priced again after an edit."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edgelr.compress.spectra import SpectrumTable
from edgelr.core.errors import InputError
from edgelr.core.plan import Plan, SitePlan
from edgelr.core.sites import SiteGroup
from edgelr.core.vocabulary import PRECISION_BYTES
from edgelr.device.storage import largest_rank
from edgelr.planning.allocate import Search
from edgelr.planning.candidates import (
    CONVOLUTION_FORMS,
    QUANTIZED_FORMS,
    make_candidate,
    site_candidates,
    site_residency,
)


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
