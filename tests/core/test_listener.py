"""Seconds of stages: all blocks of one stage together."""

from __future__ import annotations

import time

import pytest

from edgelr.core.listener import Clock


def test_blocks_of_a_stage_add_up() -> None:
    clock = Clock()
    for _ in range(2):
        with clock.time("plan"):
            time.sleep(0.01)
    with clock.time("export"):
        pass
    assert list(clock.seconds) == ["plan", "export"]
    assert clock.seconds["plan"] >= 0.02 > clock.seconds["export"] >= 0


def test_a_stage_that_failed_took_no_time() -> None:
    clock = Clock()
    with pytest.raises(ValueError, match="plan"), clock.time("plan"):
        raise ValueError("plan")
    assert clock.seconds == {}
