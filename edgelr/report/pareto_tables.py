"""The tables of ``edgelr sweep``, as Markdown and in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelr.report.figures import Table, environment_facts, figure, mib, model_name, percent
from edgelr.report.markdown import bullets, draw, fence
from edgelr.report.pareto import Entry, Sweep
from edgelr.report.terminal import MAX_COLUMNS, draw_table

if TYPE_CHECKING:
    from rich.console import Console

READING = (
    "File sizes and accuracy are measured. So is latency, in turns with the original in float32, "
    "whose time is 1, on this machine and not on the device. Memory is predicted for the device. A "
    "star marks what no other row of the device beats in "
    "size, accuracy and latency at once."
)


def device_table(found: Sweep, profile: str) -> Table:
    """Compare the entries of one device."""
    entries = found.at(profile)
    phases = list(dict.fromkeys(name for entry in entries for name, _ in entry.latency))
    best, front = found.best(profile), found.front(profile)
    columns = ("bundle", "file MiB", "memory MiB", found.metric, "loss", *phases, "verdict")
    rows = tuple(_cells(entry, phases, entry in front, entry is best) for entry in entries)
    return Table(columns, rows)


def recommendation(found: Sweep, profile: str) -> str:
    """Name the bundle to ship to a device, with its size and accuracy."""
    best = found.best(profile)
    if best is None:
        return f"{profile}: nothing here fits the device and passes its gate."
    dense = [entry for entry in found.at(profile) if entry.name.startswith("dense")]
    largest = max((entry.file_bytes for entry in dense), default=best.original_bytes)
    share = f"{percent(best.file_bytes / largest)} of the original; " if largest else ""
    return (
        f"{profile}: ship {best.name} ({mib(best.file_bytes)} MiB, {share}{found.metric} "
        f"{figure(best.value)}, originally {figure(best.baseline)})."
    )


def to_markdown(found: Sweep, plot: str = "sweep.svg") -> str:
    """Write the tables of every device, and how they were made.

    Args:
        found: results of the sweep.
        plot: file of the plot beside the Markdown; empty where there is none.
    """
    sections = [
        f"# {model_name(found.source)} on {', '.join(found.profiles)}",
        "\n".join(f"- **{recommendation(found, profile)}**" for profile in found.profiles),
        READING,
        f"![]({plot})" if plot else "",
    ]
    for profile in found.profiles:
        sections += [f"## {profile}", draw(device_table(found, profile))]
        sections.append(bullets(problems(found, profile)))
    sections += ["## How it was made", fence("bash", found.command), bullets(facts(found))]
    return "\n\n".join(section for section in sections if section) + "\n"


def print_sweep(found: Sweep, console: Console | None = None) -> None:
    """Print the table of every device, then what to ship."""
    from rich.console import Console

    console = console or Console()
    console.width = min(console.width, MAX_COLUMNS)
    for profile in found.profiles:
        draw_table(console, profile, device_table(found, profile))
        for problem in problems(found, profile):
            console.print(f"- {problem}", markup=False, highlight=False)
    console.print(READING, markup=False, highlight=False)
    for profile in found.profiles:
        console.print(recommendation(found, profile), markup=False, highlight=False, style="bold")


def _cells(entry: Entry, phases: list[str], on_front: bool, best: bool) -> tuple[str, ...]:
    latency = dict(entry.latency)
    verdict = "ship" if best else _refusal(entry)
    return (
        f"{entry.name} *" if on_front else entry.name,
        mib(entry.file_bytes),
        mib(entry.memory_bytes),
        figure(entry.value),
        percent(entry.loss),
        *(f"{latency[phase]:.3f}" if phase in latency else "–" for phase in phases),
        verdict,
    )


def _refusal(entry: Entry) -> str:
    if not entry.fits:
        return "too large"
    return "" if entry.passed else "gate failed"


def problems(found: Sweep, profile: str) -> list[str]:
    """Say why entries of a device have no figures."""
    failed = [entry for entry in found.entries if entry.profile == profile and entry.problem]
    return [f"{entry.name}: {' '.join(entry.problem.split())}" for entry in failed]


def facts(found: Sweep, quote: str = "`") -> list[str]:
    """List machine, versions and inputs of the figures; the digest stands between ``quote``."""
    calibrated = [f"calibrated on: {', '.join(found.calibration)}"] if found.calibration else []
    return [
        *environment_facts(found.environment),
        f"accuracy on: {found.text}",
        *calibrated,
        f"created: {found.created}; weights: {quote}{found.digest}{quote}",
    ]
