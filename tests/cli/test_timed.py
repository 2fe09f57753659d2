"""``--verbose``: every note and every finished stage, with seconds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edgelr.cli import timed
from edgelr.cli.timed import TimedListener
from tests.cli.conftest import Invoke
from tests.helpers.runtime_bundles import write_modality


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timed, "perf_counter", made)
    return made


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Lines with seconds, without the spaces before them."""
    lines = capsys.readouterr().err.splitlines()
    return [line.strip() for line in lines if re.match(r" *\d+\.\d s  ", line)]


def test_a_finished_stage_tells_its_own_seconds_and_those_of_the_run(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    listener = TimedListener()
    for seconds, done in ((2, 0), (3, 1), (4, 2)):
        clock.seconds += seconds
        listener.progress("statistics", done, 2)
    listener.note("a note")
    assert told(capsys) == ["9.0 s  statistics: 7.0 s", "9.0 s  a note"]


def test_a_stage_that_is_first_heard_of_when_a_part_is_done_began_at_the_last_word(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    listener = TimedListener()
    clock.seconds += 5
    listener.progress("decomposition", 1, 1)
    clock.seconds += 2
    listener.progress("parity", 1, 2)
    clock.seconds += 1
    listener.progress("parity", 2, 2)
    assert told(capsys) == ["5.0 s  decomposition: 5.0 s", "8.0 s  parity: 3.0 s"]


def test_a_stage_of_the_next_round_is_timed_anew(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    listener = TimedListener()
    for _ in range(2):
        listener.progress("statistics", 0, 1)
        clock.seconds += 4
        listener.progress("statistics", 1, 1)
    assert told(capsys) == ["4.0 s  statistics: 4.0 s", "8.0 s  statistics: 4.0 s"]


def test_a_verbose_command_tells_the_seconds_of_its_stages(run: Invoke, tmp_path: Path) -> None:
    bundle = write_modality(tmp_path / "bundle", "decoder").folder
    done = run("measure", bundle, "--tokens", "16", "--repetitions", "3", "--json", "-v")
    assert json.loads(done.stdout)
    assert re.search(r"^ +\d+\.\d s  measure prefill 16: \d+\.\d s$", done.stderr, re.MULTILINE)
