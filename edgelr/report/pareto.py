"""One model on many devices: every bundle and every rival, and which of them to ship."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """What one file is on one device.

    Attributes:
        profile: of the device.
        name: ``edgelr int4, keep 0.5``, or ``dense int8`` for a rival.
        folder: of the bundle.
        file_bytes: graph and sidecar.
        memory_bytes: predicted for the device, with the context of its profile.
        fits: whether the device has them.
        value: accuracy, measured on this machine; ``baseline`` is the original's, and ``worst`` the
            bad end of its interval, by which the gate decides; None where it has none.
        passed: whether the gate of the profile lets it through, and parity with torch.
        latency: by phase, over that of the original in float32: measured in turns with it, on this
            machine and not on the device.
        problem: why there are no figures; empty where there are.
    """

    profile: str
    name: str
    folder: str = ""
    file_bytes: int = 0
    memory_bytes: int = 0
    fits: bool = False
    value: float = math.nan
    baseline: float = math.nan
    passed: bool = False
    latency: tuple[tuple[str, float], ...] = ()
    problem: str = ""
    worst: float | None = None

    @property
    def loss(self) -> float:
        """How much worse than the original: relative for perplexities, absolute for cosines."""
        return self._loss(self.value)

    @property
    def worst_loss(self) -> float:
        """The same at the bad end."""
        return self._loss(self.value if self.worst is None else self.worst)

    def _loss(self, value: float) -> float:
        return value / self.baseline - 1 if self.baseline > 1 else self.baseline - value


@dataclass(frozen=True)
class Sweep:
    """``sweep.json``: every entry, device by device, and what they depend on."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="strings")

    schema_version: int
    created: str
    command: str
    source: str
    digest: str
    metric: str
    text: str
    calibration: tuple[str, ...]
    environment: dict[str, str]
    entries: tuple[Entry, ...]

    @property
    def profiles(self) -> list[str]:
        """Devices, in the order of the question."""
        return list(dict.fromkeys(entry.profile for entry in self.entries))

    def at(self, profile: str) -> list[Entry]:
        """Entries of one device that have figures."""
        return [each for each in self.entries if each.profile == profile and not each.problem]

    def best(self, profile: str) -> Entry | None:
        """The smallest file that fits the device and passes its gate; of equals the most exact."""
        usable = [entry for entry in self.at(profile) if entry.fits and entry.passed]
        return min(usable, key=lambda entry: (entry.file_bytes, entry.loss), default=None)

    def front(self, profile: str) -> list[Entry]:
        """Entries that no other of the device beats, or equals, in everything (Pareto)."""
        entries = self.at(profile)
        return [each for each in entries if not any(_beats(other, each) for other in entries)]


def _beats(ours: Entry, theirs: Entry) -> bool:
    """Whether one entry is nowhere worse than another, and somewhere better."""

    def figures(entry: Entry) -> tuple[float, ...]:
        return (entry.file_bytes, entry.loss, *(ratio for _, ratio in entry.latency))

    pairs = list(zip(figures(ours), figures(theirs), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def to_json(found: Sweep) -> str:
    """Write a sweep as JSON, in the order of its fields."""
    return TypeAdapter(Sweep).dump_json(found, indent=2).decode() + "\n"


def read_entry(text: bytes) -> Entry:
    """Read an entry that ``write_entry`` wrote."""
    return TypeAdapter(Entry).validate_json(text)


def write_entry(entry: Entry) -> bytes:
    """Write one entry as JSON."""
    return TypeAdapter(Entry).dump_json(entry, indent=2)
