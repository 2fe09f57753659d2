"""Scales of the kept components: the least squares that they solve, and what they gain."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgelr.compress.compressed_model import multiplied
from edgelr.compress.decompose import truncate
from edgelr.compress.factors import FactorSet, LowRank, Tied
from edgelr.compress.rescale import LARGEST_SCALE, Scales, collect, krylov_space, solve_step
from edgelr.data.calibration import Calibration, from_samples
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_sites, weight_of
from tests.compress.test_decompose import answers, half, lost, search_of, spectra_of
from tests.conftest import random_ids, tiny_texts
from tests.helpers.run_exports import every_task

Models = dict[str, LoadedModel]


def texts(rows: int, seed: int) -> Calibration:
    return from_samples(random_ids(rows, 24, seed), "random")


PLANNED: dict[tuple[str, str], FactorSet] = {}


def planned(model: LoadedModel, folder: Path) -> FactorSet:
    """Half of a model, in low ranks; made once for all tests."""
    key = (model.digest, model.task)
    if key not in PLANNED:
        table = spectra_of(model, folder, "fisher", texts(128, 0))
        PLANNED[key] = truncate(table, half(search_of(model, table, ("low_rank",))))
    return PLANNED[key]


def rescaled(
    model: LoadedModel,
    factors: FactorSet,
    parts: list[Calibration],
    folder: Path,
    seed: int = 1,
    ridge: float = 10.0,
) -> FactorSet:
    return solve_step(model, factors, parts, seed, folder, lambda *_: None).folded(ridge)


def scales(before: FactorSet, after: FactorSet) -> torch.Tensor:
    found = []
    for name, each in before.items():
        other = after[name]
        assert isinstance(each, LowRank)
        assert isinstance(other, LowRank)
        assert torch.equal(each.down, other.down)
        found.append((other.up * each.up).sum(1) / each.up.square().sum(1))
    return torch.cat(found)


def nearly_whole(model: LoadedModel, dropped: int = 6) -> FactorSet:
    """Every site without its last components: near enough for a loss of second order."""
    factors: FactorSet = {}
    for site in find_sites(model):
        u, s, v = torch.linalg.svd(weight_of(model, site.name).T, full_matrices=False)
        rank = len(s) - dropped
        factors[site.name] = LowRank(u[:, :rank] * s[:rank], v[:rank].contiguous())
    return factors


def test_linears_make_up_for_what_others_dropped(tiny_decoder: LoadedModel, tmp_path: Path) -> None:
    """Other text is lost less of than without scales, and than with each linear's own."""
    before, learned = nearly_whole(tiny_decoder), [texts(128, 0)]
    together = rescaled(tiny_decoder, before, learned, tmp_path, ridge=3.0)
    twice = rescaled(tiny_decoder, together, learned, tmp_path, seed=2, ridge=3.0)
    alone: FactorSet = {}
    for name, each in before.items():
        alone |= rescaled(tiny_decoder, {name: each}, learned, tmp_path, ridge=3.0)
    dense, losses = answers(tiny_decoder, texts(32, 9)), []
    for factors in (twice, together, alone, before):
        with multiplied(tiny_decoder.module, factors):
            losses.append(lost(tiny_decoder, dense, answers(tiny_decoder, texts(32, 9))))
    assert losses == sorted(losses)


