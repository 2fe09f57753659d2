"""The compressed model in torch: exact where nothing is dropped, and gone after its block."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgelr.compress.compressed_model import (
    FactorizedLinear,
    all_answers,
    installed,
    mean_loss,
    multiplied,
)
from edgelr.compress.decompose import in_forms, truncate
from edgelr.compress.factors import LowRank
from edgelr.compress.forms import dense_weight, pivot
from edgelr.compress.spectra import SpectrumTable
from edgelr.core.plan import Plan
from edgelr.data.calibration import Calibration, from_samples
from edgelr.model.loaded import LoadedModel
from tests.compress.test_decompose import half, search_of, spectra_of
from tests.conftest import random_ids, tiny_inputs, tiny_texts
from tests.helpers.run_exports import every_exporter

Models = dict[str, LoadedModel]
Planned = Callable[[str], tuple[SpectrumTable, Plan]]


@pytest.fixture(scope="module")
def plans(tiny_models: Models, tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """Half of a tiny model, in all forms, by the name of its exporter."""

    @cache
    def make(name: str) -> tuple[SpectrumTable, Plan]:
        model = tiny_models[name]
        table = spectra_of(model, tmp_path_factory.mktemp(name) / "run", "fisher")
        return table, half(search_of(model, table))

    return make


def output(model: LoadedModel) -> Tensor:
    with torch.no_grad():
        answer: Tensor = model.module(**tiny_inputs(model))[0]
        return answer


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("pivots", [False, True], ids=["low_rank", "pivoted"])
def test_a_factorized_linear_is_the_linear_of_its_product(bias: bool, pivots: bool) -> None:
    torch.manual_seed(0)
    factors = LowRank(torch.randn(7, 4), torch.randn(4, 9))
    chosen = pivot(factors) if pivots else factors
    dense = nn.Linear(7, 9, bias=bias).requires_grad_(False)
    factorized = FactorizedLinear(dense, chosen)
    dense.weight.copy_(dense_weight(chosen))
    x = torch.randn(2, 3, 7)
    torch.testing.assert_close(factorized(x), dense(x))
    assert (factorized.in_features, factorized.out_features) == (7, 9)


@every_exporter
def test_installed_factors_and_a_planned_model_answer_the_same(
    tiny_models: Models, plans: Planned, exporter: str
) -> None:
    model, (table, plan) = tiny_models[exporter], plans(exporter)
    before = output(model)
    products = truncate(table, plan)
    with installed(model.module, in_forms(products, plan)):
        factorized = output(model)
    with multiplied(model.module, products):
        whole = output(model)
    torch.testing.assert_close(factorized, whole, rtol=1e-3, atol=1e-4)
    assert (factorized - before).abs().max() > 0.01


@every_exporter
@pytest.mark.parametrize("fails", [False, True])
def test_the_dense_model_comes_back_after_the_block(
    tiny_models: Models, plans: Planned, exporter: str, fails: bool
) -> None:
    model, (table, plan) = tiny_models[exporter], plans(exporter)
    before, state = output(model), model.module.state_dict()
    for block in (
        installed(model.module, truncate(table, plan)),
        multiplied(model.module, truncate(table, plan)),
    ):
        try:
            with block:
                assert not torch.equal(output(model), before)
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        assert torch.equal(output(model), before)
        assert model.module.state_dict().keys() == state.keys()
        assert not any(isinstance(part, FactorizedLinear) for part in model.module.modules())


def test_the_mean_loss_is_that_of_every_next_token(tiny_decoder: LoadedModel) -> None:
    texts = from_samples(random_ids(5, 9), "")
    with torch.no_grad():
        logits = tiny_decoder.module(torch.tensor(texts.inputs)).logits.double().log_softmax(-1)
    expected = [
        -float(logits[row, place, texts.inputs[row, place + 1]])
        for row in range(5)
        for place in range(8)
    ]
    assert mean_loss(tiny_decoder, texts) == pytest.approx(np.mean(expected), rel=1e-5)
    assert math.log(160) / 2 < np.mean(expected) < 2 * math.log(160)


def test_the_mean_loss_ignores_padding(tiny_decoder: LoadedModel) -> None:
    ids = random_ids(2, 9)
    mask = np.array([[1] * 9, [1] * 5 + [0] * 4])
    whole, short = (from_samples(row[None], "") for row in (ids[0], ids[1, :5]))
    expected = (8 * mean_loss(tiny_decoder, whole) + 4 * mean_loss(tiny_decoder, short)) / 12
    assert mean_loss(tiny_decoder, Calibration(ids, mask, "")) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("width", [9, 4])
def test_embeddings_are_those_of_every_text_alone(
    tiny_encoder: LoadedModel, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgelr.compress.compressed_model.EVALUATION_BATCH_TOKENS", width)
    texts = tiny_texts(tiny_encoder)
    found = all_answers(tiny_encoder, texts)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3).double())
    for row, ids, mask in zip(found, texts.inputs, texts.mask, strict=True):
        alone = from_samples(ids[mask == 1][None], "")
        torch.testing.assert_close(all_answers(tiny_encoder, alone)[0], row)
