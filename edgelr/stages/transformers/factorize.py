"""From a plan to its factors: truncate, solve again where the recipe says so, heal where asked."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from edgelr.compress.block_quantized import Blocks
from edgelr.compress.compressed_model import loss_increase, multiplied
from edgelr.compress.decompose import compressed_groups, truncate
from edgelr.compress.factors import FactorSet, LowRank
from edgelr.compress.forms import balance
from edgelr.compress.heal import Healing, heal, multiplies_bfloat16
from edgelr.compress.methods import METHODS
from edgelr.compress.quantization import Rounded, RoundedWeights, round_factors
from edgelr.compress.refit import FactorSource, refit
from edgelr.compress.rescale import Scales, components, solve_step
from edgelr.compress.shared_basis import group_loss, refine_basis
from edgelr.compress.spectra import SpectrumTable, read_factors, write_factors
from edgelr.compress.statistics import StatisticsStore
from edgelr.core.cache import digest, unfinished
from edgelr.core.plan import Plan
from edgelr.core.run import Run
from edgelr.core.vocabulary import WeightPrecision
from edgelr.data.calibration import spread
from edgelr.model.sites import weight_of
from edgelr.stages.transformers.calibration_data import selection, to_heal_on
from edgelr.stages.transformers.subject import ModelPlanned, ModelSubject

FILE, NOTES = "factors.safetensors", "notes.txt"
JUDGED_TOKENS = 2048  # of held-out text, after every part of a healing: no more than a few steps
COMPARED_TOKENS = 4096  # of held-out text at most: the same text before and after: few tell
REFIT_TOKENS = 16384  # read by every block twice, dense and compressed
SCALE_STEPS = 4  # at most; each on a text of its own, where there is enough
SCALE_TOKENS = 16384  # to learn from in a step
SCALE_BYTES = 2**31  # of derivatives on the disk: large models learn from fewer tokens
RIDGES = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)  # on scales, the most cautious first
Improve = Callable[[FactorSet, Path], "Factored"]


@dataclass(frozen=True)
class Factored:
    """Products of every compressed site, and what was done to them.

    ``blocks`` says how rounded matrices are stored; see ``quantization.Rounded``.
    """

    factors: FactorSet
    notes: tuple[str, ...] = ()
    blocks: Mapping[str, Blocks] = field(default_factory=dict)


def make_factors(made: ModelPlanned, run: Run) -> Factored:
    """Make the factors of a plan. Long steps are kept in the cache, and found again."""
    found = Factored(truncate(made.spectra, made.plan))
    if not found.factors:  # everything stays dense
        return rounded(made, found)
    sites = [(asdict(site.candidate), site.group) for site in made.plan.sites]
    key = digest(made.spectra.folder.name, sites, made.subject.texts.selection)
    for name, improve in _improvements(made, run):
        key = digest(name, key)
        found = _kept(name, key, run, found, improve)
    return rounded(made, found)


def rounded(made: ModelPlanned, found: Factored) -> Factored:
    """Round what the plan stores in int8, int4 or int2, after everything else was done."""
    result = rounded_as(made.subject, made.costs.statistics, made.spectra, made.plan, found.factors)
    return Factored(result.factors, found.notes, result.blocks)


def measured_loss(
    subject: ModelSubject,
    statistics: StatisticsStore,
    spectra: SpectrumTable,
    plan: Plan,
    increase: Callable[[], float],
) -> float:
    """Measure a plan by ``increase``, with its factors as they are truncated and rounded."""
    factors = rounded_as(subject, statistics, spectra, plan, truncate(spectra, plan)).factors
    with multiplied(subject.model.module, factors):
        return increase()


def rounded_as(
    subject: ModelSubject,
    statistics: StatisticsStore,
    spectra: SpectrumTable,
    plan: Plan,
    factors: FactorSet,
) -> Rounded:
    """Round what ``plan`` stores in int8, int4 or int2, in the metric of the recipe's method."""
    sites = {site.name: site for site in subject.sites}
    groups = {site.name: site.group or site.name for site in plan.sites}
    method = METHODS.get(subject.recipe.method)

    def input_gram_of(name: str) -> Tensor | None:
        return method.metric(statistics.of(sites[name]))[1]

    def weight_of(name: str, precision: WeightPrecision) -> Blocks:
        return spectra.weight(groups[name], name, precision)

    weights = RoundedWeights(subject.recipe.rounding, input_gram_of, weight_of)
    return round_factors(plan, factors, weights)


def _improvements(made: ModelPlanned, run: Run) -> Iterator[tuple[str, Improve]]:
    """What the recipe and the settings ask for, in this order."""
    recipe, asked = made.subject.recipe, healing(made)
    if "basis" in recipe.refine:
        yield "basis", lambda found, _: _with_better_bases(made, found)
    if "refit" in recipe.refine:
        yield "refit", lambda found, _: _refitted(made, found, run)
    if "scale" in recipe.refine:
        yield "steps", lambda found, work: _rescaled(made, found, work, run)
    if asked is not None:
        text = "-".join(str(value) for value in asdict(asked).values())
        yield (
            f"healing-{digest(text)}",
            lambda found, work: _healed(made, found, asked, work, run),
        )


def _kept(name: str, key: str, run: Run, found: Factored, improve: Improve) -> Factored:
    """Improve the factors, or find them improved."""

    def write(folder: Path) -> None:
        work = run.cache.root / f"unfinished-{name}-{key}"
        better = improve(found.factors, work)
        write_factors(folder / FILE, better.factors)
        (folder / NOTES).write_text("\n".join(better.notes), encoding="utf-8")
        shutil.rmtree(work, ignore_errors=True)

    folder = run.stage(name, (key,), write)
    notes = (folder / NOTES).read_text(encoding="utf-8").splitlines()
    return Factored(read_factors(folder / FILE), (*found.notes, *notes))


