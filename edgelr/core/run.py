"""One run: the cache of its finished stages, who hears of it, its clock and its random seed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgelr.core.cache import Cache, digest
from edgelr.core.listener import Clock, Listener, Silent

FORMATS = {"dense": 9, "onnx-components": 2, "onnx-losses": 2, "onnx-source": 3, "sweep": 2}
"""Format of what a stage keeps, 1 where it is not named; raise it when the meaning changes."""


@dataclass(frozen=True)
class Run:
    """What every stage needs beside its subject.

    Attributes:
        cache: finished stages; what is there is not computed again.
        listener: receiver of progress and notes.
        seed: random seed of sampled texts, labels and probes.
        clock: seconds of each stage.
        command: command that started the run, for the report.
    """

    cache: Cache
    listener: Listener = field(default_factory=Silent)
    seed: int = 0
    clock: Clock = field(default_factory=Clock)
    command: str = ""

    def stage(self, name: str, parts: tuple[Any, ...], write: Callable[[Path], None]) -> Path:
        """Return the folder of a finished stage, writing it first where it is missing.

        Args:
            name: name of the stage, for people who look into the cache.
            parts: values that decide the result, JSON-serializable.
            write: fills an empty folder.
        """
        return self.cache.stage(name, digest(FORMATS.get(name, 1), *parts), write)[0]

    def time(self, stage: str) -> AbstractContextManager[None]:
        """Add the seconds of a block to a stage."""
        return self.clock.time(stage)

    @property
    def progress(self) -> Callable[[str, int, int], None]:
        """Listener's function for a part of a stage that is done."""
        return self.listener.progress

    def timed(self) -> Run:
        """Give the same run a clock of its own."""
        return replace(self, clock=Clock())

    def note(self, text: str) -> None:
        """Tell something that the user should know."""
        self.listener.note(text)
