"""Components in closed form: their Fisher information, their order, their best scales."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgelr.compress.compressed_model import multiplied
from edgelr.compress.decompose import truncate
from edgelr.compress.factors import Decomposition, Fits, Reweighted
from edgelr.compress.forms import dense_weight
from edgelr.compress.importance import collect_importance, surgery
from edgelr.compress.importance.surgery import elimination_order, reweighted, shrunk
from edgelr.compress.spectra import SpectrumTable, read_spectra, write_spectrum
from edgelr.compress.statistics import units_per_token
from edgelr.core.errors import InputError
from edgelr.data.calibration import Calibration, from_samples
from edgelr.device.profile import load_profile
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import backward
from edgelr.model.sites import find_sites, weight_of
from edgelr.stages.transformers.subject import examine
from tests.compress.test_decompose import answers, lost, search_of, spectra_of
from tests.conftest import random_ids, tiny_texts
from tests.helpers.run_exports import every_task, quick_settings

Models = dict[str, LoadedModel]


def importance_of(
    model: LoadedModel, plain: SpectrumTable, texts: Calibration, folder: Path, seed: int = 0
) -> SpectrumTable:
    folder.mkdir()
    units = units_per_token(model, [texts])
    collect_importance(model, plain, [texts], units, folder, seed, lambda *_: None)
    return read_spectra(folder)


def correlated(size: int, seed: int = 0, common: float = 0.5) -> Tensor:
    """Positive definite, with sizes over three decades and a direction in common."""
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(size, 2 * size, generator=random, dtype=torch.float64)
    noise = noise + common * torch.randn(2 * size, generator=random, dtype=torch.float64)
    noise *= torch.logspace(0, -1.5, size, dtype=torch.float64)[:, None]
    return noise @ noise.T / (2 * size)


def random_decomposition(size: int) -> Decomposition:
    random = torch.Generator().manual_seed(1)
    down, up = torch.randn(size + 3, size, generator=random), torch.randn(size, size + 1)
    return Decomposition(down.double(), up.double(), torch.zeros(size + 1).double())


# --- the Fisher information ----------------------------------------------------------------------


class Scaled(nn.Module):
    """A linear as the sum of its components, each with a scale of its own at every token."""

    def __init__(self, dense: nn.Linear, plain: Decomposition) -> None:
        super().__init__()
        self.dense, self.plain = dense, plain
        self.scales = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.scales = torch.ones(*x.shape[:-1], len(self.plain.up), requires_grad=True)
        y = (x @ self.plain.down * self.scales) @ self.plain.up
        return y if self.dense.bias is None else y + self.dense.bias


@contextmanager
def scaled(model: LoadedModel, table: SpectrumTable) -> Iterator[dict[str, Scaled]]:
    dense = {name: model.module.get_submodule(name) for name in table.loss}
    sites = {}
    for name, linear in dense.items():
        plain = table.decomposition(name)
        assert isinstance(linear, nn.Linear)
        assert isinstance(plain, Decomposition)
        sites[name] = Scaled(linear, plain)
        model.module.set_submodule(name, sites[name])
    yield sites
    for name, linear in dense.items():
        model.module.set_submodule(name, linear)


@pytest.fixture
def unshrunk(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Catch the Fisher information of every site, as the tokens give it."""
    caught: dict[str, Tensor] = {}

    def catch(folder: Path, name: str, result: tuple[Decomposition, Tensor]) -> None:
        write_spectrum(folder, name, result[0])
        caught[name] = result[1]

    monkeypatch.setattr(surgery, "shrunk", lambda mean, *_: mean)
    monkeypatch.setattr(surgery, "reweighted", lambda plain, fisher: (plain, fisher))
    monkeypatch.setattr(surgery, "write_spectrum", catch)
    return caught


@every_task
def test_the_fisher_information_is_that_of_a_scale_per_token(
    tiny_models: Models, exporter: str, tmp_path: Path, unshrunk: dict[str, Tensor]
) -> None:
    model = tiny_models[exporter]
    texts = tiny_texts(model)
    table = spectra_of(model, tmp_path / "run", "fisher")
    importance_of(model, table, texts, tmp_path / "importance", seed=3)
    ids, mask = torch.tensor(texts.inputs), torch.tensor(texts.mask)
    with scaled(model, table) as sites:
        backward(model, ids, mask, torch.Generator().manual_seed(3))
        for name, site in sites.items():
            assert site.scales.grad is not None
            expected = torch.zeros(len(site.plain.up), len(site.plain.up))
            for p in site.scales.grad[mask.bool()]:
                expected += torch.outer(p, p)
            expected /= texts.tokens * units_per_token(model, [texts])
            size = float(expected.diagonal().max())
            torch.testing.assert_close(
                unshrunk[name].float(), expected, rtol=1e-3, atol=1e-5 * size
            )


