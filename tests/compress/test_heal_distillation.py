"""The loss of healing: a divergence per real token, a cosine per text."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgelr.compress.compressed_model import installed
from edgelr.compress.heal import Healing
from edgelr.compress.heal.distillation import (
    batches,
    distillation_loss,
    mean_distillation_loss,
    pieces,
    shuffled_batches,
)
from edgelr.compress.heal.students import student_of
from edgelr.data.calibration import from_samples
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_sites, weight_of
from tests.compress.test_heal import Models, halves, product, texts
from tests.conftest import random_ids
from tests.helpers.run_exports import every_task


@every_task
def test_a_model_is_no_distance_from_itself(tiny_models: Models, exporter: str) -> None:
    model = tiny_models[exporter]
    rows = pieces(model, [texts(3)], 80)
    assert mean_distillation_loss(model, {}, rows, 80) == 0
    full = {
        site.name: product(weight_of(model, site.name), min(site.in_features, site.out_features))
        for site in find_sites(model)
    }
    assert abs(mean_distillation_loss(model, full, rows, 80)) < 1e-8


@every_task
def test_padding_does_not_count(tiny_models: Models, exporter: str) -> None:
    model = tiny_models[exporter]
    given = halves(model)
    (ids, mask), *_ = batches(pieces(model, [texts(3, 4)], 80), 80)
    wider = functional.pad(ids, (0, 7), value=9), functional.pad(mask, (0, 7))
    student = student_of(given, Healing(1))
    results = []
    for batch in ((ids, mask), wider):
        loss = distillation_loss(model, student.factors(), batch)
        gradients = torch.autograd.grad(loss, list(student.parameters.values()))
        results.append((float(loss.detach()), torch.cat([each.flatten() for each in gradients])))
    (loss, gradient), (padded_loss, padded_gradient) = results
    assert padded_loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(padded_gradient, gradient, rtol=1e-3, atol=1e-6)


def test_the_loss_of_a_decoder_is_the_divergence_of_every_next_token(
    tiny_decoder: LoadedModel,
) -> None:
    given = halves(tiny_decoder)
    (ids, mask), *_ = batches(pieces(tiny_decoder, [texts(3, 4)], 80), 80)
    assert 0 < mask.sum() < mask.numel()
    student = student_of(given, Healing(1))
    leaves = list(student.parameters.values())
    teacher = tiny_decoder.module(ids, attention_mask=mask).logits.log_softmax(-1)
    with installed(tiny_decoder.module, student.factors()):
        learned = tiny_decoder.module(ids, attention_mask=mask).logits.log_softmax(-1)
    expected = (teacher.exp() * (teacher - learned)).sum(-1)[mask.bool()].mean()
    loss = distillation_loss(tiny_decoder, student.factors(), (ids, mask))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, autograds in zip(
        torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(ours, autograds, rtol=1e-3, atol=1e-6)


def test_the_loss_of_an_encoder_is_one_minus_the_cosine(tiny_encoder: LoadedModel) -> None:
    given = halves(tiny_encoder)
    rows = pieces(tiny_encoder, [texts(3)], 80)
    losses = []
    for row in rows:
        ids = row.inputs[None]
        outputs = [tiny_encoder.module(ids).last_hidden_state.mean(1)]
        with installed(tiny_encoder.module, given):
            outputs.append(tiny_encoder.module(ids).last_hidden_state.mean(1))
        losses.append(1 - float(functional.cosine_similarity(*outputs)))
    found = mean_distillation_loss(tiny_encoder, given, rows, 80)
    assert tiny_encoder.pooling == "mean"
    assert found == pytest.approx(np.mean(losses), rel=1e-3)


def test_every_epoch_has_every_token_once_in_an_order_of_its_own(
    tiny_decoder: LoadedModel, tiny_encoder: LoadedModel
) -> None:
    long = from_samples(random_ids(2, 1100), "")
    assert [each.tokens for each in pieces(tiny_decoder, [long], 1024)] == [512, 512, 76] * 2
    assert [each.tokens for each in pieces(tiny_encoder, [long], 1024)] == [1100] * 2
    rows = pieces(tiny_decoder, [texts(1), texts(2, 5)], 80)
    count = len(list(batches(rows, 10_000)))
    assert count == 1
    assert all(ids.numel() <= 80 for ids, _ in batches(rows, 80))
    one_row_each = [islice(shuffled_batches([rows], 1, seed), 3 * len(rows)) for seed in (0, 0, 1)]
    orders = [[ids[0].tolist() for ids, _ in found] for found in one_row_each]
    assert orders[0] == orders[1] != orders[2]
    epochs = [orders[0][start : start + len(rows)] for start in range(0, 3 * len(rows), len(rows))]
    assert epochs[0] != epochs[1]
    assert all(sorted(epoch) == sorted(row.inputs.tolist() for row in rows) for epoch in epochs)


def test_texts_weigh_by_the_roots_of_their_lengths(tiny_decoder: LoadedModel) -> None:
    short, long = (
        pieces(tiny_decoder, [from_samples(random_ids(rows, 512, rows), "")], 512)
        for rows in (4, 64)
    )
    own = {tuple(row.inputs.tolist()) for row in short}
    found = [
        tuple(ids[0].tolist()) for ids, _ in islice(shuffled_batches([short, long], 512, 0), 40)
    ]
    epochs = [found[:20], found[20:]]
    for epoch in epochs:
        assert own.issubset(epoch)
        assert len(set(epoch)) == 20  # 4 rows of one, and 4 * sqrt(16) of the other
    assert set(epochs[0]) - own != set(epochs[1]) - own