def _with_better_bases(made: ModelPlanned, factors: FactorSet) -> Factored:
    """Solve the bases that blocks share, and their coefficients, in turns."""
    method, changed = METHODS.get(made.subject.recipe.method), dict(factors)
    before = after = 0.0
    chosen = compressed_groups(made.plan)
    shared = [group for group in made.subject.groups if group.kind == "blocks"]
    groups = [group for group in shared if group.name in chosen]
    for group in groups:
        weights = [weight_of(made.subject.model, site.name).double() for site in group.sites]
        metrics = [method.metric(made.costs.statistics.of(site)) for site in group.sites]
        parts = [factors[site.name] for site in group.sites]
        products = [each for each in parts if isinstance(each, LowRank)]
        ups = torch.cat([each.up for each in products], dim=1)
        whole = LowRank(products[0].down.double(), ups.double(), group.name)
        better = balance(refine_basis(whole, weights, metrics))
        before += group_loss(whole, weights, metrics)
        after += group_loss(better, weights, metrics)
        sizes = [site.out_features for site in group.sites]
        for site, up in zip(group.sites, better.up.split(sizes, dim=1), strict=True):
            changed[site.name] = LowRank(better.down.float(), up.float().contiguous(), group.name)
    note = (
        f"Bases shared by blocks, solved in turns with their coefficients: {len(groups)} groups, "
        f"their error fell by {1 - after / before:.1%}."
        if groups
        else "No blocks share a basis."
    )
    return Factored(changed, (note,))


def _refitted(made: ModelPlanned, factors: FactorSet, run: Run) -> Factored:
    subject = made.subject
    method = METHODS.get(subject.recipe.method)
    result = refit(
        subject.model,
        FactorSource(made.plan, subject.groups, made.costs.statistics, method),
        factors,
        spread(made.costs.calibration, REFIT_TOKENS),
        selection(subject),
        run.progress,
    )
    note = (
        f"Refitted on the compressed model's own inputs: {result.kept_blocks} of {result.blocks} "
        f"blocks came closer to the original on held-out text and kept their new factors."
    )
    return Factored(result.factors, (note,))


def _rescaled(made: ModelPlanned, factors: FactorSet, work: Path, run: Run) -> Factored:
    """Scale the kept components, as boldly and as often as held-out text shows to be right."""
    subject, unknowns = made.subject, components(factors)
    if not unknowns:
        return Factored(factors)
    tokens = min(SCALE_TOKENS, SCALE_BYTES // (2 * unknowns))
    parts = spread(made.costs.calibration, SCALE_STEPS * tokens)
    texts = max(1, sum(part.tokens for part in parts) // tokens)
    compared = min(COMPARED_TOKENS, sum(part.tokens for part in parts))
    increase = loss_increase(subject.model, selection(subject).first(compared))

    def held_out(changed: FactorSet) -> float:
        with multiplied(subject.model.module, changed):
            return increase()

    losses = [held_out(factors)]
    ridges: Sequence[float] = RIDGES
    for step in range(SCALE_STEPS):
        own = [part.every(texts, step % texts) for part in parts]
        seed = run.seed + 1 + step  # labels that the statistics did not see
        with unfinished(work) as scratch:  # gigabytes, of no use to another run
            scales = solve_step(subject.model, factors, own, seed, scratch, run.progress)
        loss, lowered = _boldest(scales, held_out, losses[-1], ridges)
        if not lowered:
            break
        losses.append(loss)
        factors = scales.folded(lowered[-1])
        ridges = RIDGES[max(0, RIDGES.index(lowered[-1]) - 1) :]  # the next step is much like it
    note = (
        f"Scales of the kept components, to make up for the dropped ones: held-out loss "
        f"{losses[0]:.4f} before, {losses[-1]:.4f} after {len(losses) - 1} steps"
        f"{'' if len(losses) > 1 else ': none are taken'}."
    )
    return Factored(factors, (note,))


def _boldest(
    scales: Scales,
    held_out: Callable[[FactorSet], float],
    before: float,
    ridges: Sequence[float],
) -> tuple[float, list[float]]:
    """Lower the ridge for as long as the held-out loss falls; return it, and what lowered it."""
    best, lowered = before, []
    for ridge in ridges:
        loss = held_out(scales.folded(ridge))
        if loss >= best:
            break
        best = loss
        lowered.append(ridge)
    return best, lowered


def _healed(
    made: ModelPlanned,
    factors: FactorSet,
    asked: Healing,
    work: Path,
    run: Run,
) -> Factored:
    work.mkdir(parents=True, exist_ok=True)
    subject = made.subject
    texts = to_heal_on(subject, made.dense, made.costs.calibration, run)
    held_out = selection(subject).first(JUDGED_TOKENS)
    result = heal(subject.model, factors, texts, held_out, asked, work, run.progress)
    note = (
        f"Healed by distillation for {result.steps:,} steps ({result.seconds:,.0f} s, products in "
        f"{'bfloat16' if asked.bfloat16 else 'float32'}): held-out "
        f"loss {result.first_loss:.4f} before, {result.best_loss:.4f} at step {result.best_step:,}."
    )
    return Factored(result.factors, tuple(filter(None, (note, result.note))))


def healing(made: ModelPlanned) -> Healing | None:
    """What the settings ask for; None where they ask for no healing."""
    settings = made.subject.settings
    if settings.heal_steps is None and settings.heal_minutes is None:
        return None
    return Healing(
        steps=settings.heal_steps,
        minutes=settings.heal_minutes,
        sites=settings.heal_sites or made.subject.recipe.heal,
        adapter=settings.heal_adapter,
        bfloat16=multiplies_bfloat16(),
        seed=settings.seed,
    )
