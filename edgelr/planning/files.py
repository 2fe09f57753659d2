"""Plans in files: they are read, checked against a model, and priced again after an edit."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from edgelr.compress.spectra import SpectrumTable
from edgelr.core.errors import InputError, did_you_mean
from edgelr.core.plan import Candidate, Plan, SitePlan
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

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def write_plan(plan: Plan, path: Path) -> None:
    """Write ``plan.json``, made to be read and edited by people."""
    path.write_bytes(TypeAdapter(Plan).dump_json(plan, indent=2))


def read_plan(path: Path) -> Plan:
    """Read a plan, possibly edited.

    What a linear becomes may be told in short, as ``{"form": "dense"}`` or ``{"form": "low_rank",
    "rank": 64}``: the rest is filled in, and counted by ``follow_plan``.

    Raises:
        InputError: the file is no plan.
    """
    content: Any = None
    try:
        content = json.loads(path.read_bytes())
        for site in content["sites"]:
            site["candidate"] = {**_usual(site), **site["candidate"]}
        return TypeAdapter(Plan).validate_python(content, strict=False, extra="forbid")
    except ValidationError as error:
        problems = "; ".join(_problem(item, content["sites"]) for item in error.errors()[:3])
        raise _no_plan(path, problems) from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _no_plan(path, f"{type(error).__name__}: {error}") from error


def _no_plan(path: Path, problem: str) -> InputError:
    return InputError(
        f"{path} is not a plan ({problem}); expected a file that 'edgelr plan' wrote."
    )


def _usual(site: dict[str, Any]) -> dict[str, Any]:
    """Fill in what a candidate leaves away; a dense one has the full rank in any case."""
    wide = site["dense_bytes"] >= PRECISION_BYTES["float32"] * math.prod(
        site[side] for side in ("in_features", "out_features")
    )
    usual = {
        "precision": "float32" if wide else "float16",
        "bytes": 0,
        "flops": 0,
        "predicted_loss": 0.0,
    }
    return {**usual, "rank": 0} if site["candidate"].get("form") == "dense" else usual


def _problem(item: ErrorDetails, sites: list[dict[str, Any]]) -> str:
    """Tell what is wrong with one key, by the name of its site."""
    where, told = item["loc"], item["msg"]
    if item["type"] == "unexpected_keyword_argument":
        known = [each.name for kind in (Plan, SitePlan, Candidate) for each in fields(kind)]
        told = f"the key is unknown.{did_you_mean(str(where[-1]), known)}"
    elif item["type"] == "missing":
        told = "the key is missing"
    else:
        told = f"{told} (found {item['input']!r})"
    if where[0] == "sites" and len(where) > 1:
        name = sites[int(where[1])].get("name", f"number {where[1]}")
        return f"site {name}, {'.'.join(map(str, where[2:]))}: {told}"
    return f"{'.'.join(map(str, where))}: {told}"


def follow_plan(plan: Plan, search: Search, spectra: SpectrumTable) -> Plan:
    """Check a plan, possibly edited, and count again what it costs.

    People change forms, ranks and groups, not bytes.

    Raises:
        InputError: sites are missing, unknown, of another shape, or have an impossible rank.
    """
    _require_same_sites(plan, search)
    groups = {group.name: group for group in search.groups}
    plan = replace(plan, sites=tuple(_at_full_rank(site, groups) for site in plan.sites))
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


def _at_full_rank(site: SitePlan, groups: dict[str, SiteGroup]) -> SitePlan:
    """Give a dense site its rank, which an edited plan need not name."""
    group = groups.get(site.group or site.name)
    if group is None or site.candidate.form != "dense":
        return site
    full = replace(site.candidate, rank=largest_rank("dense", group))
    return replace(site, candidate=full)


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
