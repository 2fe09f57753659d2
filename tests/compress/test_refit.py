"""Refit on the compressed model's own inputs: closer to the dense model, or left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgelr.compress.compressed_model import multiplied
from edgelr.compress.decompose import truncate
from edgelr.compress.factors import FactorSet, LowRank
from edgelr.compress.methods import METHODS
from edgelr.compress.refit import FactorSource, _Block, _enter, refit
from edgelr.core.plan import Plan
from edgelr.core.vocabulary import Grouping
from edgelr.data.calibration import Calibration, from_samples
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_sites
from tests.compress.test_decompose import groups_of, half, search_of, spectra_of, statistics_of
from tests.conftest import random_ids
from tests.helpers.run_exports import every_task

Models = dict[str, LoadedModel]


def texts(rows: int, seed: int) -> Calibration:
    return from_samples(random_ids(rows, 24, seed), "random")


def refitted(
    model: LoadedModel,
    folder: Path,
    method: str = "fisher",
    grouping: Grouping = "one",
    held_out: Calibration | None = None,
    calibration: Calibration | None = None,
) -> tuple[FactorSet, FactorSet, Plan]:
    table = spectra_of(model, folder, method, texts(256, 0), grouping)
    store = statistics_of(model, texts(256, 0), folder / "again")
    plan = half(search_of(model, table, ("low_rank",), grouping))
    before = truncate(table, plan)
    source = FactorSource(plan, groups_of(model, grouping), store, METHODS.get(method))
    rows = [calibration or texts(256, 0)], held_out or texts(8, 1)
    after = refit(model, source, before, *rows, lambda *_: None)
    assert after.kept_blocks <= after.blocks == 2
    return before, after.factors, plan


def hidden(model: LoadedModel, rows: Calibration) -> torch.Tensor:
    with torch.no_grad():
        output = model.module(input_ids=torch.tensor(rows.inputs), output_hidden_states=True)
    states: torch.Tensor = output.hidden_states[-1]
    return states


@every_task
@pytest.mark.parametrize("grouping", ["one", "input"])
def test_a_refit_brings_the_last_states_closer(
    tiny_models: Models, exporter: str, grouping: Grouping, tmp_path: Path
) -> None:
    model, rows = tiny_models[exporter], texts(8, 1)
    before, after, _ = refitted(model, tmp_path / "run", "svd_llm", grouping, held_out=rows)
    dense = hidden(model, rows)
    distances = []
    for factors in (before, after):
        with multiplied(model.module, factors):
            distances.append(float((hidden(model, rows) - dense).square().sum()))
    assert distances[1] < distances[0]


@every_task
def test_ranks_and_shared_factors_stay(tiny_models: Models, exporter: str, tmp_path: Path) -> None:
    before, after, plan = refitted(tiny_models[exporter], tmp_path / "run", grouping="input")
    groups: dict[str, list[LowRank]] = {}
    for site in plan.sites:
        if site.name not in before:
            continue
        old, new = before[site.name], after[site.name]
        assert isinstance(old, LowRank)
        assert isinstance(new, LowRank)
        assert (old.down.shape, old.up.shape, old.shared) == (
            new.down.shape,
            new.up.shape,
            new.shared,
        )
        groups.setdefault(site.group or site.name, []).append(new)
    for members in groups.values():
        assert all(torch.equal(each.down, members[0].down) for each in members)


def test_a_block_that_gets_worse_keeps_its_factors(
    tiny_decoder: LoadedModel, tmp_path: Path
) -> None:
    """Two rows of one token say nothing about others: what they teach is not taken."""
    one_token = from_samples(random_ids(1, 2, 5), "too little")
    before, after, _ = refitted(tiny_decoder, tmp_path / "run", calibration=one_token)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].down, after[name].down) for name in before)  # type: ignore[union-attr]


def test_padding_does_not_count(tiny_encoder: LoadedModel, tmp_path: Path) -> None:
    rows = texts(256, 0)
    wide = Calibration(
        torch.nn.functional.pad(torch.tensor(rows.inputs), (0, 7), value=9).numpy(),
        torch.nn.functional.pad(torch.tensor(rows.mask), (0, 7)).numpy(),
        "padded",
    )
    _, plain, _ = refitted(tiny_encoder, tmp_path / "a", calibration=rows)
    _, padded, _ = refitted(tiny_encoder, tmp_path / "b", calibration=wide)
    for name, each in plain.items():
        other = padded[name]
        assert isinstance(each, LowRank)
        assert isinstance(other, LowRank)
        torch.testing.assert_close(each.down @ each.up, other.down @ other.up, rtol=1e-3, atol=1e-4)


@every_task
def test_a_block_runs_anew_whatever_ran_before(tiny_models: Models, exporter: str) -> None:
    """Keys and values of an earlier run are no part of a later one."""
    model = tiny_models[exporter]
    name = next(site.name.partition(f".{site.role}")[0] for site in find_sites(model))
    block = _Block(model, name, [])
    (first,), (second,) = (list(_enter(model, name, texts(2, 0))) for _ in range(2))
    other = torch.randn(first.dense.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        block._run(first, first.dense)
        torch.testing.assert_close(block._run(first, other), block._run(second, other))
