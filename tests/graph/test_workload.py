"""What a graph computes: every product once, with its shape, and how many other nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgelr.core.inputs import ImageInput
from edgelr.core.run import Run
from edgelr.device.latency import Product
from edgelr.graph.workload import read_workload
from edgelr.model.loaded import LoadedModel
from edgelr.stages.subject import DenseExport
from edgelr.stages.transformers.dense import dense_export
from tests.helpers.foreign_graphs import Builder, mlp
from tests.helpers.run_exports import Recorder, session_cache

IMAGE = ImageInput(16, 4, (16,), "bicubic", False, 1.0, (0.0,) * 3, (1.0,) * 3)


@pytest.fixture(scope="module")
def decoder_export(
    tiny_decoder: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> DenseExport:
    return dense_export(tiny_decoder, Run(session_cache(tmp_path_factory), Recorder()))


def test_a_graph_has_a_product_for_every_linear_and_the_head(
    tiny_decoder: LoadedModel, decoder_export: DenseExport
) -> None:
    found = read_workload(decoder_export.bundle.model_path)
    config = tiny_decoder.module.config
    assert len(found.products) == 7 * config.num_hidden_layers + 1
    assert Product(config.hidden_size, config.vocab_size, "float32") in found.products
    assert Product(config.intermediate_size, config.hidden_size, "float32") in found.products
    assert found.other_nodes > 2 * config.num_hidden_layers


def test_products_are_told_the_way_they_multiply(tmp_path: Path) -> None:
    """Also of a Gemm whose weight is stored transposed; Add and Tanh are other nodes."""
    found = read_workload(mlp(tmp_path / "mlp.onnx"))
    shapes = [(each.inputs, each.outputs) for each in found.products]
    assert shapes == [(48, 80), (80, 80), (80, 32)]
    assert {each.weights for each in found.products} == {"float32"}
    assert found.other_nodes == 3


def test_products_of_two_values_and_nodes_that_move_nothing_do_not_count(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 12, 12)
    build.node("Identity", ["x"], "same")
    build.node("MatMul", ["same", "w"], "h")
    build.node("MatMul", ["h", "h"], "y")
    found = read_workload(build.save(tmp_path / "two.onnx", {"x": [12, 12]}, ["y"]))
    assert (len(found.products), found.other_nodes) == (1, 1)


def test_a_convolution_multiplies_patches_as_often_as_it_has_positions(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 20, 3, 4, 4)
    build.node("Conv", ["pixels", "w"], "patches", strides=[2, 2])
    build.weight("depthwise", 20, 1, 3, 3)
    build.node("Conv", ["patches", "depthwise"], "y", group=20)
    path = build.save(tmp_path / "conv.onnx", {"pixels": ["images", 3, 16, 16]}, ["y"])
    found = read_workload(path, IMAGE.tokens)
    (patches,) = found.products  # a convolution in groups is none
    assert (patches.inputs, patches.outputs) == (3 * 4 * 4, 20)
    assert patches.positions_per_token == 7 * 7 / IMAGE.tokens
    assert found.other_nodes == 1
    (without,) = read_workload(path).products
    assert without.positions_per_token == 1.0
