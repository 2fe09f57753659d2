"""The tables of ``edgelr diff`` in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelr.report.diff import Diff, FigureChange, SiteChange, WordChange
from edgelr.report.figures import Table, figure, mib, percent
from edgelr.report.terminal import MAX_COLUMNS, draw_table

if TYPE_CHECKING:
    from rich.console import Console

    from edgelr.core.plan import SitePlan

SHOWN_SITES = 30  # of the linears that changed; --all and --json have all of them
ABSENT = "–"


def print_diff(found: Diff, every: bool = False, console: Console | None = None) -> None:
    """Print what changed: notes, figures, linears, settings, environment."""
    from rich.console import Console

    console = console or Console()
    console.width = min(console.width, MAX_COLUMNS)
    _say(console, f"before: {found.before}\nafter:  {found.after}")
    for note in found.notes:
        console.print(note, style="bold yellow", markup=False, highlight=False)
    draw_table(console, "Figures", figure_table(found))
    shown = found.sites if every else found.sites[:SHOWN_SITES]
    if shown:
        draw_table(console, f"{len(found.sites)} linears changed", site_table(shown))
    if len(shown) < len(found.sites):
        _say(console, f"{len(found.sites) - len(shown)} more changed less; --all shows them.")
    total = len(found.sites) + found.unchanged_sites
    _say(console, f"{found.unchanged_sites} of {total} linears are the same in both.")
    for title, words in (("Settings", found.settings), ("Environment", found.environment)):
        if words:
            draw_table(console, title, word_table(words))


def figure_table(found: Diff) -> Table:
    """Set every figure beside the other bundle's."""
    rows = tuple(
        (
            each.name,
            each.origin,
            _value_text(each, each.before),
            _value_text(each, each.after),
            _change(each),
        )
        for each in found.figures
    )
    return Table(("figure", "origin", "before", "after", "change"), rows)


def site_table(sites: tuple[SiteChange, ...]) -> Table:
    """Show the plan of each linear in both bundles, and the difference in bytes."""
    rows = tuple(
        (each.name, _became(each.before), _became(each.after), f"{each.bytes / 2**10:+,.1f}")
        for each in sites
    )
    return Table(("linear", "before", "after", "KiB"), rows)


def word_table(words: tuple[WordChange, ...]) -> Table:
    """Set settings or versions beside the other bundle's."""
    rows = tuple((each.name, each.before or ABSENT, each.after or ABSENT) for each in words)
    return Table(("name", "before", "after"), rows)


def _value_text(change: FigureChange, value: float | None) -> str:
    if value is None:
        return ABSENT
    if change.unit == "bytes":
        return f"{mib(value)} MiB"
    if change.unit == "share":
        return percent(value)
    return f"{figure(value)} {change.unit}".rstrip()


def _change(change: FigureChange) -> str:
    if change.before is None or change.after is None or change.before == change.after:
        return "" if change.before == change.after else ABSENT
    if not change.before:
        return f"{change.after - change.before:+.4g}"
    return f"{100 * (change.after / change.before - 1):+.1f} %"


def _became(site: SitePlan | None) -> str:
    if site is None:
        return ABSENT
    chosen = site.candidate
    rank = "" if chosen.form == "dense" else f" rank {chosen.rank}"
    return f"{chosen.form}{rank} {chosen.precision}"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)
