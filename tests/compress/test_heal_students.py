"""What is trained of every form: itself, its low ranks only, or an update of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from edgelr.compress.factors import FactorSet, LowRank
from edgelr.compress.heal import Healing
from edgelr.compress.heal.distillation import mean_distillation_loss, pieces
from edgelr.compress.heal.students import low_rank_sites, student_of
from edgelr.core.errors import EnvironmentProblem
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import weight_of
from tests.compress.test_heal import (
    DOWN,
    GATE,
    KEY,
    QUERY,
    UP,
    VALUE,
    all_forms,
    halves,
    healed,
    product,
    same_bytes,
    tensors,
    texts,
)

every_adapter = pytest.mark.parametrize("adapter", ["lora", "loha", "lokr"])


def test_a_shared_basis_counts_the_outputs_of_its_sites_together() -> None:
    def site(outputs: int, shared: str | None) -> LowRank:
        return LowRank(torch.zeros(40, 15), torch.zeros(15, outputs), shared)

    given: FactorSet = {"a": site(20, "ab"), "b": site(10, "ab"), "alone": site(20, None)}
    assert low_rank_sites(given) == {"a", "b"}


@every_adapter
def test_adapters_start_as_nothing_and_draw_from_their_own_seed(
    tiny_decoder: LoadedModel, adapter: Any
) -> None:
    given = halves(tiny_decoder)
    torch.manual_seed(5)
    drawn = torch.random.get_rng_state()
    students = [student_of(given, Healing(1, adapter=adapter, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert same_bytes(students[0].graduate(), given)
    first, same, other = (torch.cat([p.flatten() for p in s.parameters.values()]) for s in students)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_missing_peft_is_named(
    tiny_decoder: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'edgelr\[heal\]'"):
        healed(tiny_decoder, halves(tiny_decoder), tmp_path, adapter="lora")


@every_adapter
def test_adapters_merge_into_factors_of_the_same_shapes(
    tiny_decoder: LoadedModel, tmp_path: Path, adapter: str
) -> None:
    given = {**halves(tiny_decoder), **all_forms(tiny_decoder)}
    found = healed(tiny_decoder, given, tmp_path, adapter=adapter, steps=20)
    assert found.best_loss < found.first_loss
    for name, each in given.items():
        new = found.factors[name]
        for field, tensor in tensors(each).items():
            merged = tensors(new)[field]
            assert merged.shape == tensor.shape
            assert merged.is_contiguous()
            own = isinstance(each, LowRank) and not (each.shared and field == "down")
            assert torch.equal(merged, tensor) != own
    rows = pieces(tiny_decoder, [texts(3)], 80)
    loss = mean_distillation_loss(tiny_decoder, found.factors, rows, 80)
    assert loss == pytest.approx(found.best_loss, rel=1e-6)


def test_every_form_is_healed_and_what_is_shared_stays_shared(
    tiny_decoder: LoadedModel, tmp_path: Path
) -> None:
    given = all_forms(tiny_decoder)
    found = healed(tiny_decoder, given, tmp_path)
    assert found.best_loss < 0.97 * found.first_loss
    for name, each in given.items():
        for field, tensor in tensors(each).items():
            new = tensors(found.factors[name])[field]
            assert new.shape == tensor.shape
            assert not torch.equal(new, tensor)
    new_down = {id(tensors(found.factors[name])["down"]) for name in (QUERY, KEY, VALUE)}
    assert len(new_down) == 1
    assert tensors(found.factors[UP])["weight"] is tensors(found.factors[DOWN])["weight"]


def test_only_low_ranks_are_healed_where_that_is_asked_for(
    tiny_decoder: LoadedModel, tmp_path: Path
) -> None:
    given = halves(tiny_decoder)
    full = product(weight_of(tiny_decoder, GATE), 25)  # of 48
    given = {**given, GATE: full, **{n: f for n, f in all_forms(tiny_decoder).items() if n != GATE}}
    chosen = low_rank_sites(given)
    assert set(given) - chosen == {GATE, UP, DOWN}  # tied matrices have no rank
    found = healed(tiny_decoder, given, tmp_path, sites="low_rank")
    assert found.best_loss < found.first_loss
    for name, each in given.items():
        pairs = zip(tensors(each).values(), tensors(found.factors[name]).values(), strict=True)
        assert all(torch.equal(*pair) == (name not in chosen) for pair in pairs)


def test_a_healing_with_nothing_to_train_says_so(tiny_decoder: LoadedModel, tmp_path: Path) -> None:
    given = {UP: all_forms(tiny_decoder)[UP]}
    found = healed(tiny_decoder, given, tmp_path, adapter="lora")
    assert found.factors is given
    assert found.first_loss == found.best_loss > 0
    assert "None of 1" in found.note
