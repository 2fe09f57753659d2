"""Linears whose spectra are known: how many components they have, and which are low-rank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from edgelr.commands.inspect import KEEP, SAMPLES, inspect_sites
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.core.sites import SiteSummary
from tests.helpers.foreign_graphs import Builder, mlp


def with_spectrum(inputs: int, outputs: int, sigma: np.ndarray, seed: int) -> np.ndarray:
    """A matrix ``(inputs, outputs)`` with the singular values ``sigma``, and zeros."""
    generator = np.random.default_rng(seed)
    left, right = (
        np.linalg.qr(generator.standard_normal((size, len(sigma))))[0] for size in (inputs, outputs)
    )
    return ((left * sigma) @ right.T).astype(np.float32)


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, SiteSummary]:
    """Three linears: of equal components, of five components, and with a tail."""
    build = Builder()
    weights = {
        "even": with_spectrum(48, 64, np.ones(48), seed=1),
        "few": with_spectrum(64, 56, np.full(5, 3.0), seed=2),
        "tail": with_spectrum(56, 40, np.array([8.0] * 10 + [0.1] * 30), seed=3),
    }
    value = "x"
    for name, weight in weights.items():
        build.weights.append(numpy_helper.from_array(weight, f"{name}.weight"))
        value = build.node("MatMul", [value, f"{name}.weight"], name, name=f"/{name}/MatMul")
    path = build.save(tmp_path / "known.onnx", {"x": ["rows", 48]}, [value])
    settings = make_settings(model=str(path), keep=0.55)
    found = inspect_sites(settings, Run(Cache(tmp_path / "cache")))
    assert [row.name for row in found] == list(weights)  # as the model runs them
    return {row.name: row for row in found}


def test_as_many_components_are_counted_as_have_weight(rows: dict[str, SiteSummary]) -> None:
    assert [rows[name].effective_rank for name in ("even", "few")] == [48.0, 5.0]
    assert 10 < rows["tail"].effective_rank < 15
    assert [row.half_energy_rank for row in rows.values()] == [pytest.approx(24, abs=1), 3, 6]


def test_a_tail_is_what_is_below_a_tenth_of_the_largest(rows: dict[str, SiteSummary]) -> None:
    shares = [row.tail for row in rows.values()]
    assert shares == [0.0, pytest.approx(51 / 56, abs=1e-3), 30 / 40]


def test_a_spectrum_is_drawn_from_its_largest_value_to_its_last(
    rows: dict[str, SiteSummary],
) -> None:
    assert rows["even"].spectrum == pytest.approx((1.0,) * SAMPLES, abs=1e-3)
    assert rows["few"].spectrum == (1.0,) + (0.0,) * (SAMPLES - 1)
    assert rows["tail"].spectrum == pytest.approx((1.0,) * 3 + (1 / 80,) * 9, abs=1e-3)


def test_what_would_save_nothing_is_no_low_rank_component(rows: dict[str, SiteSummary]) -> None:
    even, few, tail = rows.values()
    assert (even.component, even.rank) == ("N-LRC", 48)
    assert (few.component, few.rank) == ("LRC", 5)
    assert tail.component == "LRC"
    assert 10 <= tail.rank < 56 * 40 / (56 + 40)


@pytest.mark.parametrize("keep", [None, 0.3, 0.6])
def test_ranks_take_the_share_that_is_asked_for(tmp_path: Path, keep: float | None) -> None:
    settings = make_settings(model=str(mlp(tmp_path / "mlp.onnx")), keep=keep)
    found = inspect_sites(settings, Run(Cache(tmp_path / "cache")))
    dense = sum(row.in_features * row.out_features for row in found)
    kept = sum(row.rank * (row.in_features + row.out_features) for row in found)
    asked = KEEP if keep is None else keep
    assert asked - 0.1 < kept / dense <= asked
