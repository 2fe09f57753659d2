"""What every form, rank and precision of a linear would cost: Grams, spectra, rounding.

Each is a stage of its own in the cache: another budget, device or recipe finds what it can use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from edgelr.compress import statistics as statistic
from edgelr.compress.compressed_model import multiplied
from edgelr.compress.decompose import decompose, truncate
from edgelr.compress.embedding_table import (
    TABLE_TOKENS,
    TableStatistics,
    collect_table,
    read_table_statistics,
    round_table,
)
from edgelr.compress.factors import FactorSet
from edgelr.compress.importance import KEEP, STEPS, Schedule, collect_importance, learn_importance
from edgelr.compress.methods import METHODS, Need
from edgelr.compress.quantization import round_groups
from edgelr.compress.spectra import SpectrumTable, read_spectra
from edgelr.core.cache import digest
from edgelr.core.run import Run
from edgelr.core.vocabulary import LAYOUTS, WeightPrecision
from edgelr.data import calibration as calibrations
from edgelr.data.calibration import Calibration
from edgelr.model.token_table import table_layouts
from edgelr.stages.transformers.loss_correction import corrected
from edgelr.stages.transformers.subject import ModelPlanned, ModelSubject


def statistics(
    subject: ModelSubject,
    calibration: list[Calibration],
    run: Run,
    before: ModelPlanned | None = None,
) -> tuple[statistic.StatisticsStore, str]:
    """Collect what the method needs, or find it; return it with its key.

    With a plan ``before``, they are those of the model that it compresses: another round.
    """
    parts = [part.key for part in calibration]
    key = digest(subject.model.digest, parts)
    factors: FactorSet = {}
    if before is not None:
        factors = truncate(before.spectra, before.plan)
        key = digest(key, before.spectra.folder.name, asdict(before.plan))

    def collected(need: Need) -> Path:
        def write(folder: Path) -> None:
            with multiplied(subject.model.module, factors):
                statistic.collect(
                    subject.model,
                    subject.sites,
                    calibration,
                    frozenset({need}),
                    folder,
                    run.seed,
                    run.progress,
                )

        seed = run.seed if need == "output_gradient_gram" else None
        return run.stage("statistics", (key, need, seed), write)

    folders = {need: collected(need) for need in sorted(METHODS.get(subject.recipe.method).needs)}
    units = statistic.units_per_token(subject.model, calibration)
    store = statistic.StatisticsStore(folders, units)
    return store, digest(key, *(folder.name for folder in folders.values()))


def spectra(
    subject: ModelSubject,
    statistics: tuple[statistic.StatisticsStore, str],
    run: Run,
    calibration: Sequence[Calibration] = (),
    before: ModelPlanned | None = None,
) -> SpectrumTable:
    """Decompose every group, or find the decomposition.

    Args:
        subject: model and settings.
        statistics: Grams of the linears, with their key.
        run: cache, listener, clock and seed.
        calibration: texts for a recipe that asks for the importance of components, and for the
            precision of the table of embeddings; others need none here.
        before: the plan of the round before, if there was one.
    """
    (store, key), recipe = statistics, subject.recipe
    method = METHODS.get(recipe.method)

    def write(folder: Path) -> None:
        decompose(
            subject.model,
            subject.groups,
            store,
            method,
            folder,
            run.progress,
            recipe.coefficients,
        )

    groups = [group.name for group in subject.groups]
    parts = (key, recipe.method, groups, recipe.coefficients)
    plain = read_spectra(run.stage("spectra", parts, write))
    if recipe.importance is not None:
        plain = _by_importance(subject, plain, list(calibration), before, run)
    return _with_rounding(subject, store, plain, run, calibration)


def _with_rounding(
    subject: ModelSubject,
    store: statistic.StatisticsStore,
    spectra: SpectrumTable,
    run: Run,
    calibration: Sequence[Calibration],
) -> SpectrumTable:
    """Round the weights to the precisions that they may have, and predict what that loses."""
    rounding = tuple(precision for precision in subject.weights if precision in LAYOUTS)
    if not rounding:
        return spectra
    model, recipe = subject.model, subject.recipe
    method = METHODS.get(recipe.method)

    chosen = [group for group in subject.groups if not group.sites[0].kernel]

    def write(folder: Path) -> None:
        asked = (recipe.rounding, rounding)
        round_groups(model, chosen, (store, method), spectra, asked, folder, run.progress)

    groups = [group.name for group in chosen]
    grams = [path.name for path in store.folders.values()]
    parts = (spectra.folder.name, grams, groups, recipe.rounding, rounding)
    spectra = spectra.with_rounded(run.stage("rounding", parts, write), groups)
    if subject.table is not None:
        spectra = _with_table(subject, spectra, rounding, store, run, calibration)
    if len(subject.weights) > 1:
        return corrected(subject, store, spectra, run)
    return spectra


def _with_table(
    subject: ModelSubject,
    spectra: SpectrumTable,
    rounding: tuple[WeightPrecision, ...],
    store: statistic.StatisticsStore,
    run: Run,
    calibration: Sequence[Calibration],
) -> SpectrumTable:
    """Add the table of embeddings, in the precisions whose blocks fill its rows."""
    table, model = subject.table, subject.model
    assert table is not None
    parts = calibrations.spread(list(calibration), TABLE_TOKENS)
    known = _table_statistics(subject, parts, run)
    fitting = [each for each in rounding if each in table_layouts(table.in_features)]
    asked = (subject.recipe.rounding, fitting)

    def write(folder: Path) -> None:
        round_table(model, known, store.units_per_token, asked, table, folder)

    keys = [part.key for part in parts]
    key = (model.digest, keys, run.seed, asked, store.units_per_token)
    return spectra.with_whole(table, run.stage("table_rounding", key, write))


def _table_statistics(subject: ModelSubject, parts: list[Calibration], run: Run) -> TableStatistics:
    """Collect what the rows of the table of embeddings are worth, or find it."""
    model, seed = subject.model, run.seed

    def write(folder: Path) -> None:
        collect_table(model, parts, seed, run.progress).write(folder)

    keys = [part.key for part in parts]
    return read_table_statistics(run.stage("table", (model.digest, keys, seed), write))


def _by_importance(
    subject: ModelSubject,
    plain: SpectrumTable,
    calibration: list[Calibration],
    before: ModelPlanned | None,
    run: Run,
) -> SpectrumTable:
    """Order and scale the components of every linear by what they are worth, or find it done."""
    assert calibration, "this recipe's spectra need the calibration texts"
    model, settings, learned = subject.model, subject.settings, subject.recipe.importance == "soco"
    keep = settings.keep or KEEP

    def write(folder: Path) -> None:
        if learned:
            schedule = Schedule(keep, run.seed)
            learn_importance(model, plain, calibration, schedule, folder, run.progress)
            return
        factors = {} if before is None else truncate(before.spectra, before.plan)
        units = statistic.units_per_token(model, calibration)
        with multiplied(model.module, factors):
            parts = calibrations.spread(calibration, statistic.GRADIENT_TOKENS)
            collect_importance(model, plain, parts, units, folder, run.seed, run.progress)

    parts = [part.key for part in calibration]
    own = (keep, STEPS) if learned else ()
    known = (subject.recipe.importance, plain.folder.name, parts, run.seed, own)
    return read_spectra(run.stage("importance", known, write))
