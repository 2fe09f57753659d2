"""The charts of one report: sizes, ranks, spectra, losses, latency and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from edgelr.core.measurement import Comparison, Prediction
from edgelr.core.plan import Plan, SitePlan
from edgelr.core.report import LossCheck, Report
from edgelr.core.vocabulary import LAYOUTS
from edgelr.device.budget import ledger
from edgelr.report.charts import Bar, BarGroup, Bars, Cell, Chart, HeatMap, Step, Waterfall
from edgelr.report.figures import KEPT_SHARES, figure, measured_heading, mib, percent
from edgelr.report.plan_tables import full_rank, layer_of, role_of
from edgelr.report.rivals import contenders, rivals_chart

NOT_IN_A_BLOCK = "–"


def drawings(report: Report) -> dict[str, Chart]:
    """Make every chart that the report has figures for, by a name that is valid for a file."""
    found: dict[str, Chart] = {"size": size_chart(report), "roles": role_chart(report.plan)}
    if report.loss is not None:
        found["loss"] = loss_chart(report.loss)
    if report.comparison is not None or report.prediction is not None:
        found["latency"] = latency_chart(report)
        found["memory"] = memory_chart(report)
    if contenders(report):
        found["rivals"] = rivals_chart(report)
    found["budget"] = budget_chart(report)
    found["ranks"] = rank_chart(report.plan)
    if any(site.candidate.precision in LAYOUTS for site in report.plan.sites):
        found["bytes"] = byte_chart(report.plan)
    return found | spectrum_charts(report)


def size_chart(report: Report) -> Bars:
    """Compare files, and the weights that may be factorized."""
    plan = report.plan
    files = _sizes("model files", report.dense_file_bytes, report.bundle_file_bytes)
    weights = _sizes("factorizable weights", plan.dense_bytes, plan.planned_bytes)
    return Bars("Files and weights", _in_words((files, weights)), (files, weights), one_scale=True)


def role_chart(plan: Plan) -> Bars:
    """Compare the original bytes of each role with the bytes that are kept."""
    roles: dict[str, list[SitePlan]] = {}
    for site in plan.sites:
        roles.setdefault(role_of(site), []).append(site)
    groups = tuple(
        _sizes(
            f"{role}, {len(sites)} of them",
            sum(site.dense_bytes for site in sites),
            sum(site.candidate.bytes for site in sites),
        )
        for role, sites in roles.items()
    )
    return Bars("Where the bytes are, by role", _in_words(groups), groups, one_scale=True)


def loss_chart(loss: LossCheck) -> Bars:
    """Set the predicted loss beside the measured one."""
    bars = (
        Bar("on the calibration text", loss.predicted, figure(loss.predicted), "bundle", True),
        Bar("on the evaluation text, measured", loss.measured, figure(loss.measured), "bundle"),
    )
    groups = (BarGroup(f"loss, {loss.unit}", bars),)
    return Bars("Predicted and measured loss", _in_words(groups), groups)


def latency_chart(report: Report) -> Bars:
    """Compare the phases: measured medians up to the 90th percentile, and predicted times."""
    groups = [
        *_measured_phases(report.comparison, measured_heading(report)),
        *_predicted_phases(report.prediction, report.profile_title),
    ]
    return Bars("Latency", _in_words(groups), tuple(groups))


def memory_chart(report: Report) -> Bars:
    """Compare measured peaks of fresh processes with predicted ones, also for the device."""
    groups = []
    if report.comparison is not None:
        bars = []
        for label, kind, side in (
            ("original", "dense", report.comparison.dense),
            ("bundle", "bundle", report.comparison.bundle),
        ):
            memory = side.memory
            bars.append(_size_bar(f"{label}, measured", memory.most_bytes, kind))
            if memory.predicted_bytes is not None:
                bars.append(_size_bar(label, memory.predicted_bytes, kind, predicted=True))
        groups.append(BarGroup("peak of a fresh process", tuple(bars), measured_heading(report)))
    if report.prediction is not None:
        bar = _size_bar("bundle", report.prediction.resident_bytes, "bundle", predicted=True)
        groups.append(BarGroup("resident", (bar,), f"Predicted for {report.profile_title}"))
    return Bars("Memory", _in_words(groups), tuple(groups), one_scale=True)


def budget_chart(report: Report) -> Waterfall:
    """Show where the device's memory goes, and what stays free."""
    (whole, total), *parts = ledger(report.budget, report.plan.resident_bytes)
    steps = [Step(whole, 0, total, f"{mib(total)} MiB", "given")]
    end = 0
    for index, (label, size) in enumerate(parts[:-1]):
        kind, predicted = ("given", False) if index == 0 else ("used", True)
        steps.append(Step(label, end, end + size, f"{mib(size)} MiB", kind, predicted))
        end += size
    free = parts[-1][1]
    if free >= 0:
        steps.append(Step("headroom", end, total, f"{mib(free)} MiB", "free", True))
    else:
        steps.append(Step("missing", total, end, f"{mib(-free)} MiB", "over", True))
    told = "; ".join(f"{step.label}: {step.text}" for step in steps)
    title = f"Memory of {report.profile_title}"
    return Waterfall(title, f"Predicted for the device. {told}.", total, tuple(steps))


# --- layer by layer --------------------------------------------------------------------------


