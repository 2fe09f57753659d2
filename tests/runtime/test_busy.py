"""Other processes and heat are told beside what they disturb."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgelr.runtime.busy import Snapshot, busy_notes, snapshot
from edgelr.runtime.memory import usable_cores

IDLE = Snapshot(0.0, 0.0, 0.0, 0.0, 0, False)
CORES = usable_cores()
BURN = "while True: pass"


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("counted", [True, False])
def test_the_work_of_others_is_told_from_that_of_what_is_measured(counted: bool) -> None:
    """One process burns a core: as what is measured, or beside it."""
    with subprocess.Popen([sys.executable, "-c", BURN]) as burner:
        own = [burner.pid] if counted else []
        before = snapshot(own)
        assert before is not None
        burnt, end = 0.0, time.monotonic() + 60
        while burnt < 0.5 and time.monotonic() < end:  # on a machine that is busy it takes longer
            time.sleep(0.1)
            after = snapshot(own)
            assert after is not None
            burnt = (after.own - before.own) if counted else (after.busy - before.busy)
        burner.kill()
    assert burnt >= 0.5
    assert counted or "other processes took" in busy_notes(before, after)[0]


def test_a_quiet_machine_has_no_notes() -> None:
    after = replace(IDLE, moment=10.0, busy=9.0 * CORES, own=8.5 * CORES)
    assert busy_notes(IDLE, after) == ()
    assert busy_notes(None, None) == ()


def test_other_processes_are_told_with_their_share() -> None:
    after = replace(IDLE, moment=10.0, busy=9.0 * CORES, own=5.0 * CORES)
    (note,) = busy_notes(replace(IDLE, load=3.25), after)
    assert f"took 40% of its {CORES} cores, and the load average was 3.2" in note


def test_a_queue_of_processes_is_told() -> None:
    assert busy_notes(replace(IDLE, load=CORES + 2.0), replace(IDLE, moment=1.0)) != ()


@pytest.mark.parametrize("after", [replace(IDLE, throttled=1), replace(IDLE, cooled=True)])
def test_heat_is_told(after: Snapshot) -> None:
    (note,) = busy_notes(IDLE, replace(after, moment=1.0))
    assert "slowed down for its heat" in note
