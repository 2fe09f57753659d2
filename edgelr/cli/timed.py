"""What ``--verbose`` shows of a run: every note and every finished stage, with seconds."""

from __future__ import annotations

from time import perf_counter

from edgelr.report.live import LiveListener


class TimedListener(LiveListener):
    """Puts the seconds since the start before every line, and ends a stage with its own."""

    def __init__(self) -> None:
        super().__init__(quiet=False)
        self._start = self._latest = perf_counter()
        self._begun: dict[str, float] = {}

    def progress(self, what: str, done: int, total: int) -> None:
        """Advance the bar of a stage; when it is finished, say how long it took."""
        super().progress(what, done, total)
        now = perf_counter()
        # A stage that is first heard of when a part is done began where the last word ended.
        begun = self._begun.setdefault(what, now if done == 0 else self._latest)
        if done >= total:
            self.note(f"{what}: {now - begun:.1f} s")
            del self._begun[what]
        self._latest = now

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        super().note(f"{perf_counter() - self._start:8.1f} s  {text}")
