"""Components of all linears side by side: what they cost, and which of them a budget can hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgelr.compress.factors import Decomposition, Fits
from edgelr.compress.forms import dense_weight
from edgelr.compress.importance.components import AllComponents, nested, side_by_side
from edgelr.compress.spectra import SpectrumTable, read_spectra, write_spectrum
from edgelr.core.errors import InputError
from edgelr.device.storage import LEAST_SAVING

SHAPES = {"first": (24, 40), "second": (40, 16), "third": (33, 21)}  # inputs, outputs


@pytest.fixture(scope="module")
def spectra(tmp_path_factory: pytest.TempPathFactory) -> SpectrumTable:
    folder = tmp_path_factory.mktemp("spectra")
    generator = torch.Generator().manual_seed(0)
    for name, (inputs, outputs) in SHAPES.items():
        down = torch.randn(inputs, min(inputs, outputs), generator=generator)
        up = torch.randn(min(inputs, outputs), outputs, generator=generator)
        loss = torch.linspace(1, 0, len(up) + 1).double()
        write_spectrum(folder, name, Decomposition(down, up, loss))
    return read_spectra(folder)


@pytest.fixture(scope="module")
def components(spectra: SpectrumTable) -> AllComponents:
    return side_by_side(spectra)


def test_a_component_costs_its_two_vectors(components: AllComponents) -> None:
    costs = components.split(components.cost)
    assert list(costs) == list(SHAPES)
    for name, (inputs, outputs) in SHAPES.items():
        assert costs[name].tolist() == [inputs + outputs] * min(inputs, outputs)
    assert components.dense.tolist() == [inputs * outputs for inputs, outputs in SHAPES.values()]


def test_scaled_components_add_up_to_the_scaled_weight(
    components: AllComponents, spectra: SpectrumTable
) -> None:
    scales = torch.linspace(0, 2, len(components.owner))
    factors = components.factors(scales, torch.tensor([False, True, False]))
    assert list(factors) == ["first", "third"]
    for name, each in components.split(scales).items():
        if name in factors:
            plain = spectra.decomposition(name)
            assert isinstance(plain, Decomposition)
            expected = (plain.down @ torch.diag(each) @ plain.up).T
            torch.testing.assert_close(dense_weight(factors[name]), expected)


def test_a_site_that_would_not_be_smaller_counts_as_dense(components: AllComponents) -> None:
    everything = torch.ones(len(components.owner), dtype=torch.bool)
    assert components.dense_sites(everything).all()
    assert components.parameters(everything) == float(components.dense.sum())
    inputs, outputs = SHAPES["first"]
    most = int((1 - LEAST_SAVING) * inputs * outputs / (inputs + outputs))
    for rank, expected in ((most, most * (inputs + outputs)), (most + 1, inputs * outputs)):
        kept = torch.zeros(len(components.owner), dtype=torch.bool)
        kept[:rank] = True
        assert components.parameters(kept) == expected
        assert bool(components.dense_sites(kept)[0]) == (rank > most)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_threshold_is_the_lowest_that_fits(components: AllComponents, share: float) -> None:
    scores = torch.rand(len(components.owner), generator=torch.Generator().manual_seed(0))
    allowed = share * float(components.dense.sum())
    threshold = components.threshold(scores, allowed)
    assert components.parameters(scores > threshold) <= allowed
    left = torch.sort(scores[scores <= threshold]).values
    assert components.parameters(scores > left[-2]) > allowed


def test_what_has_no_nested_components_is_refused_by_name(tmp_path: Path) -> None:
    write_spectrum(tmp_path, "site", Fits({}, torch.zeros(3)))
    with pytest.raises(InputError, match="gave Fits for site; expected nested components"):
        nested(read_spectra(tmp_path), "site")
