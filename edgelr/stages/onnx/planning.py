"""From a subject to its plan: decompose, measure sensitivities, allocate inside the device."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgelr.compress.spectra import SpectrumTable
from edgelr.core.errors import BudgetError
from edgelr.core.intervals import upper_end
from edgelr.core.plan import Budget, Plan
from edgelr.core.run import Run
from edgelr.core.sites import SiteGroup
from edgelr.data.tensors import take, write_samples
from edgelr.device.budget import require_feasible
from edgelr.device.storage import tensor_bytes
from edgelr.graph.residency import read_residency
from edgelr.graph.save import padding_bytes
from edgelr.plan.allocate import Search, prepare
from edgelr.plan.files import follow_plan, read_plan
from edgelr.plan.search import largest_plan, smallest_plan
from edgelr.runtime.worker_client import Worker
from edgelr.stages.onnx.components import Components, read_components, write_components
from edgelr.stages.onnx.sensitivity import PROBE_SAMPLES, Weights, measure_losses, open_probe
from edgelr.stages.onnx.subject import Subject

NODE_BYTES = 512  # names and nodes of a linear that is split
SEARCH_SAMPLES = 64  # on which plans are judged while they are made
_LOSSES = "losses.npz"


@dataclass(frozen=True)
class Planned:
    """A plan, and everything that it came from."""

    subject: Subject
    weights: Weights
    table: SpectrumTable
    search: Search
    budget: Budget
    plan: Plan
    loss_factor: float | None = None

    @property
    def ranks(self) -> dict[str, int]:
        """Ranks of the linears that are split."""
        return {site.name: site.candidate.rank for site in self.plan.sites if site.changed}


def make_plan(subject: Subject, run: Run, given_plan: Path | None = None) -> Planned:
    """Decide what every linear becomes.

    Raises:
        BudgetError: the device, or what was asked for, leaves too little for any plan.
        InputError: the given plan is not one of this graph.
    """
    weights = open_probe(subject.dense.model_path, decomposed(subject, run))
    table = spectra(subject, weights, run)
    search = _search(subject, table)
    budget = _budget(subject, search)
    require_feasible(budget, search.plan(search.smallest_bytes).resident_bytes, subject.device)
    made = Planned(subject, weights, table, search, budget, search.plan(search.dense_bytes))
    if given_plan is not None:
        return replace(made, plan=follow_plan(read_plan(given_plan), search, table))
    return _spend(made, run)


def decomposed(subject: Subject, run: Run) -> Components:
    """Decompose the linears, or find them decomposed."""
    graph = subject.dense.model_path

    def write(folder: Path) -> None:
        write_components(graph, subject.calibration, folder, run.progress)

    folder = run.stage("onnx-components", (subject.key,), write)
    return read_components(folder, [site.name for site in subject.linears.sites])


def spectra(subject: Subject, weights: Weights, run: Run) -> SpectrumTable:
    """Measure what linears cost the outputs, or find it measured.

    Those that no rank makes smaller are not measured.
    """
    sites = subject.linears.sites
    flat = {name: np.zeros_like(error) for name, error in weights.components.errors.items()}
    options = _search(subject, SpectrumTable(Path(), flat)).options
    names = [option.name for option in options if option.compressed]

    def write(folder: Path) -> None:
        samples = take(subject.selection, 0, PROBE_SAMPLES)
        found = measure_losses(weights, names, samples, run.progress)
        arrays = {str(index): found[name] for index, name in enumerate(names)}
        np.savez(folder / _LOSSES, allow_pickle=False, **arrays)

    folder = run.stage("onnx-losses", (subject.key, names), write)
    with np.load(folder / _LOSSES, allow_pickle=False) as file:
        found = {name: file[str(index)] for index, name in enumerate(names)}
    return SpectrumTable(
        folder, {site.name: found.get(site.name, flat[site.name]) for site in sites}
    )


def _search(subject: Subject, table: SpectrumTable) -> Search:
    return prepare(
        [SiteGroup(site.name, (site,)) for site in subject.linears.sites],
        table,
        subject.recipe,
        subject.precision,
        subject.device.rank_multiple,
        packs=subject.device.provider == "cpu",
    )


def _budget(subject: Subject, search: Search) -> Budget:
    """Add up the device's memory; what one run takes is measured here, on the original."""
    device, dense = subject.device, subject.dense
    with Worker() as worker, tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs.npz"
        write_samples(inputs, take(subject.held_out, 0, 1))
        worker.open(dense, inputs=inputs)
        before = worker.memory()
        worker.run_ms("forward", 1, 0, 0)
        activations = max(0, worker.memory().peak_bytes - before.resident_bytes)
    fixed = read_residency(dense.model_path, device.provider).bytes - search.dense_bytes
    return Budget(
        device_bytes=device.visible_bytes,
        reserved_bytes=device.reserved_bytes,
        runtime_bytes=device.runtime_bytes,
        fixed_weight_bytes=max(0, fixed),
        activation_bytes=activations,
        cache_bytes=0,
        context_tokens=0,
    )


