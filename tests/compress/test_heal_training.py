"""A training ends where it should, goes on where it stopped, and keeps its best state."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from time import perf_counter

import pytest
import torch
from torch import nn

from edgelr.compress.heal import Healing
from edgelr.compress.heal.training import Training, rate
from edgelr.core.errors import InputError
from edgelr.model.loaded import LoadedModel
from tests.compress.test_heal import all_forms, halves, healed, same_bytes


def test_the_rate_warms_up_and_falls_to_a_tenth() -> None:
    assert rate(0.025) == pytest.approx(0.5)
    assert rate(0.05) == pytest.approx(1)
    assert rate(1) == pytest.approx(0.1)
    assert all(rate(share / 100) > rate((share + 1) / 100) for share in range(5, 100))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training_with_the_best_so_far(
    tmp_path: Path, bad: float
) -> None:
    x = nn.Parameter(torch.ones(3))
    losses: Iterator[float] = iter([*repeat(1.0, 13), *repeat(bad, 10)])
    training = Training({"x": x}, Healing(50, learning_rate=0.01), tmp_path)
    state = training.run(
        repeat((torch.zeros(1), torch.zeros(1))),
        lambda _: (x**2).sum() * next(losses),
        lambda: (x**2).sum().item(),
        lambda *_: None,
    )
    assert (state.step, state.best_step) == (13, 13)
    assert state.best_loss == (x**2).sum().item() < 3
    assert f"Step 14 had a loss of {bad}" in state.note


@pytest.mark.parametrize("adapter", [None, "loha"])
def test_a_resumed_healing_ends_with_the_same_bytes(
    tiny_decoder: LoadedModel, tmp_path: Path, adapter: str | None
) -> None:
    given = {**halves(tiny_decoder), **all_forms(tiny_decoder)}
    whole = healed(tiny_decoder, given, tmp_path / "whole", adapter=adapter)
    for stop_at in (4, 17):  # before and after something was saved
        with pytest.raises(KeyboardInterrupt):
            healed(tiny_decoder, given, tmp_path / "cut", stop_at, adapter=adapter)
    resumed = healed(tiny_decoder, given, tmp_path / "cut", 10, adapter=adapter)  # starts after 10
    assert same_bytes(whole.factors, resumed.factors)
    assert replace(whole, factors={}, seconds=0) == replace(resumed, factors={}, seconds=0)
    other = healed(tiny_decoder, given, tmp_path / "seed", adapter=adapter, seed=1)
    assert not same_bytes(whole.factors, other.factors)


def test_a_finished_folder_is_only_read(
    tiny_decoder: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = halves(tiny_decoder)
    first = healed(tiny_decoder, given, tmp_path, steps=12)
    monkeypatch.setattr(tiny_decoder.module, "forward", None)
    again = healed(tiny_decoder, given, tmp_path, steps=12, stop_at=12)
    assert same_bytes(first.factors, again.factors)
    assert replace(first, factors={}) == replace(again, factors={}, seconds=first.seconds)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_healing_ends_with_its_minutes(tiny_decoder: LoadedModel, tmp_path: Path) -> None:
    began = perf_counter()
    found = healed(tiny_decoder, halves(tiny_decoder), tmp_path, steps=None, minutes=0.02)
    assert perf_counter() - began < 3  # seconds: 1.2, on a machine that is busy
    assert found.steps > 5
    assert found.best_loss < found.first_loss


def test_healing_needs_an_end() -> None:
    with pytest.raises(InputError, match="--heal-steps or --heal-minutes"):
        Healing()


def test_too_little_time_for_a_step_is_told(tiny_decoder: LoadedModel, tmp_path: Path) -> None:
    given = halves(tiny_decoder)
    found = healed(tiny_decoder, given, tmp_path, minutes=1e-5)
    assert found.factors is given
    assert found.steps == 0
    assert "over before the first step" in found.note
