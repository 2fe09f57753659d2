"""Runs: a stage is written once for what decides it, and found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgelr.core import run as runs
from edgelr.core.cache import Cache
from edgelr.core.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(Cache(tmp_path))


def written(run: Run, *parts: object, name: str = "stage") -> tuple[Path, int]:
    """Run a stage; return its folder, and how often it was written."""
    calls = []

    def write(folder: Path) -> None:
        calls.append(folder)
        (folder / "file").write_text("content")

    return run.stage(name, parts, write), len(calls)


def test_a_stage_is_written_once_for_the_same_parts(run: Run) -> None:
    first, again, other = (written(run, part) for part in (1, 1, 2))
    assert (first[1], again[1], other[1]) == (1, 0, 1)
    assert first[0] == again[0] != other[0]
    assert (first[0] / "file").read_text() == "content"


def test_another_format_is_another_stage(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before, _ = written(run, 1)
    monkeypatch.setitem(runs.FORMATS, "stage", 2)
    after, count = written(run, 1)
    assert (count, after != before) == (1, True)


def test_seconds_of_a_stage_add_up_and_another_clock_begins_at_none(run: Run) -> None:
    for _ in range(2):
        with run.time("stage"):
            pass
    assert list(run.clock.seconds) == ["stage"]
    assert run.clock.seconds["stage"] > 0
    assert run.timed().clock.seconds == {}
    assert run.timed().cache is run.cache


def test_without_a_listener_nobody_hears(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.progress("stage", 1, 2)
    run.note("a note")
    assert capsys.readouterr() == ("", "")
