"""The rows of a bench: the dense model, then every recipe at every share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgelr.commands.bench.request import BenchRequest
from edgelr.commands.bench.results import RowBook
from edgelr.commands.bench.setup import Ground
from edgelr.compress.compressed_model import all_answers, likeness, mean_loss, multiplied
from edgelr.compress.factors import FactorSet
from edgelr.core.errors import BudgetError, InputError
from edgelr.core.plan import Plan
from edgelr.core.run import Run
from edgelr.core.settings import Settings, make_settings
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import PRECISION_BYTES
from edgelr.report.comparison import EVALUATION, Figures, Row, Score
from edgelr.report.comparison_tables import row_sentence
from edgelr.stages.objectives import allocate
from edgelr.stages.sources.transformers import ModelSource
from edgelr.stages.transformers import cost_model
from edgelr.stages.transformers.factorize import make_factors
from edgelr.stages.transformers.subject import ModelCosts, ModelSubject, examine

if TYPE_CHECKING:
    from torch import Tensor

DENSE = "dense"


@dataclass(frozen=True)
class _Ready:
    """One recipe, up to where the share is needed."""

    subject: ModelSubject
    costs: ModelCosts


class Rows:
    """Finds the rows that are finished, and makes the others one after the other."""

    def __init__(self, question: BenchRequest, ground: Ground, book: RowBook, run: Run) -> None:
        self._question, self._ground, self._book = question, ground, book
        self._run = run

    def all(self) -> tuple[Row, ...]:
        """Return every row that was asked for, the dense model's first."""
        keeps = self._question.keeps
        asked = [(recipe, keep) for recipe in self._question.recipes for keep in keeps]
        keys = [self._key(DENSE, None), *(self._key(*each) for each in asked)]
        self._tell(keys)
        if any(self._book.find(key) is None for key in keys):
            for row in self._made():
                self._book.add(row)
                self._run.note(row_sentence(row))
                self._tell(keys)
        return tuple(found for key in keys if (found := self._book.find(key)))

    def _tell(self, keys: list[str]) -> None:
        finished = sum(self._book.find(key) is not None for key in keys)
        self._run.progress("rows", finished, len(keys))

    def _made(self) -> Iterator[Row]:
        """Make the rows that are missing."""
        judge = _Judge(self._ground, self._run)
        if self._book.find(self._key(DENSE, None)) is None:
            yield self._dense_row(judge)
        for recipe in self._question.recipes:
            missing = [
                keep
                for keep in self._question.keeps
                if self._book.find(self._key(recipe, keep)) is None
            ]
            if missing:
                yield from self._recipe_rows(recipe, missing, judge)

    def _dense_row(self, judge: _Judge) -> Row:
        run, subject = self._run.timed(), self._ground.subject
        with run.time(EVALUATION):
            values = judge.values({})
        parameters = sum(site.parameters for site in subject.sites)
        figures = Figures(
            kept=1.0,
            planned_bytes=parameters * PRECISION_BYTES[subject.precision],
            dense_sites=len(subject.sites),
            compressed_sites=0,
            predicted_loss=0.0,
            scores=tuple(Score(text, value, 1.0) for text, value in values.items()),
        )
        return self._row(DENSE, None, run, figures)

    def _recipe_rows(self, recipe: str, keeps: list[float], judge: _Judge) -> Iterator[Row]:
        """Make the rows of one recipe; the seconds of what they share are those of the first."""
        ready: _Ready | None = None
        for keep in keeps:
            run = self._run.timed()
            try:
                if ready is None or ready.subject.recipe.importance == "soco":  # learns for a share
                    ready = self._ready(recipe, keep, run)
                row = self._row(recipe, keep, run, self._figures(ready, keep, judge, run))
            except (BudgetError, InputError) as error:
                row = self._row(recipe, keep, run, problem=str(error))
            yield row

    def _ready(self, recipe: str, keep: float, run: Run) -> _Ready:
        base = self._ground.subject
        settings = _with(base.settings, recipe=recipe, keep=keep)
        subject = examine(base.model, settings, base.device)
        with run.time("statistics"):
            store, key = cost_model.statistics(subject, self._ground.calibration, run)
        with run.time("decomposition"):
            spectra = cost_model.spectra(subject, (store, key), run, self._ground.calibration)
        return _Ready(subject, ModelCosts(self._ground.calibration, store, spectra))

    def _figures(self, ready: _Ready, keep: float, judge: _Judge, run: Run) -> Figures:
        ground = self._ground
        subject = replace(ready.subject, settings=_with(ready.subject.settings, keep=keep))
        with run.time("allocation"):
            source = ModelSource(subject.model)
            made = allocate(source, subject, ground.dense, ready.costs, run)
        with run.time("factors"):
            factored = make_factors(made, run)
        with run.time(EVALUATION):
            values = judge.values(factored.factors)
        return _figures(made.plan, self._scores(values), factored.notes)

    def _scores(self, values: dict[str, float]) -> tuple[Score, ...]:
        dense = self._book.find(self._key(DENSE, None))
        assert dense is not None
        assert dense.figures is not None
        original = {score.text: score.value for score in dense.figures.scores}
        return tuple(Score(text, value, value / original[text]) for text, value in values.items())

    def _row(
        self,
        recipe: str,
        keep: float | None,
        run: Run,
        figures: Figures | None = None,
        problem: str | None = None,
    ) -> Row:
        seconds = {stage: round(spent, 3) for stage, spent in run.clock.seconds.items()}
        return Row(self._key(recipe, keep), recipe, keep, seconds, figures, problem)

    def _key(self, recipe: str, keep: float | None) -> str:
        return self._ground.key(recipe, keep)


class _Judge:
    """Measures the model with factors, on every text; made while the model is dense."""

    def __init__(self, ground: Ground, run: Run) -> None:
        self._model, self._texts, self._run = ground.subject.model, ground.texts, run
        self._original: dict[str, Tensor] = {}
        if TASKS.get(self._model.task).metric != "perplexity":
            for name, text in self._texts.items():
                self._original[name] = all_answers(self._model, text)

    def values(self, factors: FactorSet) -> dict[str, float]:
        """Perplexity, or likeness to the answers of the dense model, by text."""
        found = {}
        with multiplied(self._model.module, factors):
            for done, name in enumerate(self._texts, start=1):
                found[name] = self._value(name)
                self._run.progress(EVALUATION, done, len(self._texts))
        return found

    def _value(self, name: str) -> float:
        text = self._texts[name]
        if self._original:
            return likeness(self._model, text, self._original[name])
        with np.errstate(over="ignore"):  # a ruined model's perplexity is infinite, and no bug
            return float(np.exp(mean_loss(self._model, text)))


def _figures(plan: Plan, scores: tuple[Score, ...], notes: tuple[str, ...]) -> Figures:
    dense = sum(site.candidate.form == "dense" for site in plan.sites)
    return Figures(
        kept=plan.kept,
        planned_bytes=plan.planned_bytes,
        dense_sites=dense,
        compressed_sites=len(plan.sites) - dense,
        predicted_loss=plan.predicted_loss,
        scores=scores,
        notes=notes,
    )


def _with(settings: Settings, **changes: object) -> Settings:
    return make_settings(**{**settings.given(), **changes})
