"""Learned scores: what the training lowers, what it leaves alone, and what comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from edgelr.compress.decompose import truncate
from edgelr.compress.factors import Decomposition
from edgelr.compress.heal.distillation import mean_distillation_loss, pieces, shuffled_batches
from edgelr.compress.importance import learn_importance
from edgelr.compress.importance.components import AllComponents, side_by_side
from edgelr.compress.importance.soco import BATCH_TOKENS, MOST_KEPT, Schedule, ScoreTraining
from edgelr.compress.spectra import SpectrumTable, read_spectra
from edgelr.core.plan import Plan
from edgelr.data.calibration import from_samples
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_groups, find_sites
from edgelr.planning.allocate import Search, prepare
from edgelr.planning.recipes import RECIPES
from tests.compress.test_decompose import spectra_of
from tests.conftest import random_ids

KEEP = 0.85
TEXTS = from_samples(random_ids(64, 16, seed=1), "random")
HELD_OUT = from_samples(random_ids(64, 16, seed=2), "random")


def learned(
    model: LoadedModel, plain: SpectrumTable, folder: Path, steps: int = 60, seed: int = 0
) -> SpectrumTable:
    folder.mkdir()
    schedule = Schedule(KEEP, seed, steps)
    learn_importance(model, plain, [TEXTS], schedule, folder, lambda *_: None)
    return read_spectra(folder)


def training(
    model: LoadedModel, plain: SpectrumTable, keep: float = KEEP
) -> tuple[ScoreTraining, AllComponents]:
    components = side_by_side(plain)
    rows = pieces(model, [TEXTS], BATCH_TOKENS)
    batches = shuffled_batches([rows], BATCH_TOKENS, 0)
    return ScoreTraining(model, components, keep, batches), components


def search_of(model: LoadedModel, table: SpectrumTable, recipe: str) -> Search:
    given = replace(RECIPES.get(recipe), forms=("dense", "low_rank"))
    return prepare(find_groups(find_sites(model)), table, given, "float32", 2)


def plan_of(model: LoadedModel, table: SpectrumTable, recipe: str) -> Plan:
    search = search_of(model, table, recipe)
    return search.plan(int(KEEP * search.dense_bytes))


def held_out_loss(model: LoadedModel, table: SpectrumTable, plan: Plan) -> float:
    rows = pieces(model, [HELD_OUT], 1024)
    return mean_distillation_loss(model, truncate(table, plan), rows, 1024)


@pytest.fixture(scope="module", params=["tiny_decoder", "tiny_encoder"])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    found: LoadedModel = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def plain(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> SpectrumTable:
    return spectra_of(model, tmp_path_factory.mktemp("plain") / "run", "svd")


@pytest.fixture(scope="module")
def soco(
    model: LoadedModel, plain: SpectrumTable, tmp_path_factory: pytest.TempPathFactory
) -> SpectrumTable:
    return learned(model, plain, tmp_path_factory.mktemp("soco") / "learned")


def scales(table: SpectrumTable, plain: SpectrumTable, site: str) -> Tensor:
    """What the components were multiplied by, in their new order; their ``down`` is as it was."""
    new, old = table.decomposition(site), plain.decomposition(site)
    assert isinstance(new, Decomposition)
    assert isinstance(old, Decomposition)
    order = torch.cdist(new.down.T, old.down.T).argmin(1)
    assert torch.equal(new.down, old.down[:, order])
    return (new.up * old.up[order]).sum(1) / old.up[order].square().sum(1)


# --- the training --------------------------------------------------------------------------------


def test_training_lowers_its_objective_and_steers_the_threshold_to_a_half(
    model: LoadedModel, plain: SpectrumTable
) -> None:
    """At the price that it ends with, and on text that it has not seen."""
    trained, components = training(model, plain)
    found = trained.run(60, lambda *_: None)
    batch = next(shuffled_batches([pieces(model, [HELD_OUT], 2048)], 2048, 0))
    dense = torch.ones(len(components.owner))
    with torch.no_grad():
        before, after = (float(trained.objective(s, batch)) for s in (dense, found.scores))
    assert after < before
    assert 0.3 < found.threshold < 0.7
    kept = found.scores > found.threshold
    allowed = KEEP * float(components.dense.sum())
    assert 0.9 * allowed < components.parameters(kept) <= allowed


def test_the_model_stays_as_it_is(model: LoadedModel, plain: SpectrumTable, tmp_path: Path) -> None:
    modules = list(model.module.modules())
    before = {name: each.clone() for name, each in model.module.state_dict().items()}
    flags = [each.requires_grad for each in model.module.parameters()]
    learned(model, plain, tmp_path / "learned", steps=6)
    assert modules == list(model.module.modules())
    assert all(torch.equal(each, before[name]) for name, each in model.module.state_dict().items())
    assert flags == [each.requires_grad for each in model.module.parameters()]
    assert all(each.grad is None for each in model.module.parameters())


def test_the_same_seed_gives_the_same_files(
    model: LoadedModel, plain: SpectrumTable, tmp_path: Path
) -> None:
    seeds = {"first": 0, "again": 0, "other": 1}
    tables = [learned(model, plain, tmp_path / name, 9, seed) for name, seed in seeds.items()]
    files = [[path.read_bytes() for path in sorted(each.folder.iterdir())] for each in tables]
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_a_turn_moves_only_its_scores(tiny_decoder: LoadedModel, tmp_path: Path) -> None:
    table = spectra_of(tiny_decoder, tmp_path / "run", "svd")
    trained, _ = training(tiny_decoder, table)
    for _ in range(12):
        trained._compress(None)
    for turn in (0, 1):
        before = trained.scores().detach()
        below = before < trained.threshold
        assert below.any()
        trained._compress(turn)
        moved = trained.scores().detach() != before
        assert torch.equal(moved, below if turn == 0 else ~below)


@pytest.mark.parametrize("keep", [1.0, 0.05])
def test_extreme_shares_end_in_finite_scores(
    tiny_decoder: LoadedModel, keep: float, tmp_path: Path
) -> None:
    table = spectra_of(tiny_decoder, tmp_path / "run", "svd")
    trained, components = training(tiny_decoder, table, keep)
    found = trained.run(9, lambda *_: None)
    assert torch.isfinite(found.scores).all()
    assert torch.isfinite(found.scales).all()
    kept = components.parameters(found.scores > found.threshold)
    assert kept <= min(keep, MOST_KEPT) * float(components.dense.sum())


# --- what comes of it ----------------------------------------------------------------------------


def test_scores_above_one_occur_and_what_is_dropped_goes_to_zero(
    model: LoadedModel, plain: SpectrumTable, soco: SpectrumTable
) -> None:
    plan = plan_of(model, soco, "soco")
    ranks = {s.name: s.candidate.rank for s in plan.sites if s.candidate.form == "low_rank"}
    found = {name: scales(soco, plain, name) for name in ranks}
    assert max(float(found[name][:rank].max()) for name, rank in ranks.items()) > 1.05
    kept = torch.cat([found[name][:rank] for name, rank in ranks.items()])
    dropped = torch.cat([found[name][rank:] for name, rank in ranks.items()])
    assert dropped.median() < 0.25 < 0.7 < kept.median()


def test_components_are_in_the_order_of_their_scores(
    model: LoadedModel, soco: SpectrumTable
) -> None:
    search = search_of(model, soco, "soco")
    for option in search.options:
        assert (np.diff(option.sigma) <= 1e-9).all()
        assert 0 < option.sigma[0] < 2


def test_the_plan_fits_its_budget_and_uses_it(model: LoadedModel, soco: SpectrumTable) -> None:
    search, plan = search_of(model, soco, "soco"), plan_of(model, soco, "soco")
    assert 0.9 * KEEP < plan.planned_bytes / search.dense_bytes <= KEEP
    forms = [site.candidate.form for site in plan.sites]
    assert "low_rank" in forms
    assert any("holds the components above" in site.reason for site in plan.sites)


def test_learned_scores_lose_less_than_plain_singular_values(
    model: LoadedModel, plain: SpectrumTable, soco: SpectrumTable
) -> None:
    losses = {
        recipe: held_out_loss(model, table, plan_of(model, table, recipe))
        for recipe, table in (("svd", plain), ("welore", plain), ("soco", soco))
    }
    assert losses["soco"] < 0.7 * losses["svd"]
    assert losses["soco"] < losses["welore"]
