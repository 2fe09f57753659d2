"""Results of a bench: one row per recipe and share, and the inputs that they depend on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from edgelr.core.tasks import MetricName

EVALUATION = "evaluation"  # the stage whose seconds are not those of making


@dataclass(frozen=True, slots=True)
class Score:
    """A perplexity or mean cosine on one text; ``ratio`` is to the dense model's."""

    text: str
    value: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Size of a plan, and accuracy of the model that follows it.

    Attributes:
        kept: share of the factorizable weights' bytes that are stored.
        planned_bytes: bytes of the factorizable weights, in the precision of the profile.
        dense_sites: number of linears that stay as they are.
        compressed_sites: number of all other linears.
        predicted_loss: loss in the method's metric; 0 for the dense model.
        scores: measured accuracy, one score per text.
        notes: sentences on the effect of a refit, a better basis or healing.
    """

    kept: float
    planned_bytes: int
    dense_sites: int
    compressed_sites: int
    predicted_loss: float
    scores: tuple[Score, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One recipe at one share, or the dense model.

    Attributes:
        key: hash of everything that decides the row.
        recipe: name of the recipe.
        keep: share that was asked for; None for the dense model.
        seconds: time of every stage.
        figures: size and accuracy; None where there is a problem.
        problem: reason why the row cannot be made.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="strings")

    key: str
    recipe: str
    keep: float | None
    seconds: dict[str, float]
    figures: Figures | None
    problem: str | None = None

    @property
    def making_seconds(self) -> float:
        return sum(spent for stage, spent in self.seconds.items() if stage != EVALUATION)

    def value(self, text: str) -> float | None:
        """Value on one text; None where the row has no figures."""
        scores = self.figures.scores if self.figures else ()
        return next((score.value for score in scores if score.text == text), None)


@dataclass(frozen=True, slots=True)
class JudgedText:
    """An evaluation text: tokens read from its beginning, in rows of chunks or sentences."""

    name: str
    source: str
    tokens: int
    rows: int


@dataclass(frozen=True)
class MethodBench:
    """Content of ``methods.json``: rows, the dense model's first, and what they depend on."""

    schema_version: int
    created: str
    command: str
    source: str
    digest: str
    profile: str
    metric: MetricName
    texts: tuple[JudgedText, ...]
    calibration: tuple[str, ...]
    environment: dict[str, str]
    rows: tuple[Row, ...]

    @property
    def dense(self) -> Figures:
        figures = self.rows[0].figures
        assert figures is not None
        return figures

    @property
    def keeps(self) -> list[float]:
        """Shares that were asked for, in this order."""
        return list(dict.fromkeys(row.keep for row in self.rows if row.keep is not None))

    def at(self, keep: float) -> list[Row]:
        """Rows of one share."""
        return [row for row in self.rows if row.keep == keep]

    def best(self, keep: float, text: str) -> float | None:
        """Best value on a text at one share; None where no recipe has a number."""
        values = (row.value(text) for row in self.at(keep))
        better = min if self.metric == "perplexity" else max
        return better((v for v in values if v is not None and not math.isnan(v)), default=None)

    def winner(self, keep: float) -> Row | None:
        """The recipe that is best on the first text at one share."""
        text = self.texts[0].name
        best = self.best(keep, text)
        return next((row for row in self.at(keep) if row.figures and row.value(text) == best), None)
