"""Convolutions as linears on patches, as two convolutions, and with what follows them folded in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from edgelr.compress.compressed_model import installed, multiplied
from edgelr.compress.factors import FactorSet, LowRank
from edgelr.model.convolutions import (
    features_last,
    first_product,
    fold_normalizations,
    is_convolution,
    matrix_of,
    read_features,
)
from tests.conftest import MakeModel, random_rows

KINDS: list[dict[str, Any]] = [
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2, "bias": False},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": (0, 1)},
    {"kernel_size": 3, "dilation": 2, "padding": 2},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": (5, 1), "padding": "same", "dilation": 2},
    {"kernel_size": 2, "padding": "valid"},
]


def made(kind: dict[str, Any]) -> tuple[nn.Conv2d, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Conv2d(5, 7, **kind), torch.randn(3, 5, 11, 9)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_convolution_is_a_linear_on_patches(kind: dict[str, Any]) -> None:
    conv, x = made(kind)
    assert is_convolution(conv)
    with torch.no_grad():
        expected = features_last(conv, conv(x))
    features = torch.cat([*read_features(conv, x)])
    assert features.shape[:2] == expected.shape[:2]
    found = features @ matrix_of(conv).T + (0 if conv.bias is None else conv.bias.detach())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    down = torch.randn(features.shape[-1], 4)
    found = first_product(conv, x, down)
    torch.testing.assert_close(found, features @ down, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_two_convolutions_are_one_of_low_rank(kind: dict[str, Any]) -> None:
    conv, x = made(kind)
    u, s, v = torch.linalg.svd(matrix_of(conv).T, full_matrices=False)
    model = nn.Sequential(conv)
    with torch.no_grad():
        dense = model(x)
        for rank in (3, len(s)):
            factors: FactorSet = {"0": LowRank(u[:, :rank] * s[:rank], v[:rank])}
            with multiplied(model, factors):
                expected = model(x)
            with installed(model, factors):
                found = model(x)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found, dense, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model(x), dense)


@pytest.mark.parametrize(
    "kind",
    [
        {"kernel_size": 3, "groups": 5},
        {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
        {"kernel_size": 2, "padding": "same"},  # pads one side only
    ],
    ids=str,
)
def test_other_convolutions_stay_dense(kind: dict[str, Any]) -> None:
    assert not is_convolution(nn.Conv2d(5, 5, **kind))


def test_folded_normalizations_change_no_answer() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.BatchNorm2d(6)]
    model = nn.Sequential(*layers, nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6)).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            norm.weight.data.normal_()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = model(x)
        fold_normalizations(model, {"input": x})
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)
    kinds = [type(layer).__name__ for layer in model]
    assert kinds == ["Conv2d", "Identity", "ReLU", "BatchNorm2d", "Conv2d", "Identity"]


def test_a_loaded_model_answers_like_the_one_that_was_saved(make_model: MakeModel) -> None:
    model = make_model("resnet")
    saved = transformers.AutoModelForImageClassification.from_pretrained(model.folder).eval()
    pixels = torch.tensor(random_rows(model, 2, 0).inputs)
    with torch.no_grad():
        expected = saved(pixel_values=pixels).logits
        found = model.module(pixel_values=pixels).logits
    assert not any(isinstance(each, nn.BatchNorm2d) for each in model.module.modules())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