def test_padding_does_not_count(
    tiny_encoder: LoadedModel, tmp_path: Path, unshrunk: dict[str, Tensor]
) -> None:
    texts = tiny_texts(tiny_encoder)
    table = spectra_of(tiny_encoder, tmp_path / "run", "fisher")
    found = []
    for name, more in (("narrow", 0), ("wide", 5)):
        ids = np.pad(texts.inputs, ((0, 0), (0, more)), constant_values=7)
        given = Calibration(ids, np.pad(texts.mask, ((0, 0), (0, more))), "padded")
        importance_of(tiny_encoder, table, given, tmp_path / name)
        found.append(dict(unshrunk))
    for name, narrow in found[0].items():
        torch.testing.assert_close(found[1][name], narrow, rtol=1e-4, atol=1e-9)


# --- shrinkage -----------------------------------------------------------------------------------


def moments(p: Tensor) -> tuple[Tensor, float, int]:
    squares = p.square()
    pairs = (squares.sum(1).square() - squares.square().sum(1)).mean()
    return p.T @ p / len(p), float(pairs), len(p)


@pytest.mark.parametrize("tokens", [30, 300])
def test_shrinking_brings_an_estimate_closer_to_the_truth(tokens: int) -> None:
    truth = correlated(40)
    root = torch.linalg.cholesky(truth / truth.diagonal().outer(truth.diagonal()).sqrt())
    random = torch.Generator().manual_seed(2)
    p = torch.randn(tokens, 40, generator=random, dtype=torch.float64) @ root.T
    mean, pairs, count = moments(p)
    errors = [(each - root @ root.T).norm() for each in (shrunk(mean, pairs, count), mean)]
    assert errors[0] < errors[1]
    torch.testing.assert_close(shrunk(mean, pairs, count).diagonal(), mean.diagonal())


