"""What a plan aims for: a share, a size, a time, an accuracy; always inside the device's memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from edgelr.core.errors import BudgetError, InputError
from edgelr.core.plan import Candidate, Plan
from edgelr.core.run import Run
from edgelr.core.sites import SiteGroup
from edgelr.core.vocabulary import PRECISION_BYTES
from edgelr.device.budget import require_feasible
from edgelr.device.gate import loss_limit
from edgelr.device.latency import (
    Product,
    bytes_and_time,
    can_predict,
    slower_than_dense,
)
from edgelr.device.storage import stored, tensor_bytes
from edgelr.graph.save import padding_bytes
from edgelr.planning.allocate import Search
from edgelr.planning.allocators import ONE_KNOB
from edgelr.planning.files import follow_plan, read_plan
from edgelr.planning.search import Limit, largest_plan, plan_within, smallest_plan
from edgelr.stages.source import Source
from edgelr.stages.subject import Costs, DenseExport, Planned, Subject, make_search

Made: TypeAlias = Planned[Any, Any]


def allocate(
    source: Source,
    subject: Subject,
    dense: DenseExport,
    costs: Costs,
    run: Run,
    given_plan: Path | None = None,
) -> Made:
    """Compute the device's budget and spend it, or follow a plan that is given.

    Args:
        source: prices and measures plans of the original.
        subject: original and settings.
        dense: original as ONNX.
        costs: predicted losses of its linears.
        run: cache, listener, clock and seed.
        given_plan: plan file to follow, possibly edited.

    Raises:
        BudgetError: the device, or what was asked for, leaves too little for any plan.
        InputError: the given plan is not one of this model.
    """
    search = make_search(subject, costs.spectra)
    budget = source.budget(subject, dense)
    require_feasible(budget, search.plan(search.smallest_bytes).resident_bytes, subject.device)
    base = Planned(subject, dense, costs, search, budget, search.plan(search.dense_bytes))
    if given_plan is not None:
        return replace(base, plan=follow_plan(read_plan(given_plan), search, costs.spectra))
    if subject.settings.max_latency is not None:
        return _inside_latency(source, base, subject.settings.max_latency)
    fast = _for_speed(base)
    if fast is not None:
        with suppress(BudgetError):
            smallest = fast.search.plan(fast.search.smallest_bytes)
            require_feasible(budget, smallest.resident_bytes, subject.device)
            return _inside_bytes(source, fast, run)
        run.note(
            "What was asked for forces linears into forms that this device was measured to run "
            "slower than dense ones."
        )
    return _inside_bytes(source, base, run)


def _for_speed(base: Made) -> Made | None:
    """Leave out what a device that was measured runs slower than dense, and weigh time with bytes.

    Returns:
        None where nothing was measured, or linears cannot stay dense.
    """
    subject, search = base.subject, base.search
    measured = subject.device.kernels is not None and can_predict(subject.device)
    if not measured or "dense" not in subject.recipe.forms:
        return None
    clock, runs = subject.clock, subject.runs
    fast = search.without(slower_than_dense(clock, runs))
    if subject.recipe.allocator not in ONE_KNOB:  # which spread bytes by a rule of their own
        fast = replace(fast, price=bytes_and_time(clock, runs))
    return replace(base, search=fast)


def _inside_bytes(source: Source, base: Made, run: Run) -> Made:
    """Follow the share, the size, or the accuracy gate that was asked for.

    Raises:
        BudgetError: the smallest plan is larger.
    """
    settings, search, budget = base.subject.settings, base.search, base.budget
    if settings.keep is not None:
        asked = int(settings.keep * search.dense_bytes)
    elif settings.max_size_bytes is not None:
        asked = _bytes_inside_file(base, settings.max_size_bytes)
        _note_needless_size(base, settings.max_size_bytes, run)
    else:
        return _inside_the_gate(source, base, run)
    plan = search.plan(asked)
    if plan.resident_bytes > budget.weight_bytes:
        run.note(
            f"The device leaves {budget.weight_bytes / 2**20:,.1f} MiB for the weights, and what "
            f"was asked for takes {plan.resident_bytes / 2**20:,.1f}: the plan is made for the "
            f"device."
        )
        plan = largest_plan(search, budget.weight_bytes)
    return replace(base, plan=plan)


def fixed_bytes(subject: Subject, dense: DenseExport) -> int:
    """Bytes of the weights that are never factorized, in the precision of the bundle."""
    before, after = dense.bundle.manifest.precision, subject.precision
    rest = dense.bundle.weight_bytes - PRECISION_BYTES[before] * subject.planned_parameters
    return rest * PRECISION_BYTES[after] // PRECISION_BYTES[before]


def _bytes_inside_file(base: Made, largest_bytes: int) -> int:
    """Bytes for the factorizable weights, so that graph and sidecar stay within a size.

    Raises:
        BudgetError: the smallest plan makes a larger file.
    """
    subject, search, dense = base.subject, base.search, base.dense.bundle
    overhead_bytes = fixed_bytes(subject, base.dense)
    if subject.precision != dense.manifest.precision:  # which does not halve the nodes
        overhead_bytes += dense.model_path.stat().st_size // 2
    asked = min(largest_bytes - overhead_bytes, search.dense_bytes)
    while asked >= search.smallest_bytes:
        plan = search.plan(asked)
        nodes = subject.node_bytes * sum(site.changed for site in plan.sites)
        padding = padding_bytes(_tensor_bytes(plan, search))
        excess = overhead_bytes + nodes + plan.planned_bytes + padding - largest_bytes
        if excess <= 0:
            return asked
        asked = min(asked, plan.planned_bytes) - excess
    nodes = subject.node_bytes * len(subject.sites)
    smallest_bytes = overhead_bytes + search.smallest_bytes + nodes
    raise BudgetError(
        f"The smallest plan makes a file of about {smallest_bytes:,} bytes, and --max-size is "
        f"{largest_bytes:,}. The nearest feasible point is about --max-size "
        f"{-(-smallest_bytes // 1000) + 1}KB."
    )


def _note_needless_size(base: Made, largest_bytes: int, run: Run) -> None:
    """Say so where the original is no larger than what was asked for."""
    whole_bytes = fixed_bytes(base.subject, base.dense) + base.search.dense_bytes
    if largest_bytes >= whole_bytes:
        run.note(
            f"--max-size allows {largest_bytes / 1e6:,.1f} MB, and the original takes "
            f"{whole_bytes / 1e6:,.1f} MB in {base.subject.precision}: nothing has to become "
            f"smaller."
        )


def _tensor_bytes(plan: Plan, search: Search) -> Iterator[int]:
    """Sizes of the stored weights of a plan."""
    planned = {site.group or site.name: site.candidate for site in plan.sites}
    for group in search.groups:
        candidate = planned.get(group.name)
        if candidate is not None:
            for shape in stored(candidate.form, group, candidate.rank).matrices:
                yield from tensor_bytes(shape, candidate.precision, search.values)


def _inside_latency(source: Source, base: Made, limit_ms: float) -> Made:
    """Lose least within a predicted time of a decoded token, or of another model's forward pass.

    Raises:
        InputError: the profile has no rates.
        BudgetError: the fastest plan takes longer, or nothing that is fast enough fits.
    """
    subject: Subject = base.subject
    search = base.search
    if not can_predict(subject.device):
        raise InputError(
            f"--max-latency needs the rates of the device, and the profile {subject.device.id} has "
            f"none. Run 'edgelr profiles detect' on it, and give the file that it writes as "
            f"--profile."
        )
    predictor, run = subject.clock, subject.runs[-1]
    rows = run.batch * run.tokens

    def price(group: SiteGroup, candidate: Candidate) -> int:
        return round(1e9 * predictor.group_seconds(group, candidate, rows))

    workload = source.workload(subject, base.dense.bundle).in_precision(subject.precision)
    replaced = (predictor.product_seconds(product, rows) for product in _planned_products(subject))
    fixed_ns = round(1e6 * predictor.milliseconds(workload, run)) - round(1e9 * sum(replaced))
    room_ns, fastest_ns = round(1e6 * limit_ms) - fixed_ns, search.priced(price).cheapest
    if fastest_ns > room_ns:
        fastest_ms = (fastest_ns + fixed_ns) / 1e6
        raise BudgetError(
            f"The fastest plan is predicted to take {fastest_ms:.4g} ms, and --max-latency is "
            f"{limit_ms:g}. The nearest feasible point is about --max-latency "
            f"{1.001 * fastest_ms:.4g}."
        )
    memory = Limit(search.resident_bytes, base.budget.weight_bytes)
    plan = plan_within(search, Limit(price, room_ns), memory)
    if plan is None:
        raise BudgetError(
            f"No plan was found that takes {limit_ms:g} ms at most and fits the "
            f"{memory.most:,} bytes that the device leaves for the weights. Allow more with "
            f"--max-latency, or give --keep or --max-size instead."
        )
    return replace(base, plan=plan)


def _planned_products(subject: Subject) -> Iterator[Product]:
    """Products of the original that a plan replaces."""
    for site in subject.multiplied:
        often = site.positions_per_token
        yield Product(site.in_features, site.out_features, subject.precision, often)


def _inside_the_gate(source: Source, base: Made, run: Run) -> Made:
    """Find the smallest plan inside the accuracy limit, measured on the selection text.

    Like the gate of the finished bundle, the bad end of what is measured decides.
    """
    subject = base.subject
    limit = loss_limit(subject.max_drop, subject.task)
    measured = source.measured_loss(subject, base.costs, run)
    rounds = 0

    def measure(plan: Plan) -> float:
        nonlocal rounds
        rounds += 1
        loss = measured(plan)
        run.note(
            f"search, round {rounds}: {plan.kept:.1%} kept, measured loss {loss:.4f} at most "
            f"(predicted {plan.predicted_loss:.4f}, limit {limit:.4f})"
        )
        return loss

    largest = largest_plan(base.search, base.budget.weight_bytes)
    found = smallest_plan(base.search, limit, measure, largest.planned_bytes)
    if found is not None:
        return replace(base, plan=found.plan, loss_factor=found.factor)
    run.note("No smaller plan stays inside the accuracy gate: the largest that fits is taken.")
    return replace(base, plan=largest)
