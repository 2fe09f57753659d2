"""Derivatives on the disk: products with their second moment are those with all of them at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from edgelr.compress import component_gradients
from edgelr.compress.component_gradients import (
    LARGEST_STORED,
    Derivatives,
    DerivativesWriter,
    products_of,
)
from edgelr.compress.factors import FactorSet, Kronecker, LowRank
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import loss_of

ROWS = (5, 3, 4)  # of the batches
RANKS = {"first": 3, "second": 2}
FACTORS: FactorSet = {
    "first": LowRank(torch.zeros(9, 3), torch.zeros(3, 7)),
    "other form": Kronecker(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)),
    "second": LowRank(torch.zeros(9, 2), torch.zeros(2, 7)),
}
SIZES = torch.tensor([1.0, 1e-3, 1e3, 0.0, 2.0])


def given() -> list[Tensor]:
    """Derivatives of every batch, ``(rows, 5)``, of very different sizes."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, len(SIZES), generator=generator) * SIZES for rows in ROWS]


def written(folder: Path, batches: list[Tensor]) -> Derivatives:
    writer = DerivativesWriter.into(folder / "new", FACTORS)
    for batch in batches:
        for name, part in zip(RANKS, batch.split([*RANKS.values()], dim=1), strict=True):
            writer.add(name, part)
        writer.flush()
    return writer.finish()


@pytest.fixture(params=[1, 7, 2**24], ids="{} numbers at once".format)
def derivatives(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Derivatives:
    monkeypatch.setattr(component_gradients, "PIECE_NUMBERS", request.param)
    return written(tmp_path, given())


def test_every_row_is_there_once_in_units_of_its_column(derivatives: Derivatives) -> None:
    found = torch.cat([*derivatives.pieces()]) * derivatives.unit
    assert derivatives.rows == len(found) == sum(ROWS)
    torch.testing.assert_close(found, torch.cat(given()), rtol=2e-3, atol=1e-6)
    assert derivatives.columns == {"first": slice(0, 3), "second": slice(3, 5)}


def test_products_with_the_second_moment_need_no_second_moment(derivatives: Derivatives) -> None:
    p = torch.cat([*derivatives.pieces()])
    v = torch.linspace(-1, 1, len(SIZES))
    torch.testing.assert_close(derivatives.normal(v), p.T @ p @ v / len(p))
    sizes = p.square().mean(0).sqrt()
    torch.testing.assert_close(derivatives.sizes()[SIZES > 0], sizes[SIZES > 0])
    assert (derivatives.sizes() > 0).all()


def test_what_float16_cannot_hold_is_cut(tmp_path: Path) -> None:
    first = torch.full((2, 5), 1e-6)
    found = torch.cat([*written(tmp_path, [first, 1e6 * torch.ones(1, 5)]).pieces()])
    assert torch.isfinite(found).all()
    assert found[-1].tolist() == [np.float16(LARGEST_STORED)] * 5


def test_other_forms_have_no_components_to_scale() -> None:
    assert list(products_of(FACTORS)) == ["first", "second"]


def test_positions_with_one_loss_are_added_up(
    tiny_decoder: LoadedModel, tiny_encoder: LoadedModel, tiny_models: dict[str, LoadedModel]
) -> None:
    values = torch.arange(24.0).reshape(2, 4, 3)
    flat = loss_of(tiny_decoder).by_row(tiny_decoder, 1.0, values)
    assert torch.equal(flat, values.reshape(8, 3))
    assert torch.equal(loss_of(tiny_encoder).by_row(tiny_encoder, 1.0, values), values.sum(1))
    vit = tiny_models["vit:image-classification"]
    assert vit.image is not None
    vit = replace(vit, image=replace(vit.image, tokens=2))
    windows = values.reshape(4, 2, 3)  # two of every image, one after another
    assert torch.equal(loss_of(vit).by_row(vit, 2.0, windows), values.sum(1))
