"""Recipes beside each other: one row per recipe and share, and what they depend on."""

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
    """What a plan keeps, and what that does to the model.

    Attributes:
        kept: share of the factorizable weights' bytes that are stored.
        planned_bytes: of the factorizable weights, in the precision of the profile.
        dense_sites: linears that stay as they are; ``compressed_sites``: all others.
        predicted_loss: in the method's metric; 0 for the dense model.
        scores: one per text, measured.
        notes: what a refit, a better basis or healing did.
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
    """One recipe at one share, or the dense model, whose ``keep`` is None.

    ``key`` is the hash of everything that decides the row, ``seconds`` what its stages took. A row
    that cannot be made has a ``problem`` instead of figures.
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
    """A text and how much of its beginning was read; ``rows`` are chunks or sentences."""

    name: str
    source: str
    tokens: int
    rows: int


@dataclass(frozen=True)
class MethodBench:
    """``methods.json``: all rows, the dense model's first, and what they depend on."""

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
