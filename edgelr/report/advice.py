"""What to ship: the bundle, or a rival that is better.

A rival that is no larger, inside the gate and not slower beats the bundle. Times are compared by
their intervals; where these do not decide, size does, and the sentence says so.
"""

from __future__ import annotations

import math
from dataclasses import replace

from edgelr.core.report import Report, Rivals
from edgelr.core.tasks import TASKS
from edgelr.report.figures import figure, mib
from edgelr.report.rivals import BUNDLE, DENSE, Contender, Time, contenders, origin_of_times


def advised(report: Report) -> Rivals | None:
    """Say in the rivals of a report what to ship, and why."""
    found = contenders(report)
    if report.rivals is None or not found:
        return report.rivals
    bundle = found[-1]
    usable = sorted(
        (each for each in found if not each.problem),
        key=lambda each: (each.file_bytes, each.entry.loss),
    )
    better = [each for each in usable if _beats(each, bundle)]
    if not usable:
        reasons = ", ".join(f"{_title(each)} {each.problem}" for each in found)
        return replace(report.rivals, ship=None, told=f"Ship none of them: {reasons}.")
    if bundle.problem:
        best, why = usable[0], f"the bundle {bundle.problem}."
    elif better:
        best, why = better[0], _won(report, better[0], bundle)
    else:
        best, lost = bundle, (f"{_title(each)} {_lost(each, bundle)}" for each in found[:-1])
        why = f"{', '.join(lost)}."
    told = f"Ship {_title(best)} ({mib(best.file_bytes)} MiB): {why}"
    return replace(report.rivals, ship=best.name, told=told)


def _beats(rival: Contender, bundle: Contender) -> bool:
    """Whether a rival is no larger than the bundle, and in no phase surely slower."""
    if rival is bundle or rival.file_bytes > bundle.file_bytes:
        return False
    return not any(_slower(time) for time in _over(rival, bundle).values())


def _over(rival: Contender, bundle: Contender) -> dict[str, Time]:
    """Divide the times of a rival by the bundle's: the widest that both intervals allow.

    Each was measured in turns with the original, and not with the other.
    """
    return {
        phase: Time(
            time.ratio / ours.ratio,
            time.low / ours.high,
            time.high / ours.low if ours.low else math.inf,
            time.disturbed or ours.disturbed,
        )
        for phase, time in rival.times.items()
        if (ours := bundle.times.get(phase)) is not None
    }


def _slower(time: Time) -> bool | None:
    """Whether a time over the bundle's is longer; None where that is undecided."""
    if time.low > 1:
        return True
    return None if time.high > 1 or time.disturbed else False


def _won(report: Report, rival: Contender, bundle: Contender) -> str:
    """Say why a rival is better, and in which phases that is undecided."""
    metric, over = TASKS.get(report.task).metric, _over(rival, bundle)
    size = f"no larger than the bundle ({mib(bundle.file_bytes)} MiB)"
    accuracy = f"{metric} {figure(rival.entry.value)}, the bundle's {figure(bundle.entry.value)}"
    told = f"it is {size} and inside the gate ({accuracy})"
    unsure = {phase: time for phase, time in over.items() if _slower(time) is None}
    if over and not unsure:
        return f"{told}, and not slower ({origin_of_times(report)})."
    known = f": {_ratios(unsure)}, {origin_of_times(report)}" if over else ""
    return (
        f"{told}. Whether it is slower is undecided{known}. Where time matters more than size, "
        f"measure both on the device while nothing else runs."
    )


def _lost(rival: Contender, bundle: Contender) -> str:
    """Say why a rival is no better than the bundle."""
    if rival.problem:
        return rival.problem
    if rival.file_bytes > bundle.file_bytes:
        return f"is larger ({mib(rival.file_bytes)} MiB)"
    slow = {phase: time for phase, time in _over(rival, bundle).items() if _slower(time)}
    return f"is no larger ({mib(rival.file_bytes)} MiB), but slower: {_ratios(slow)}"


def _title(each: Contender) -> str:
    if each.name == BUNDLE:
        return "the bundle"
    rounded = each.name.removeprefix(DENSE).strip()
    return f"the original in {rounded}" if rounded else "the original"


def _ratios(times: dict[str, Time]) -> str:
    told = " and ".join(
        f"{phase} takes {time.low:.2f} {_end(time.high)} of the bundle's time"
        for phase, time in times.items()
    )
    disturbed = any(time.disturbed for time in times.values())
    return f"{told}, on a busy machine" if disturbed else told


def _end(high: float) -> str:
    return f"to {high:.2f}" if math.isfinite(high) else "or more"
