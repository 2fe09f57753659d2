"""Who hears of a run's progress, and the clock that takes the time of its stages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

from edgelr.core.plan import Budget, Plan


class Listener(Protocol):
    """Hears what a run does; the command line draws it."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Tell that a part of a stage is done."""

    def note(self, text: str) -> None:
        """Tell something that the user should know."""

    def planned(self, plan: Plan, budget: Budget) -> None:
        """Show the plan, before the long work that follows from it."""


class Silent:
    """A listener that does nothing."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""

    def planned(self, plan: Plan, budget: Budget) -> None:
        """Ignore it."""


@dataclass
class Clock:
    """Seconds that each stage took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + perf_counter() - start
