"""What else a machine does while latency is measured: other processes, and throttling."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgelr.runtime.memory import usable_cores

OTHERS_LIMIT = 0.1  # of the cores: less is the system's own
_PROC = Path("/proc")
_COOLING = Path("/sys/class/thermal")
_THROTTLED = "cpu[0-9]*/thermal_throttle/core_throttle_count"
_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counters of the kernel at one moment.

    Attributes:
        moment: clock, seconds.
        busy: seconds that the usable cores have worked for anybody, or for other guests.
        own: seconds that the measured processes have worked.
        load: number of processes that want to run, averaged over a minute.
        throttled: number of times that a core was slowed down for its heat.
        cooled: whether the processor is held back now.
    """

    moment: float
    busy: float
    own: float
    load: float
    throttled: int
    cooled: bool


def snapshot(processes: Iterable[int]) -> Snapshot | None:
    """Read the counters; None where this system has no such.

    Args:
        processes: ids of the processes that are measured; this one is added.
    """
    if not (_PROC / "stat").exists():
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    own = sum(map(_process_ticks, {os.getpid(), *processes}))
    return Snapshot(
        moment=time.monotonic(),
        busy=_busy_ticks() / ticks,
        own=own / ticks,
        load=os.getloadavg()[0],
        throttled=sum(int(path.read_text()) for path in _CPUS.glob(_THROTTLED)),
        cooled=any(map(_holds_back, _COOLING.glob("cooling_device*"))),
    )


def taken_by_others(before: Snapshot | None, after: Snapshot | None) -> float:
    """Find the share of the cores that other processes took; 0 where nothing tells it."""
    if before is None or after is None:
        return 0.0
    seconds = max(after.moment - before.moment, 1e-9) * usable_cores()
    others = ((after.busy - before.busy) - (after.own - before.own)) / seconds
    return min(max(0.0, others), 1.0)


def busy_notes(before: Snapshot | None, after: Snapshot | None) -> tuple[str, ...]:
    """Say what disturbed a measurement between two moments."""
    if before is None or after is None:
        return ()
    notes, cores, others = [], usable_cores(), taken_by_others(before, after)
    if others > OTHERS_LIMIT or before.load > cores + 1:
        notes.append(
            f"The machine was busy while latency was measured: other processes took "
            f"{others:.0%} of its {cores} cores, and the load average was {before.load:.1f}. Times "
            f"are less sure than they look; intervals of ratios allow for it."
        )
    if after.throttled > before.throttled or after.cooled:
        notes.append("The processor was slowed down for its heat while latency was measured.")
    return tuple(notes)


def _busy_ticks() -> int:
    """Add up the work of the usable cores, and what other guests took of them."""
    usable = os.sched_getaffinity(0)
    total = 0
    for line in (_PROC / "stat").read_text().splitlines():
        name, *counts = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in usable:
            user, nice, system, _, _, interrupts, soft, stolen, *_ = map(int, counts)
            total += user + nice + system + interrupts + soft + stolen
    return total


def _process_ticks(process: int) -> int:
    """Read the work of a process; 0 where it has ended."""
    try:
        fields = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])  # in user mode, in the kernel


def _holds_back(device: Path) -> bool:
    """Tell whether a cooling device is one of the processor's, and in use."""
    try:
        kind, state = ((device / name).read_text().strip() for name in ("type", "cur_state"))
    except OSError:
        return False
    return ("cpu" in kind.lower() or kind == "Processor") and state != "0"
