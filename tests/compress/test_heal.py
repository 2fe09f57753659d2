"""Healing: nearer to the dense model, never worse, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgelr.compress.factors import FactorSet, Kronecker, LowRank, Tied
from edgelr.compress.forms import balance
from edgelr.compress.heal import Healed, Healing, heal
from edgelr.compress.heal.distillation import mean_distillation_loss, pieces
from edgelr.data.calibration import Calibration
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_sites, weight_of
from tests.conftest import random_ids
from tests.helpers.run_exports import PIVOTS, every_task

Models = dict[str, LoadedModel]
STEPS, RATE = 30, 1e-3  # the tiny models' factors are larger than usual, and so is their rate
QUERY, KEY, VALUE, GATE, UP, DOWN = (
    f"model.layers.0.{name}"
    for name in (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    )
)


def texts(seed: int, rows: int = 12) -> Calibration:
    """Rows of 20 and, every second, of 13 tokens."""
    mask = np.ones((rows, 20), np.int64)
    mask[::2, 13:] = 0
    return Calibration(random_ids(rows, 20, seed), mask, "texts")


def product(weights: Tensor, rank: int, shared: str | None = None) -> LowRank:
    u, s, v = torch.linalg.svd(weights.double(), full_matrices=False)
    down, up = v[:rank].T, (u[:, :rank] * s[:rank]).T
    made = balance(LowRank(down, up, shared))
    return LowRank(made.down.float(), made.up.float(), shared)


def halves(model: LoadedModel) -> FactorSet:
    """Every linear at half of its full rank."""
    return {
        site.name: product(
            weight_of(model, site.name), min(site.in_features, site.out_features) // 2
        )
        for site in find_sites(model)
    }


def all_forms(model: LoadedModel) -> FactorSet:
    """A shared basis, a tied pair and a Kronecker product, of the tiny decoder."""
    torch.manual_seed(0)
    weights = [weight_of(model, name) for name in (QUERY, KEY, VALUE)]
    whole = product(torch.cat(weights), 20, "qkv")
    ups = whole.up.split([len(weight) for weight in weights], dim=1)
    middle = (weight_of(model, UP).T + weight_of(model, DOWN)) / 2
    return {
        **{
            name: LowRank(whole.down, up.contiguous(), "qkv")
            for name, up in zip((QUERY, KEY, VALUE), ups, strict=True)
        },
        UP: Tied(middle, False, "pair"),
        DOWN: Tied(middle, True, "pair"),
        GATE: Kronecker(torch.randn(2, 10, 6) * 0.1, torch.randn(2, 8, 8) * 0.1),
    }


def healed(
    model: LoadedModel, factors: FactorSet, folder: Path, stop_at: int | None = None, **asked: Any
) -> Healed:
    """Heal on two parts; ``stop_at`` interrupts after that step."""

    def progress(_stage: str, done: int, _total: int) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    wanted = Healing(**{"steps": STEPS, "learning_rate": RATE, "batch_tokens": 80, **asked})
    return heal(model, factors, [texts(1), texts(2, 5)], texts(3), wanted, folder, progress)


def same_bytes(first: FactorSet, second: FactorSet) -> bool:
    pairs = [(first[name], second[name]) for name in {**first, **second}]
    return all(
        torch.equal(tensor, getattr(other, field))
        for each, other in pairs
        for field, tensor in tensors(each).items()
    )


def tensors(factors: Any) -> dict[str, Tensor]:
    names = ("down", "up", "weight", "left", "right")
    return {name: getattr(factors, name) for name in names if hasattr(factors, name)}


@every_task
def test_healing_lowers_the_held_out_loss(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    model = tiny_models[exporter]
    given = halves(model)
    found = healed(model, given, tmp_path)
    assert found.best_loss < 0.9 * found.first_loss
    assert (found.steps, found.note) == (STEPS, "")
    assert 0 < found.best_step <= STEPS
    for factors, loss in ((given, found.first_loss), (found.factors, found.best_loss)):
        rows = pieces(model, [texts(3)], 80)
        assert mean_distillation_loss(model, factors, rows, 80) == pytest.approx(loss, rel=1e-5)
    assert not any(
        each.requires_grad for site in found.factors.values() for each in tensors(site).values()
    )


@pytest.mark.parametrize("exporter", PIVOTS)
def test_products_in_bfloat16_train_nearly_as_well(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    model = tiny_models[exporter]
    given = halves(model)
    found = [healed(model, given, tmp_path / str(half), bfloat16=half) for half in (False, True)]
    gained = [each.first_loss - each.best_loss for each in found]
    assert found[1].first_loss == found[0].first_loss  # what is held out is judged in float32
    assert found[1].best_loss != found[0].best_loss
    assert gained[1] > 0.8 * gained[0]
    assert all(
        tensor.dtype == torch.float32
        for each in found[1].factors.values()
        for tensor in tensors(each).values()
    )


@every_task
def test_an_absurd_rate_returns_what_was_given(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    given = halves(tiny_models[exporter])
    found = healed(tiny_models[exporter], given, tmp_path, learning_rate=10.0)
    assert found.factors is given
    assert found.best_step == 0
    assert found.best_loss == found.first_loss


@pytest.mark.parametrize("stop_at", [None, 3])
def test_the_dense_model_stays_as_it_is(
    tiny_decoder: LoadedModel, tmp_path: Path, stop_at: int | None
) -> None:
    module, given = tiny_decoder.module, halves(tiny_decoder)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    copied = {name: tuple(map(torch.clone, tensors(each).values())) for name, each in given.items()}
    parts = list(module.modules())
    norm = module.get_parameter("model.norm.weight").requires_grad_(True)
    try:
        healed(tiny_decoder, given, tmp_path, stop_at, steps=11)
    except KeyboardInterrupt:
        assert stop_at
    asking = [each for each in module.parameters() if each.requires_grad]
    assert len(asking) == 1
    assert asking[0] is norm
    assert norm.grad is None
    norm.requires_grad_(False)
    assert list(module.modules()) == parts
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    for name, each in given.items():
        assert all(map(torch.equal, tensors(each).values(), copied[name]))