def _spend(made: Planned, run: Run) -> Planned:
    """Aim at what the settings ask for, inside what the device leaves."""
    settings, search = made.subject.settings, made.search
    if settings.keep is not None:
        asked = int(settings.keep * search.dense_bytes)
    elif settings.max_size_bytes is not None:
        asked = _bytes_inside_file(made, settings.max_size_bytes)
    else:
        return _inside_the_gate(made, run)
    plan = search.plan(asked)
    if plan.resident_bytes > made.budget.weight_bytes:
        run.note("The device leaves less memory than was asked for: the plan is made for it.")
        plan = largest_plan(search, made.budget.weight_bytes)
    return replace(made, plan=plan)


def _bytes_inside_file(made: Planned, largest_bytes: int) -> int:
    """Bytes for the factorizable weights, so that graph and sidecar stay within a size.

    Raises:
        BudgetError: the smallest plan makes a larger file.
    """
    search, dense = made.search, made.subject.dense
    factors = [
        size
        for site in made.subject.linears.sites
        for size in 2
        * tensor_bytes((site.in_features, site.out_features), search.values, search.values)
    ]
    overhead = dense.weight_bytes - search.dense_bytes + padding_bytes(factors)
    asked = min(largest_bytes - overhead - NODE_BYTES * len(search.groups), search.dense_bytes)
    if asked < search.smallest_bytes:
        smallest = largest_bytes + search.smallest_bytes - asked
        raise BudgetError(
            f"The smallest plan makes a file of about {smallest:,} bytes, and --max-size is "
            f"{largest_bytes:,}. The nearest feasible point is about --max-size "
            f"{-(-smallest // 1000)}KB."
        )
    return asked


def _inside_the_gate(made: Planned, run: Run) -> Planned:
    """Find the smallest plan inside the accuracy limit, on inputs that whitened no weight."""
    limit = made.subject.max_drop
    samples = take(made.subject.selection, 0, SEARCH_SAMPLES)
    expected = made.weights.outputs({}, samples)

    def measure(plan: Plan) -> float:
        ranks = replace(made, plan=plan).ranks
        found = upper_end(made.weights.distances(ranks, samples, expected))
        run.note(
            f"search: {plan.kept:.1%} kept, measured cosine distance {found:.4f} at most "
            f"(predicted {plan.predicted_loss:.4f}, limit {limit:.4f})"
        )
        return found

    largest = largest_plan(made.search, made.budget.weight_bytes)
    best = smallest_plan(made.search, limit, measure, largest.planned_bytes)
    if best is not None:
        return replace(made, plan=best.plan, loss_factor=best.factor)
    run.note("No smaller plan stays inside the accuracy gate: the largest that fits is taken.")
    return replace(made, plan=largest)
