"""The tables of a plan: by role, linear by linear, and why some stay dense."""

from __future__ import annotations

import re
from collections import Counter

from edgelr.core.plan import Plan, SitePlan
from edgelr.core.vocabulary import LAYOUTS
from edgelr.report.figures import Table, figure, mib, percent


def role_table(plan: Plan) -> Table:
    """Summarize the plan by role, the name of a site inside its block."""
    roles: dict[str, list[SitePlan]] = {}
    for site in plan.sites:
        roles.setdefault(role_of(site), []).append(site)
    kinds = sorted({kind_of(site) for site in plan.sites})
    rows = [_role_row(role, sites, kinds) for role, sites in roles.items()]
    rows.append(_role_row("all", list(plan.sites), kinds))
    return Table(("role", "sites", *kinds, "kept"), tuple(rows))


def site_table(plan: Plan) -> Table:
    """Show the plan of every linear, and its reason; groups only where there are any."""
    grouped = any(site.group for site in plan.sites)
    columns = (
        "linear",
        "in",
        "out",
        "form",
        "precision",
        "rank",
        "of",
        "original MiB",
        "MiB",
        "kept",
        "PREDICTED loss",
        *(["with"] if grouped else []),
        "reason",
    )
    rows = tuple(
        (
            site.name,
            str(site.in_features),
            str(site.out_features),
            site.candidate.form,
            site.candidate.precision,
            str(site.candidate.rank),
            str(full_rank(site)),
            mib(site.dense_bytes),
            mib(site.candidate.bytes),
            percent(site.candidate.bytes / site.dense_bytes) if site.dense_bytes else "–",
            figure(site.candidate.predicted_loss),
            *([site.group or "–"] if grouped else []),
            site.reason,
        )
        for site in plan.sites
    )
    return Table(columns, rows)


def dense_sentences(plan: Plan) -> list[str]:
    """Say why sites stay dense, the most frequent reason first."""
    reasons = Counter(site.reason for site in plan.sites if site.candidate.form == "dense")
    return [f"{count} dense: {reason}" for reason, count in reasons.most_common(5)]


def role_of(site: SitePlan) -> str:
    """Name of a site inside its block, or its operator where exporters only count."""
    return re.sub(r"[._@]\d+$", "", re.split(r"\.(?:\d+[./])+", site.name)[-1])


def layer_of(site: SitePlan) -> str:
    """Number of the block that a site is in, or of the site; empty where its name has none."""
    blocks = re.findall(r"\.(\d+)(?=[./])", site.name)
    return ".".join(blocks or re.findall(r"[._@](\d+)$", site.name))


def full_rank(site: SitePlan) -> int:
    """Count the components of a dense weight."""
    return min(site.in_features, site.out_features)


def kind_of(site: SitePlan) -> str:
    """Form of a site, and its precision where it is quantized."""
    form, precision = site.candidate.form, site.candidate.precision
    return f"{form} {precision}" if precision in LAYOUTS else form


def _role_row(role: str, sites: list[SitePlan], kinds: list[str]) -> tuple[str, ...]:
    found = Counter(map(kind_of, sites))
    dense_bytes = sum(site.dense_bytes for site in sites)
    planned_bytes = sum(site.candidate.bytes for site in sites)
    counts = (len(sites), *(found[kind] for kind in kinds))
    kept = percent(planned_bytes / dense_bytes) if dense_bytes else "–"
    return role, *(str(count) for count in counts), kept
