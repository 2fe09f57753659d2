"""What to aim for: a share, a size, an accuracy; always inside the device's memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgelr.allocate import check_plan, prepare, read_plan
from edgelr.budget import require_feasible, weight_budget
from edgelr.calibration import Calibration
from edgelr.candidates import index_bytes, parameters
from edgelr.compressed import embeddings, mean_loss, planned
from edgelr.decompose import SpectrumTable
from edgelr.errors import BudgetError
from edgelr.gate import loss_limit
from edgelr.graph.save import padding_bytes
from edgelr.load import shape_of
from edgelr.planning import DenseExport, Listener, Planned, Subject, tokenize
from edgelr.search import smallest_plan
from edgelr.types import PRECISION_BYTES, Candidate, LoadedModel, Plan, SitePlan

SELECTION_TOKENS = 8192
SELECTION_LENGTH = 512
NODE_BYTES = 4096  # names, shapes and nodes of a factorized linear


def allocate(
    subject: Subject,
    dense: DenseExport,
    calibration: list[Calibration],
    table: SpectrumTable,
    listener: Listener,
    given_plan: Path | None = None,
) -> Planned:
    """Compute the device's budget and spend it, or follow a plan that is given.

    Raises:
        BudgetError: the device, or what was asked for, leaves too little for any plan.
        InputError: the given plan is not one of this model.
    """
    settings, device = subject.settings, subject.device
    search = prepare(subject.groups, table, subject.recipe, subject.precision, device.rank_multiple)
    budget = weight_budget(
        device, subject.shape, fixed_bytes(subject, dense), subject.context_tokens,
        subject.precision,
    )  # fmt: skip
    require_feasible(budget, search.smallest_bytes, device)
    base = Planned(
        subject, dense, calibration, table, search, budget, search.plan(search.dense_bytes)
    )
    if given_plan is not None:
        return _follow(base, given_plan)
    if settings.keep is not None:
        asked = int(settings.keep * search.dense_bytes)
    elif settings.max_size_bytes is not None:
        asked = _bytes_inside_file(base, settings.max_size_bytes)
    else:
        return _inside_the_gate(base, listener)
    if asked > budget.weight_bytes:
        listener.note(
            f"The device leaves {budget.weight_bytes / 2**20:,.1f} MiB for the weights, less than "
            f"was asked for: the plan is made for the device."
        )
    return replace(base, plan=search.plan(min(asked, budget.weight_bytes)))


def _follow(made: Planned, path: Path) -> Planned:
    """Take a plan from a file, possibly edited."""
    given = read_plan(path)
    check_plan(given, made.search)
    sites = tuple(_priced(site, made) for site in given.sites)
    plan = replace(
        given,
        sites=sites,
        planned_bytes=sum(site.candidate.bytes for site in sites),
        predicted_loss=sum(site.candidate.predicted_loss for site in sites),
    )
    return replace(made, plan=plan)


def _priced(site: SitePlan, made: Planned) -> SitePlan:
    """Count again what an edited site costs: people change forms and ranks, not bytes."""
    form, rank, shape = (
        site.candidate.form,
        site.candidate.rank,
        (site.in_features, site.out_features),
    )
    precision = made.subject.precision
    width, count = PRECISION_BYTES[precision], parameters(form, *shape, rank)
    loss = 0.0 if form == "dense" else float(made.spectra.loss[site.name][rank])
    size = count * width + index_bytes(form, *shape)
    return replace(
        site,
        candidate=Candidate(form, rank, precision, size, 2 * count, loss),
        dense_bytes=site.in_features * site.out_features * width,
    )


def fixed_bytes(subject: Subject, dense: DenseExport) -> int:
    """Bytes of the weights that are never factorized, in the precision of the bundle."""
    factorizable = sum(site.parameters for site in subject.sites)
    width = PRECISION_BYTES[subject.precision]
    rest = dense.bundle.weight_bytes - PRECISION_BYTES["float32"] * factorizable
    return rest * width // PRECISION_BYTES["float32"]


def _bytes_inside_file(base: Planned, largest_bytes: int) -> int:
    """Bytes for the factorizable weights, so that graph and sidecar stay within a size.

    Raises:
        BudgetError: the smallest plan makes a larger file.
    """
    subject, search = base.subject, base.search
    overhead_bytes = fixed_bytes(subject, base.dense) + NODE_BYTES * len(subject.sites)
    if subject.precision == "float16":  # which does not halve the nodes
        overhead_bytes += base.dense.bundle.model_path.stat().st_size // 2
    asked = min(largest_bytes - overhead_bytes, search.dense_bytes)
    while asked >= search.smallest_bytes:
        plan = search.plan(asked)
        padding = padding_bytes(size for site in plan.sites for size in _tensor_bytes(site))
        excess = overhead_bytes + plan.planned_bytes + padding - largest_bytes
        if excess <= 0:
            return asked
        asked = min(asked, plan.planned_bytes) - excess
    smallest_bytes = overhead_bytes + search.smallest_bytes
    raise BudgetError(
        f"The smallest plan makes a file of about {smallest_bytes:,} bytes, and --max-size is "
        f"{largest_bytes:,}. The nearest feasible point is about --max-size "
        f"{-(-smallest_bytes // 1000) + 1}KB."
    )


def _tensor_bytes(site: SitePlan) -> tuple[int, ...]:
    """Sizes of the stored weights of a site."""
    candidate = site.candidate
    if candidate.form == "dense":
        return (candidate.bytes,)
    small, large = sorted((site.in_features, site.out_features))
    rest = small - candidate.rank if candidate.form == "pivoted" else small
    width = PRECISION_BYTES[candidate.precision]
    return (candidate.rank * large * width, candidate.rank * rest * width)


def _inside_the_gate(base: Planned, listener: Listener) -> Planned:
    """Find the smallest plan inside the accuracy limit, measured on the selection text."""
    model, limit = base.subject.model, loss_limit(base.subject.max_drop, base.subject.model.task)
    increase = _measure_increase(model, _selection(base.subject))
    rounds = 0

    def measure(plan: Plan) -> float:
        nonlocal rounds
        rounds += 1
        with planned(model.module, base.spectra, plan):
            loss = increase()
        listener.note(
            f"search, round {rounds}: {plan.kept:.1%} kept, measured loss {loss:.4f} "
            f"(predicted {plan.predicted_loss:.4f}, limit {limit:.4f})"
        )
        return loss

    largest_bytes = base.budget.weight_bytes
    found = smallest_plan(base.search, limit, measure, largest_bytes)
    if found is not None:
        return replace(base, plan=found.plan, loss_factor=found.factor)
    listener.note("No smaller plan stays inside the accuracy gate: the largest that fits is taken.")
    return replace(base, plan=base.search.plan(min(base.search.dense_bytes, largest_bytes)))


def _selection(subject: Subject) -> Calibration:
    """Tokenize the text that plans are measured on."""
    decodes = subject.model.task == "text-generation"
    length = min(SELECTION_LENGTH, shape_of(subject.model)[1]) if decodes else None
    name = f"{subject.texts.evaluation_name}, second half"
    return tokenize(subject, subject.texts.selection, SELECTION_TOKENS, length, name)


def _measure_increase(model: LoadedModel, held_out: Calibration) -> Callable[[], float]:
    """Return a function that tells how much the loss of ``model`` has grown since now."""
    if model.exporter.loss == "next_token":
        dense_loss = mean_loss(model, held_out)
        return lambda: mean_loss(model, held_out) - dense_loss
    original = embeddings(model, held_out)
    return lambda: float(1 - (embeddings(model, held_out) * original).sum(-1).mean())