@every_task
def test_scales_are_bounded_and_some_amplify(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    model = tiny_models[exporter]
    before = planned(model, tmp_path / "run")
    found = scales(before, rescaled(model, before, [texts(128, 0)], tmp_path))
    assert found.min() >= 0
    assert found.max() <= LARGEST_SCALE
    assert (found > 1.001).any()
    assert (found < 0.999).any()


@every_task
def test_what_lost_nothing_keeps_its_scale(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    """At full rank nothing is missing that a scale could make up for."""
    model = tiny_models[exporter]
    full: FactorSet = {}
    for site in find_sites(model):
        weight = weight_of(model, site.name).T.double()
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        full[site.name] = LowRank((u * s.sqrt()).float(), (s.sqrt()[:, None] * v).float())
    found = scales(full, rescaled(model, full, [texts(128, 0)], tmp_path))
    torch.testing.assert_close(found, torch.ones_like(found), atol=1e-3, rtol=0)


def test_a_component_made_smaller_gets_its_size_back(
    tiny_decoder: LoadedModel, tmp_path: Path
) -> None:
    """Nothing but its scale is wrong, and steps lead to it."""
    site = find_sites(tiny_decoder)[3]
    u, s, v = torch.linalg.svd(weight_of(tiny_decoder, site.name).T, full_matrices=False)
    up = s[:, None] * v
    up[0] /= 1.5
    factors: FactorSet = {site.name: LowRank(u, up)}
    for step in range(4):
        factors = rescaled(tiny_decoder, factors, [texts(128, step)], tmp_path, step, ridge=1.0)
    after = factors[site.name]
    assert isinstance(after, LowRank)
    found = (after.up * up).sum(1) / up.square().sum(1)
    assert float(found[0]) == pytest.approx(1.5, rel=0.02)
    torch.testing.assert_close(found[1:], torch.ones(len(found) - 1), atol=0.05, rtol=0)


@every_task
def test_equal_seeds_give_equal_scales_and_the_model_stays(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    model = tiny_models[exporter]
    before, state = planned(model, tmp_path / "run"), model.module.state_dict()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    rows = [tiny_texts(model, 4)]
    first, second = (rescaled(model, before, rows, tmp_path) for _ in range(2))
    other = rescaled(model, before, rows, tmp_path, seed=2)
    assert torch.equal(scales(before, first), scales(before, second))
    assert not torch.equal(scales(before, first), scales(before, other))
    assert all(torch.equal(kept[name], tensor) for name, tensor in state.items())
    assert all(parameter.grad is None for parameter in model.module.parameters())


def test_padding_adds_nothing(tiny_encoder: LoadedModel, tmp_path: Path) -> None:
    before = planned(tiny_encoder, tmp_path / "run")
    rows = tiny_texts(tiny_encoder, 2)
    noise = Calibration(
        rows.inputs * 0 + (1 - rows.mask) * 7 + rows.inputs * rows.mask, rows.mask, ""
    )
    found = scales(before, rescaled(tiny_encoder, before, [rows], tmp_path))
    other = scales(before, rescaled(tiny_encoder, before, [noise], tmp_path))
    torch.testing.assert_close(found, other)


@every_task
def test_the_gradient_is_that_of_the_divergence(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    """Scaling all components a little changes the divergence by what it says."""
    model = tiny_models[exporter]
    before, read = planned(model, tmp_path / "run"), texts(4, 3)
    found, gradient = collect(model, before, [read], 0, tmp_path, lambda *_: None)
    direction = torch.randn(len(gradient), generator=torch.Generator().manual_seed(7))
    dense, size, losses = answers(model, read), 3e-3, []
    for sign in (1, -1):
        scaled: FactorSet = {}
        for name, each in before.items():
            assert isinstance(each, LowRank)
            scale = 1 + sign * size * direction[found.columns[name], None]
            scaled[name] = LowRank(each.down, each.up * scale)
        with multiplied(model.module, scaled):
            losses.append(lost(model, dense, answers(model, read)))
    measured = (losses[0] - losses[1]) / (2 * size)
    assert measured == pytest.approx(float(direction @ gradient), rel=0.02, abs=1e-6)


@every_task
def test_steps_from_the_compressed_model_lose_less_of_other_text(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    model = tiny_models[exporter]
    factors, learned, other = planned(model, tmp_path / "run"), texts(128, 0), texts(32, 9)
    dense, losses = answers(model, other), []
    for step in range(3):
        with multiplied(model.module, factors):
            losses.append(lost(model, dense, answers(model, other)))
        own = [learned.every(2, step % 2)]
        factors = rescaled(model, factors, own, tmp_path, step, ridge=30.0)
    assert losses == sorted(losses, reverse=True)


def test_other_forms_stay_as_they_are(tiny_decoder: LoadedModel, tmp_path: Path) -> None:
    products = planned(tiny_decoder, tmp_path / "run")
    name = next(iter(products))
    tied = Tied(weight_of(tiny_decoder, name).T, False, "pair")
    after = rescaled(tiny_decoder, {**products, name: tied}, [texts(2, 0)], tmp_path)
    assert after[name] is tied


def test_the_derivatives_are_gone_in_the_end(tiny_encoder: LoadedModel, tmp_path: Path) -> None:
    products, work = planned(tiny_encoder, tmp_path / "run"), tmp_path / "work"
    rescaled(tiny_encoder, products, [texts(8, 0)], work)
    assert not list(work.iterdir())


@pytest.mark.parametrize("ridge", [0.1, 1.0, 10.0])
def test_one_krylov_space_has_the_solutions_for_all_ridges(ridge: float) -> None:
    torch.manual_seed(0)
    rows, right = torch.randn(40, 60), torch.randn(60)
    matrix = rows.T @ rows / 40
    basis, tridiagonal, start = krylov_space(lambda v: matrix @ v, right, 60)
    scales = Scales({}, {}, torch.ones(60), basis, tridiagonal, start)
    expected = torch.linalg.solve(matrix + ridge * torch.eye(60), right)
    torch.testing.assert_close(scales.shifts(ridge), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis)), rtol=0, atol=1e-4)


def test_nothing_to_make_up_for_gives_no_shift() -> None:
    basis, tridiagonal, start = krylov_space(lambda v: 2 * v, torch.zeros(5), 40)
    scales = Scales({}, {}, torch.ones(5), basis, tridiagonal, start)
    assert torch.equal(scales.shifts(1.0), torch.zeros(5))
