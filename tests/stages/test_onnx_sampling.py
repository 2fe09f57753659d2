"""Few samples for every linear, and what is estimated from them."""

from __future__ import annotations

import numpy as np
import pytest

from edgelr.stages.onnx.sampling import CERTAIN, PASSES, design, enough, pooled, row_means


@pytest.mark.parametrize(
    ("linears", "samples"), [(1, 1), (3, 32), (18, 32), (52, 32), (300, 32), (2000, 32), (40, 3)]
)
def test_runs_do_not_grow_with_the_graph(linears: int, samples: int) -> None:
    shares, most, size = design(linears, samples)
    groups = -(-linears // size)
    assert 1 <= most <= samples
    assert most * groups * len(shares) <= PASSES * samples
    assert (size > 1) == (linears > PASSES * samples)


def test_small_graphs_are_measured_at_three_ranks_on_every_sample() -> None:
    shares, most, size = design(10, 32)
    assert (len(shares), most, size) == (3, 32, 1)


def parts_of(whole: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A third of the samples of every row."""
    table = np.full_like(whole, np.nan)
    for row in range(len(whole)):
        chosen = generator.permutation(whole.shape[1])[: whole.shape[1] // 3]
        table[row, chosen] = whole[row, chosen]
    return table


def test_means_of_rows_are_those_of_all_samples() -> None:
    """Also where some samples move everything ten times as far as others."""
    generator = np.random.default_rng(0)
    means, common = generator.uniform(1e-4, 1e-2, 60), np.geomspace(0.3, 3.0, 15)
    whole = means[:, None] * common
    found, spread = row_means(parts_of(whole, generator))
    np.testing.assert_allclose(found, whole.mean(1), rtol=1e-3)
    assert spread < 1e-3
    noisy = whole * generator.uniform(0.5, 1.5, whole.shape)
    np.testing.assert_allclose(row_means(noisy)[0], noisy.mean(1))
    assert row_means(parts_of(noisy, generator))[1] == pytest.approx(np.sqrt(1 / 12), rel=0.2)


def test_rows_of_nothing_have_the_mean_zero() -> None:
    found, spread = row_means(np.zeros((3, 4)))
    assert (found == 0).all()
    assert spread == 0


def test_what_varies_needs_more_samples() -> None:
    assert enough(CERTAIN) == 1
    assert enough(4 * CERTAIN) == 16


def test_uncertain_ranks_are_drawn_to_what_the_linear_costs() -> None:
    scales = np.array([[1.0, 2.0, 3.0], [4.0, 0.0, 12.0]])
    np.testing.assert_allclose(pooled(scales, 0.0), scales)
    drawn = pooled(scales, 10.0)
    assert drawn[1, 1] > 2.0
    assert (drawn[1] / drawn[0]) == pytest.approx((drawn[1] / drawn[0])[0], rel=0.01)
