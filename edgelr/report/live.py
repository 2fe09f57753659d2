"""Progress on standard error while a run works: one bar, notes above it, and the plan."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from edgelr.report.terminal import MAX_COLUMNS, print_budget, print_plan

if TYPE_CHECKING:
    from rich.progress import TaskID

    from edgelr.core.plan import Budget, Plan


class LiveListener:
    """Draws progress bars with the time that is left.

    Args:
        quiet: whether nothing is drawn.
    """

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=True, quiet=quiet)
        self._progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._live = (self._console.is_terminal or self._console.is_jupyter) and not quiet

    def __enter__(self) -> LiveListener:
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live:
            self._progress.stop()

    def progress(self, what: str, done: int, total: int) -> None:
        """Advance the bar of a stage; without a terminal, say when it starts and ends."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
            if not self._live:
                self._console.print(f"{what} ...", highlight=False)
        self._progress.update(self._tasks[what], completed=done, total=total)

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, highlight=False, markup=False)

    def planned(self, plan: Plan, budget: Budget) -> None:
        """Print the ledger and the plan."""
        console = self._progress.console
        console.width = min(console.width, MAX_COLUMNS)
        print_budget(budget, plan.resident_bytes, console)
        print_plan(plan, console)