def test_noise_alone_is_shrunk_away() -> None:
    p = torch.randn(200, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, pairs, count = moments(p)
    beside = shrunk(mean, pairs, count) - torch.diag(mean.diagonal())
    assert beside.norm() < 0.2 * (mean - torch.diag(mean.diagonal())).norm()


# --- order and scales ----------------------------------------------------------------------------


def quadratic(fisher: Tensor, scales: Tensor) -> float:
    """What scales ``(r,)`` of the first components cost, the others being dropped."""
    change = torch.zeros(len(fisher), dtype=torch.float64) - 1
    change[: len(scales)] += scales.double()
    return float(change @ fisher @ change / 2)


def test_the_predicted_loss_is_the_quadratic_form_at_every_rank() -> None:
    plain, fisher = random_decomposition(30), correlated(30)
    result = reweighted(plain, fisher)
    ordered = result.root @ result.root.T
    for rank in range(31):
        scales = result.scales(rank)
        cost = quadratic(ordered, scales)
        assert float(result.loss[rank]) == pytest.approx(cost, rel=1e-9, abs=1e-12)
        cut = quadratic(ordered, torch.ones(rank))
        assert cost < cut or rank in (0, 30)
        for change in (0.99, 1.01):
            assert quadratic(ordered, change * scales) >= cost
    assert (result.loss.diff() <= 0).all()
    assert result.loss[-1] == 0


def test_full_rank_is_lossless() -> None:
    plain = random_decomposition(20)
    result = reweighted(plain, correlated(20))
    weight = (plain.down @ plain.up).T
    torch.testing.assert_close(dense_weight(result.truncate(20)), weight)


def test_every_elimination_is_the_cheapest_one() -> None:
    fisher = correlated(12).numpy()
    left = list(range(12))
    for gone in elimination_order(fisher)[::-1]:
        costs = []
        for each in left:
            kept = [other for other in left if other != each]
            dropped = [other for other in range(12) if other not in kept]
            inner = np.linalg.solve(fisher[np.ix_(kept, kept)], fisher[np.ix_(kept, dropped)])
            rest = fisher[np.ix_(dropped, dropped)] - fisher[np.ix_(dropped, kept)] @ inner
            costs.append(rest.sum())
        assert left[int(np.argmin(costs))] == gone
        left.remove(gone)


def test_eight_at_once_cost_hardly_more_than_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fisher = random_decomposition(150), correlated(150)
    fast = reweighted(plain, fisher).loss
    monkeypatch.setattr(surgery, "AT_ONCE", 1)
    slow = reweighted(plain, fisher).loss
    torch.testing.assert_close(fast[:50], slow[:50], rtol=0.02, atol=0)
    torch.testing.assert_close(fast, slow, rtol=0.1, atol=1e-3 * float(slow[0]))


def test_scales_below_zero_become_zero() -> None:
    fisher = torch.tensor([[1.0, 0.5, -1.4], [0.5, 2.0, -1.0], [-1.4, -1.0, 3.0]]).double()
    root = torch.linalg.cholesky(fisher)
    plain = random_decomposition(3)
    result = Reweighted(plain.down, plain.up, root, torch.zeros(4).double())
    best = 1 + torch.linalg.solve(fisher[:2, :2], fisher[:2, 2])
    assert best[0] < 0 < best[1]
    torch.testing.assert_close(result.scales(2), torch.stack([best[0] * 0, best[1]]))


def test_components_that_nothing_reads_have_finite_scales() -> None:
    fisher = shrunk(torch.zeros(6, 6).double(), 0.0, 10) * 1e-38  # the least unit, squared
    result = reweighted(random_decomposition(6), fisher)
    stored = replace(result, root=result.root.float())
    for rank in range(1, 7):
        assert torch.isfinite(stored.truncate(rank).up).all()


# --- whole models --------------------------------------------------------------------------------


@every_task
@pytest.mark.parametrize("kept", [0.7, 0.9])
def test_the_predicted_loss_is_about_the_measured_one(
    tiny_models: Models, exporter: str, kept: float, tmp_path: Path
) -> None:
    model, texts = tiny_models[exporter], from_samples(random_ids(128, 16), "random")
    plain = spectra_of(model, tmp_path / "run", "fisher", texts)
    table = importance_of(model, plain, texts, tmp_path / "importance")
    dense = search_of(model, table).plan(10**9)
    sites = []
    for site in dense.sites:
        rank = round(kept * min(site.in_features, site.out_features))
        loss = float(table.loss[site.name][rank])
        low_rank = replace(site.candidate, form="low_rank", rank=rank, predicted_loss=loss)
        sites.append(replace(site, candidate=low_rank))
    before = answers(model, texts)
    with multiplied(model.module, truncate(table, replace(dense, sites=tuple(sites)))):
        measured = lost(model, before, answers(model, texts))
    predicted = sum(site.candidate.predicted_loss for site in sites)
    assert measured / 2.5 < predicted < 2.5 * measured


@every_task
def test_what_is_kept_is_amplified_and_read_back_as_it_was_written(
    tiny_models: Models, exporter: str, tmp_path: Path
) -> None:
    model, texts = tiny_models[exporter], from_samples(random_ids(64, 16), "random")
    plain = spectra_of(model, tmp_path / "run", "fisher", texts)
    tables = [importance_of(model, plain, texts, tmp_path / name) for name in "ab"]
    largest = 0.0
    for site in find_sites(model):
        result = tables[0].decomposition(site.name)
        assert isinstance(result, Reweighted)
        full = len(result.up)
        ordered = result.root.double() @ result.root.double().T
        for rank in (full // 3, full // 2, full - 1):
            scales = result.scales(rank)
            largest = max(largest, float(scales.max()))
            expected = quadratic(ordered, scales)
            assert float(result.loss[rank]) == pytest.approx(expected, rel=1e-3)
        found = dense_weight(result.truncate(full))
        torch.testing.assert_close(found, weight_of(model, site.name), rtol=1e-3, atol=1e-4)
        files = [(table.folder / f"{site.name}.safetensors").read_bytes() for table in tables]
        assert files[0] == files[1]
    assert largest > 1.02


# --- refusals ------------------------------------------------------------------------------------


def test_decompositions_without_nested_components_are_refused(
    tiny_decoder: LoadedModel, tmp_path: Path
) -> None:
    name = find_sites(tiny_decoder)[0].name
    write_spectrum(tmp_path, name, Fits({}, torch.zeros(3)))
    with pytest.raises(InputError, match=r"gave Fits for model\.layers\.0.*--method fisher"):
        importance_of(
            tiny_decoder, read_spectra(tmp_path), tiny_texts(tiny_decoder), tmp_path / "n"
        )


def test_linears_that_share_components_are_refused(tiny_decoder: LoadedModel) -> None:
    settings = quick_settings(tiny_decoder.folder, recipe="soco", grouping="input")
    with pytest.raises(InputError, match=r"soco.* weighs.*--grouping one"):
        examine(tiny_decoder, settings, load_profile("generic-cpu"))
