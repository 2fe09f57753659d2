"""Spectra on disk: every kind of decomposition and of factors is read as it was written."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from edgelr.compress.block_quantized import QuantizedLoss, quantize
from edgelr.compress.factors import (
    Decomposed,
    Decomposition,
    Dense,
    Factors,
    Fits,
    Kronecker,
    KroneckerTerms,
    LowRank,
    Pivoted,
    Reweighted,
    SharedBasis,
    Tied,
    TiedFit,
)
from edgelr.compress.spectra import (
    SpectrumTable,
    read_factors,
    read_spectra,
    write_factors,
    write_spectrum,
)
from edgelr.compress.stored_weights import write_group
from edgelr.core.sites import LinearSite

LOSS = torch.linspace(1, 0, 7).double()
SITE = LinearSite("table", 6, 9, False, "table", None, "ids")


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


KINDS: dict[str, Decomposed] = {
    "model.layers.0.up": Decomposition(random(9, 6), random(6, 7), LOSS),
    "reweighted": Reweighted(random(9, 6), random(6, 7), random(6, 6).tril(), LOSS),
    "kronecker": KroneckerTerms(random(6, 2, 3), random(6, 4, 5), LOSS),
    "tied": TiedFit(random(9, 7), LOSS),
    "shared": SharedBasis(random(9, 6), random(2, 6, 6), random(6, 14), LOSS),
    "fits": Fits({rank: LowRank(random(9, rank), random(rank, 7)) for rank in (2, 10)}, LOSS),
}
FACTORS: dict[str, Factors] = {
    "alone": LowRank(random(9, 3), random(3, 7)),
    "first of two": LowRank(random(9, 3), random(3, 7), "both"),
    "up": Tied(random(9, 7), False, "pair"),
    "down": Tied(random(9, 7), True, "pair"),
    "terms": Kronecker(random(2, 2, 3), random(2, 4, 5)),
}


def same(found: object, expected: object) -> bool:
    """Compare values that hold tensors."""
    if isinstance(expected, Tensor):
        return isinstance(found, Tensor) and torch.equal(found, expected)
    if isinstance(expected, dict):
        return isinstance(found, dict) and found.keys() == expected.keys() and all(
            same(found[key], expected[key]) for key in expected
        )  # fmt: skip
    if type(found) is type(expected) and hasattr(expected, "__dataclass_fields__"):
        names = [each.name for each in fields(expected)]  # type: ignore[arg-type]
        return all(same(getattr(found, name), getattr(expected, name)) for name in names)
    return found == expected


@pytest.fixture
def table(tmp_path: Path) -> SpectrumTable:
    for name, each in KINDS.items():
        write_spectrum(tmp_path, name, each)
    return read_spectra(tmp_path)


def test_every_kind_of_decomposition_is_known() -> None:
    assert {type(each) for each in KINDS.values()} == set(get_args(Decomposed))
    assert {type(each) for each in FACTORS.values()} == set(get_args(Factors)) - {Pivoted, Dense}


@pytest.mark.parametrize("name", KINDS)
def test_a_decomposition_is_read_as_it_was_written(table: SpectrumTable, name: str) -> None:
    assert same(table.decomposition(name), KINDS[name])
    np.testing.assert_array_equal(table.loss[name], LOSS.numpy())
    assert table.loss[name].dtype == np.float64


def test_factors_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_factors(tmp_path / "factors.safetensors", FACTORS)
    assert same(read_factors(tmp_path / "factors.safetensors"), FACTORS)


def test_a_tensor_that_two_sites_share_may_be_written(tmp_path: Path) -> None:
    """safetensors refuses tensors that have their memory in common."""
    down = random(9, 3)
    shared = {name: LowRank(down, random(3, 7), "both") for name in ("a", "b")}
    write_factors(tmp_path / "factors.safetensors", shared)
    assert same(read_factors(tmp_path / "factors.safetensors"), shared)


# --- values --------------------------------------------------------------------------------------


def test_a_weight_that_is_not_factorized_stays_whole_or_is_rounded(
    table: SpectrumTable, tmp_path: Path
) -> None:
    stored = quantize(random(6, 9).numpy(), "int8")
    lost = QuantizedLoss(0.25, np.full(7, np.inf))
    write_group(tmp_path, SITE.name, {SITE.name: {"int8": stored}}, {"int8": lost})
    found = table.with_whole(SITE, tmp_path)
    np.testing.assert_array_equal(
        found.weight(SITE.name, SITE.name, "int8").dense(), stored.dense()
    )
    assert found.loss["table"].tolist() == [np.inf] * 6 + [0.0]
    lost = found.quantized["table"]["int8"]
    assert lost.dense == 0.25
    assert np.isinf(lost.product).all()
    assert "table" not in table.loss
    assert found.loss.keys() - {"table"} == table.loss.keys()


def test_scaling_keeps_truncation_and_rounding_apart(table: SpectrumTable) -> None:
    dropped = table.loss["tied"]
    rounded = np.where(np.arange(7) == 3, np.inf, dropped + np.linspace(0.1, 0.7, 7))
    given = replace(table, quantized={"tied": {"int4": QuantizedLoss(0.5, rounded)}})
    found = given.scaled(truncation=2.0, rounding=3.0)
    np.testing.assert_allclose(found.loss["tied"], 2 * dropped)
    lost = found.quantized["tied"]["int4"]
    assert lost.dense == 1.5
    expected = 2 * dropped + 3 * (rounded - dropped)
    np.testing.assert_allclose(lost.product, np.where(np.arange(7) == 3, np.inf, expected))


def test_rounding_that_seems_to_help_counts_as_nothing(table: SpectrumTable) -> None:
    lucky = {"tied": {"int4": QuantizedLoss(0.0, 0.5 * table.loss["tied"])}}
    found = replace(table, quantized=lucky).scaled(1.0, 100.0)
    np.testing.assert_allclose(found.quantized["tied"]["int4"].product, table.loss["tied"])
