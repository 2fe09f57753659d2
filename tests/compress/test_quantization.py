"""Precision as an axis of the plan: what rounding is predicted to lose, and what is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgelr import pipeline
from edgelr.compress.block_quantized import QuantizedLoss
from edgelr.compress.factors import Dense, LowRank, Reweighted
from edgelr.compress.forms import level
from edgelr.compress.methods import ErrorMetric
from edgelr.compress.methods.metric import factorize_between
from edgelr.compress.quantization import product_losses, rounded
from edgelr.compress.shared_basis import factorize_stacked, metric_loss
from edgelr.compress.spectra import SpectrumTable
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.core.vocabulary import LAYOUTS, WeightPrecision
from edgelr.device.profile import load_profile
from edgelr.graph.residency import read_residency
from edgelr.graph.save import load_graph
from edgelr.model.loaded import LoadedModel
from edgelr.model.token_table import find_table
from edgelr.stages.subject import Planned
from edgelr.stages.transformers.factorize import make_factors
from tests.conftest import MakeModel
from tests.helpers.run_exports import Recorder, quick_settings, session_cache

pytestmark = pytest.mark.whole

BLOCK = LAYOUTS["int4"].block_size
PRECISIONS: tuple[WeightPrecision, ...] = ("int8", "int4")

every_precision = pytest.mark.parametrize("precision", PRECISIONS)


def random_gram(size: int, seed: int) -> torch.Tensor:
    root = torch.randn(size, 2 * size, generator=torch.Generator().manual_seed(seed)).double()
    return root @ root.T / size


def random_weight(outputs: int, inputs: int, seed: int) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)).double()


@every_precision
def test_the_predicted_loss_is_that_of_the_rounded_matrices(precision: WeightPrecision) -> None:
    weight, metric = random_weight(80, 96, 0), (random_gram(80, 1), random_gram(96, 2))
    found = factorize_between(weight, *metric)
    lost = product_losses([weight], [metric], found, precision)
    for rank in (BLOCK, 2 * BLOCK):
        part = level(LowRank(found.down[:, :rank], found.up[:rank]))
        product = rounded(part.down, precision) @ rounded(part.up, precision)
        expected = metric_loss(weight - product.T, metric)
        assert lost[rank] == pytest.approx(expected, rel=1e-6)
    assert (lost[::BLOCK] >= found.loss.numpy()[::BLOCK]).all()


@every_precision
def test_a_group_loses_what_its_sites_lose(precision: WeightPrecision) -> None:
    weights = [random_weight(48, 64, 0), random_weight(40, 64, 1)]
    inputs = random_gram(64, 2)
    metrics: list[ErrorMetric] = [(random_gram(48, 3), inputs), (random_gram(40, 4), inputs)]
    found = factorize_stacked(weights, metrics, inputs)
    lost = product_losses(weights, metrics, found, precision)
    part = level(LowRank(found.down[:, :BLOCK], found.up[:BLOCK]))
    product = rounded(part.down, precision) @ rounded(part.up, precision)
    errors = [w - p.T for w, p in zip(weights, product.split([48, 40], dim=1), strict=True)]
    expected = sum(map(metric_loss, errors, metrics))
    assert lost[BLOCK] == pytest.approx(expected, rel=1e-6)


def test_more_bits_lose_less() -> None:
    weight, metric = random_weight(80, 96, 0), (random_gram(80, 1), random_gram(96, 2))
    found = factorize_between(weight, *metric)
    fine, coarse = (product_losses([weight], [metric], found, each) for each in PRECISIONS)
    assert (fine[BLOCK:] < coarse[BLOCK:]).all()


@every_precision
def test_components_of_another_order_lose_what_they_do_and_what_rounding_adds(
    precision: WeightPrecision,
) -> None:
    weight, metric = random_weight(80, 96, 0), (random_gram(80, 1), random_gram(96, 2))
    plain, order = factorize_between(weight, *metric), torch.arange(79, -1, -1)
    down, up = plain.down[:, order], plain.up[order]
    found = Reweighted(down, up, torch.eye(80).double(), 3 * plain.loss)
    lost = product_losses([weight], [metric], found, precision)
    for rank in (BLOCK, 2 * BLOCK):
        part = level(LowRank(down[:, :rank], up[:rank]))
        product = rounded(part.down, precision) @ rounded(part.up, precision)
        errors = (weight - product.T, weight - (part.down @ part.up).T)
        added = metric_loss(errors[0], metric) - metric_loss(errors[1], metric)
        expected = float(found.loss[rank]) + max(0.0, float(added))
        assert lost[rank] == pytest.approx(expected, rel=1e-6)


def test_factors_that_are_not_nested_stay_as_they_are() -> None:
    weight = random_weight(40, 48, 0)
    plain = factorize_between(weight, None, None)
    lost = product_losses([weight], [(None, None)], Unnested(plain.loss), "int8")  # type: ignore[arg-type]
    assert np.isinf(lost).all()


class Unnested:
    def __init__(self, loss: torch.Tensor) -> None:
        self.loss = loss


# --- plans and files --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return session_cache(tmp_path_factory)


def planned(model: LoadedModel, cache: Cache, **changes: object) -> Planned:
    settings = quick_settings(model.folder, **changes)
    return pipeline.plan(settings, load_profile("generic-cpu"), Run(cache, Recorder()))


def precisions(made: Planned) -> set[str]:
    return {site.candidate.precision for site in made.plan.sites}


@every_precision
def test_one_precision_is_that_of_every_linear(
    tiny_decoder: LoadedModel, cache: Cache, precision: WeightPrecision
) -> None:
    made = planned(tiny_decoder, cache, precision=precision, keep=1.0)
    assert precisions(made) == {precision}
    assert made.plan.kept < {"int8": 0.4, "int4": 0.25}[precision]  # blocks are filled up
    assert made.plan.predicted_loss > 0
    factored = make_factors(made, Run(cache, Recorder()))
    assert all(isinstance(each, Dense) for each in factored.factors.values())
    assert len(factored.blocks) == len(made.plan.sites)


def test_bytes_go_where_they_cost_least(tiny_decoder: LoadedModel, cache: Cache) -> None:
    """With every precision to choose from, no budget loses more than with one."""
    free = planned(tiny_decoder, cache, precision="auto", keep=0.55)
    assert free.plan.kept <= 0.55
    assert precisions(free) <= {"float32", *LAYOUTS}
    assert precisions(free) & set(LAYOUTS)
    fixed = planned(tiny_decoder, cache, precision="float32", keep=0.55)
    assert free.plan.predicted_loss < fixed.plan.predicted_loss


@pytest.mark.parametrize(
    ("exporter", "precision", "keep"),
    [("llama", "int8", 0.26), ("llama", "auto", 0.22), ("bert", "int4", 0.15)],
)
def test_an_export_is_right_and_as_large_as_planned(
    make_model: MakeModel,
    cache: Cache,
    tmp_path: Path,
    exporter: str,
    precision: str,
    keep: float,
) -> None:
    folder = tmp_path / "bundle"
    model = make_model(exporter, hidden_size=96)  # rows of the table are whole blocks
    settings = quick_settings(model.folder, precision=precision, keep=keep)
    report = pipeline.export(settings, load_profile("generic-cpu"), folder, Run(cache, Recorder()))
    assert report.validation.parity.passed
    assert report.validation.parity.twin_max_error is not None
    stored = [
        value.const_value.nbytes
        for value in load_graph(next(folder.glob("onnx/*.onnx"))).graph.initializers.values()
        if value.const_value is not None
        and (value.dtype == ir.DataType.UINT8 or str(value.name).endswith(".scales"))
    ]
    chosen = [site.candidate for site in report.plan.sites]
    assert sum(stored) == sum(each.bytes for each in chosen if each.precision in LAYOUTS)
    assert sum(stored) > 0
    table = find_table(model)
    assert table is not None
    assert report.plan.sites[-1].name == table.name
    assert report.plan.sites[-1].candidate.precision in LAYOUTS
    loaded = read_residency(next(folder.glob("onnx/*.onnx")), "cpu")
    planned_bytes = report.budget.fixed_weight_bytes + report.plan.resident_bytes
    assert planned_bytes == pytest.approx(loaded.bytes, rel=0.02)  # shapes, orders of runs


def test_scaling_keeps_the_two_kinds_apart(tmp_path: Path) -> None:
    dropped = np.array([8.0, 3.0, 1.0, np.inf])
    lost = QuantizedLoss(0.5, np.array([8.5, 3.25, np.inf, np.inf]))
    table = SpectrumTable(tmp_path, {"site": dropped}, {"site": {"int4": lost}})
    scaled = table.scaled(truncation=10.0, rounding=2.0)
    np.testing.assert_array_equal(scaled.loss["site"], [80.0, 30.0, 10.0, np.inf])
    found = scaled.quantized["site"]["int4"]
    assert found.dense == 1.0
    np.testing.assert_array_equal(found.product, [81.0, 30.5, np.inf, np.inf])
