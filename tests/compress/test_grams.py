"""Grams: half of the products are computed, and all of them are there in the end."""

from __future__ import annotations

import pytest
import torch

from edgelr.compress.grams import FEWEST_COLUMNS, MOST_COLUMNS, PANELS, add_gram, mirrored

# one panel; a last one that is narrower; as many as there may be; the widest ones
SIZES = (7, FEWEST_COLUMNS, FEWEST_COLUMNS + 1, PANELS * FEWEST_COLUMNS + 5, 2 * MOST_COLUMNS)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("size", SIZES)
def test_a_mirrored_gram_is_the_weighted_sum_of_all_products(size: int) -> None:
    parts = [(random(5, size), 1.0), (random(3, size), 0.25)]
    gram = torch.zeros(size, size)
    for x, weight in parts:
        add_gram(gram, x, weight)
    expected = sum(weight * x.T @ x for x, weight in parts)
    torch.testing.assert_close(mirrored(gram), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(mirrored(gram), mirrored(gram).T)


def test_what_lies_below_the_panels_is_not_computed() -> None:
    size = 3 * FEWEST_COLUMNS
    gram = torch.zeros(size, size)
    add_gram(gram, random(4, size))
    computed = (gram != 0).float().mean()
    assert computed == pytest.approx(2 / 3, abs=0.01)  # of three panels: 1 + 2/3 + 1/3, by three


def test_mirroring_trusts_the_upper_half_alone() -> None:
    gram = torch.tensor([[1.0, 2.0], [float("nan"), 3.0]])
    assert mirrored(gram).tolist() == [[1.0, 2.0], [2.0, 3.0]]
