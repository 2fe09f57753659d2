"""Scales of the kept components: the least squares that they solve, and what they gain."""

from __future__ import annotations

from pathlib import Path

import torch

from edgelr.calibration import Calibration, from_samples
from edgelr.compressed import multiplied
from edgelr.decompose import truncate
from edgelr.factors import FactorSet, LowRank, Tied
from edgelr.rescale import LARGEST_SCALE, rescale
from edgelr.sites import find_sites, weight_of
from edgelr.types import LoadedModel
from tests.conftest import random_ids, tiny_texts
from tests.exports import both_tasks
from tests.test_decompose import answers, half, lost, search_of, spectra_of

Models = dict[str, LoadedModel]


def texts(rows: int, seed: int) -> Calibration:
    return from_samples(random_ids(rows, 24, seed), "random")


def planned(model: LoadedModel, folder: Path) -> FactorSet:
    table = spectra_of(model, folder, "fisher", texts(128, 0))
    return truncate(table, half(search_of(model, table, ("low_rank",))))


def rescaled(
    model: LoadedModel, factors: FactorSet, parts: list[Calibration], seed: int = 1
) -> FactorSet:
    return rescale(model, factors, parts, seed, lambda *_: None)


def scales(before: FactorSet, after: FactorSet) -> torch.Tensor:
    found = []
    for name, each in before.items():
        other = after[name]
        assert isinstance(each, LowRank)
        assert isinstance(other, LowRank)
        assert torch.equal(each.down, other.down)
        found.append((other.up * each.up).sum(1) / each.up.square().sum(1))
    return torch.cat(found)


def test_the_answers_come_closer_on_other_text(tiny_decoder: LoadedModel, tmp_path: Path) -> None:
    before = planned(tiny_decoder, tmp_path / "run")
    after = rescaled(tiny_decoder, before, [texts(128, 0)])
    dense, losses = answers(tiny_decoder, texts(32, 9)), []
    for factors in (before, after):
        with multiplied(tiny_decoder.module, factors):
            losses.append(lost(tiny_decoder, dense, answers(tiny_decoder, texts(32, 9))))
    assert losses[1] < losses[0]


@both_tasks
def test_scales_are_bounded_and_some_amplify(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    model = tiny_models[exporter]
    before = planned(model, tmp_path / "run")
    found = scales(before, rescaled(model, before, [texts(128, 0)]))
    assert found.min() >= 0
    assert found.max() <= LARGEST_SCALE
    assert (found > 1.001).any()
    assert (found < 0.999).any()


@both_tasks
def test_what_lost_nothing_keeps_its_scale(tiny_models: Models, exporter: str) -> None:
    """At full rank nothing is missing that a scale could make up for."""
    model = tiny_models[exporter]
    full: FactorSet = {}
    for site in find_sites(model):
        u, s, v = torch.linalg.svd(weight_of(model, site.name).T, full_matrices=False)
        full[site.name] = LowRank(u * s.sqrt(), s.sqrt()[:, None] * v)
    found = scales(full, rescaled(model, full, [texts(16, 0)]))
    torch.testing.assert_close(found, torch.ones_like(found), atol=1e-3, rtol=0)


def test_a_component_made_smaller_gets_most_of_its_size_back(
    tiny_decoder: LoadedModel,
) -> None:
    """Nothing but its scale is wrong; correlations that could be noise are not trusted whole."""
    site = find_sites(tiny_decoder)[3]
    u, s, v = torch.linalg.svd(weight_of(tiny_decoder, site.name).T, full_matrices=False)
    up = s[:, None] * v
    up[0] /= 1.5
    after = rescaled(tiny_decoder, {site.name: LowRank(u, up)}, [texts(256, 0)])[site.name]
    assert isinstance(after, LowRank)
    found = (after.up * up).sum(1) / up.square().sum(1)
    assert 1.35 < float(found[0]) < 1.52
    torch.testing.assert_close(found[1:], torch.ones(len(found) - 1), atol=0.05, rtol=0)


@both_tasks
def test_equal_seeds_give_equal_scales_and_the_model_stays(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    model = tiny_models[exporter]
    before, state = planned(model, tmp_path / "run"), model.module.state_dict()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    first, second = (rescaled(model, before, [tiny_texts(model, 4)]) for _ in range(2))
    other = rescaled(model, before, [tiny_texts(model, 4)], seed=2)
    assert torch.equal(scales(before, first), scales(before, second))
    assert not torch.equal(scales(before, first), scales(before, other))
    assert all(torch.equal(kept[name], tensor) for name, tensor in state.items())
    assert all(parameter.grad is None for parameter in model.module.parameters())


def test_padding_adds_nothing(tiny_encoder: LoadedModel, tmp_path: Path) -> None:
    before = planned(tiny_encoder, tmp_path / "run")
    rows = tiny_texts(tiny_encoder, 2)
    noise = Calibration(rows.ids * 0 + (1 - rows.mask) * 7 + rows.ids * rows.mask, rows.mask, "")
    found = scales(before, rescaled(tiny_encoder, before, [rows]))
    torch.testing.assert_close(found, scales(before, rescaled(tiny_encoder, before, [noise])))


def test_other_forms_stay_as_they_are(tiny_decoder: LoadedModel) -> None:
    site = find_sites(tiny_decoder)[0]
    tied = Tied(weight_of(tiny_decoder, site.name).T, False, "pair")
    assert rescaled(tiny_decoder, {site.name: tied}, [texts(2, 0)])[site.name] is tied