def rank_chart(plan: Plan) -> HeatMap:
    """Show which share of its components every linear keeps."""

    def kept(site: SitePlan) -> float:
        return 1.0 if site.candidate.form == "dense" else site.candidate.rank / full_rank(site)

    def cell(site: SitePlan) -> Cell:
        form, rank = site.candidate.form, site.candidate.rank
        if form == "dense":
            return Cell(1.0, "dense", f"{site.name}: dense, {site.reason}")
        told = f"{site.name}: {form}, rank {rank} of {full_rank(site)}, {site.reason}"
        return Cell(kept(site), f"{100 * kept(site):.0f}", told)

    return _grid("Ranks, % of the full rank", plan, cell, kept, "all components")


def byte_chart(plan: Plan) -> HeatMap:
    """Show which share of its bytes every linear keeps, in whatever precision."""

    def kept(site: SitePlan) -> float:
        return site.candidate.bytes / site.dense_bytes if site.dense_bytes else 0.0

    def cell(site: SitePlan) -> Cell:
        chosen = site.candidate
        told = f"{site.name}: {chosen.form} in {chosen.precision}, {percent(kept(site))} kept"
        return Cell(kept(site), f"{100 * kept(site):.0f}", told)

    return _grid("Kept bytes, %", plan, cell, kept, "all bytes")


def spectrum_charts(report: Report) -> dict[str, HeatMap]:
    """Show, role by role, how the predicted loss falls while components are added."""
    roles: dict[str, list[SitePlan]] = {}
    for site in report.plan.sites:
        if site.name in report.spectra:
            roles.setdefault(role_of(site), []).append(site)
    return {
        f"spectrum-{_slug(role)}": _spectrum(role, sites, report) for role, sites in roles.items()
    }


def _spectrum(role: str, sites: list[SitePlan], report: Report) -> HeatMap:
    shares = [f"{100 * share:.0f}" for share in KEPT_SHARES]
    rows = []
    for site in sites:
        left = report.spectra[site.name]
        cells = tuple(
            Cell(value**0.5, "", f"{site.name}: {percent(value)} of the loss at {share} %")
            for value, share in zip(left, shares, strict=True)
        )
        rows.append((layer_of(site) or NOT_IN_A_BLOCK, cells))
    half = [sum(value > 0.1 for value in report.spectra[site.name]) for site in sites]
    told = (
        f"Predicted loss that is left in {role} when 10 to 90 % of the components stay, layer "
        f"by layer. On average a tenth of the loss is left at about "
        f"{10 * (1 + sum(half) / len(half)):.0f} % of the components."
    )
    return HeatMap(role, told, tuple(shares), tuple(rows), "none", "all loss left")


def _grid(
    title: str,
    plan: Plan,
    cell: Callable[[SitePlan], Cell],
    share: Callable[[SitePlan], float],
    high: str,
) -> HeatMap:
    """Lay the sites out by layer and role; sites outside of any layer have a row of their own."""
    roles = list(dict.fromkeys(role_of(site) for site in plan.sites))
    places: dict[str, dict[str, SitePlan]] = {}
    for site in plan.sites:
        row = layer_of(site) or NOT_IN_A_BLOCK
        while role_of(site) in places.get(row, {}):  # exporters that only count
            row += "'"
        places.setdefault(row, {})[role_of(site)] = site
    rows = tuple(
        (row, tuple(cell(sites[role]) if role in sites else Cell(None) for role in roles))
        for row, sites in places.items()
    )
    means = [
        f"{role} {100 * sum(found) / len(found):.0f} %"
        for role in roles
        if (found := [share(sites[role]) for sites in places.values() if role in sites])
    ]
    told = f"{title}, layer by layer. On average: {', '.join(means)}."
    return HeatMap(title, told, tuple(roles), rows, "few", high)


# --- bars ------------------------------------------------------------------------------------


def _measured_phases(comparison: Comparison | None, heading: str) -> Iterator[BarGroup]:
    if comparison is None:
        return
    bundle = {phase.key: phase for phase in comparison.bundle.phases}
    for dense in comparison.dense.phases:
        sides = [("original", "dense", dense)]
        if dense.key in bundle:
            sides.append(("bundle", "bundle", bundle[dense.key]))
        bars = tuple(
            Bar(label, side.p50_ms, f"{figure(side.p50_ms)} ms", kind, high=side.p90_ms)
            for label, kind, side in sides
        )
        yield BarGroup(dense.key, bars, heading)


def _predicted_phases(prediction: Prediction | None, device: str) -> Iterator[BarGroup]:
    for phase in prediction.phases if prediction else ():
        bars = (
            Bar("original", phase.dense_ms, f"{figure(phase.dense_ms)} ms", "dense", True),
            Bar("bundle", phase.bundle_ms, f"{figure(phase.bundle_ms)} ms", "bundle", True),
        )
        yield BarGroup(phase.key, bars, f"Predicted for {device}")


def _sizes(title: str, dense_bytes: int, bundle_bytes: int) -> BarGroup:
    bars = (
        _size_bar("original", dense_bytes, "dense"),
        _size_bar("bundle", bundle_bytes, "bundle", share_of=dense_bytes),
    )
    return BarGroup(title, bars)


def _size_bar(label: str, size: int, kind: str, predicted: bool = False, share_of: int = 0) -> Bar:
    text = f"{mib(size)} MiB" + (f", {percent(size / share_of)}" if share_of else "")
    return Bar(label, size, text, kind, predicted)


def _in_words(groups: Iterable[BarGroup]) -> str:
    """Describe bars in words."""
    return " ".join(
        f"{group.title}{f' ({group.note})' if group.note else ''}: "
        + ", ".join(
            f"{bar.label}{' (predicted)' if bar.predicted else ''} {bar.text}" for bar in group.bars
        )
        + "."
        for group in groups
    )


def _slug(role: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in role).strip("-").lower()
