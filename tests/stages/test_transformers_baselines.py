"""The original in other precisions: every linear rounded as it is, and nothing left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgelr.compress.compressed_model import installed
from edgelr.compress.factors import Dense, FactorSet
from edgelr.compress.quantization import rounded
from edgelr.core.bundle import ExportBundle, read_bundle
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.core.vocabulary import WeightPrecision
from edgelr.device.profile import DeviceProfile, load_profile
from edgelr.graph.save import load_graph
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import weight_of
from edgelr.stages.subject import DenseExport
from edgelr.stages.transformers.baselines import dense_in
from edgelr.stages.transformers.dense import dense_export
from tests.conftest import MakeModel
from tests.helpers.run_exports import Recorder, batch, run_graph, run_torch, session_cache

DEVICE = load_profile("generic-cpu")

every_rounding = pytest.mark.parametrize(
    "weights", ["int4", pytest.param("int8", marks=pytest.mark.whole)]
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return session_cache(tmp_path_factory)


@pytest.fixture(scope="module")
def dense(tiny_encoder: LoadedModel, cache: Cache) -> DenseExport:
    return dense_export(tiny_encoder, Run(cache, Recorder()))


def at_level(level: int, device: DeviceProfile = DEVICE) -> DeviceProfile:
    """Change what a device multiplies quantized weights in: 1 is float32."""
    figure = device.layout.accuracy_level.model_copy(update={"value": level})
    layout = device.layout.model_copy(update={"accuracy_level": figure})
    return device.model_copy(update={"layout": layout})


def multiplied_in_blocks(bundle: ExportBundle) -> list[onnx.NodeProto]:
    graph = onnx.load(bundle.model_path, load_external_data=False).graph
    return [node for node in graph.node if node.op_type == "MatMulNBits"]


def weight_bytes(bundle: ExportBundle) -> int:
    values = load_graph(bundle.model_path).graph.initializers.values()
    return sum(value.const_value.nbytes for value in values if value.const_value is not None)


def rounded_factors(model: LoadedModel, weights: WeightPrecision) -> FactorSet:
    return {
        site.name: Dense(rounded(weight_of(model, site.name).T.float().contiguous(), weights))
        for site in model.sites
    }


def test_in_float32_the_original_is_its_own_baseline(
    tiny_encoder: LoadedModel, dense: DenseExport, tmp_path: Path
) -> None:
    run = Run(Cache(tmp_path / "cache"), Recorder())
    assert dense_in(tiny_encoder, dense, "float32", DEVICE, run) is dense.bundle
    assert not run.cache.root.exists()


def test_in_float16_every_weight_takes_half(
    tiny_encoder: LoadedModel, dense: DenseExport, cache: Cache
) -> None:
    found = dense_in(tiny_encoder, dense, "float16", DEVICE, Run(cache))
    assert found.model_path.name == "model_fp16.onnx"
    assert found.manifest.precision == "float16"
    assert found.manifest.digest == dense.bundle.manifest.digest
    assert weight_bytes(found) == pytest.approx(weight_bytes(dense.bundle) / 2, rel=0.01)


@every_rounding
def test_every_linear_is_rounded_and_multiplied_as_it_was_rounded(
    tiny_encoder: LoadedModel, dense: DenseExport, cache: Cache, weights: WeightPrecision
) -> None:
    model = tiny_encoder
    found = dense_in(model, dense, weights, at_level(1), Run(cache))
    nodes = multiplied_in_blocks(found)
    if weights == "int4":
        assert len(nodes) == len(model.sites)
        bits = {int(each.i) for node in nodes for each in node.attribute if each.name == "bits"}
        assert bits == {4}
        assert weight_bytes(found) < weight_bytes(dense.bundle)
    else:  # CPUs multiply 8 bits in float32 a thousand times slower: what they stand for is stored
        assert not nodes
    inputs = batch(model, 3, 7)
    before = run_torch(model, *inputs)
    with installed(model.module, rounded_factors(model, weights)):
        expected = run_torch(model, *inputs)
    answers = run_graph(model, found.model_path, *inputs)
    np.testing.assert_allclose(answers, expected, atol=1e-4)
    assert np.abs(answers - before).max() > 1e-3


@pytest.mark.whole
def test_values_are_in_the_precision_of_the_device_or_in_the_one_that_is_asked_for(
    tiny_encoder: LoadedModel, dense: DenseExport, cache: Cache
) -> None:
    device, run = load_profile("jetson"), Run(cache)
    found = [
        dense_in(tiny_encoder, dense, "int8", device, run, values).manifest.precision
        for values in (None, "float32")
    ]
    assert found == ["float16", "float32"]


def test_a_baseline_is_made_once_for_all_devices_that_take_the_same_graph(
    tiny_encoder: LoadedModel, dense: DenseExport, cache: Cache
) -> None:
    newest = DEVICE.software.max_opset
    older = newest.model_copy(update={"value": newest.value - 2})
    software = DEVICE.software.model_copy(update={"max_opset": older})
    behind = DEVICE.model_copy(update={"software": software})
    renamed = DEVICE.model_copy(update={"id": "board"})

    def folder(weights: WeightPrecision, device: DeviceProfile) -> Path:
        return dense_in(tiny_encoder, dense, weights, device, Run(cache)).folder

    whole, half = folder("int8", at_level(1)), folder("float16", DEVICE)
    assert folder("int8", at_level(1, renamed)) == whole
    assert folder("int8", at_level(4)) != whole
    assert folder("float16", at_level(1)) == half  # it has no product of integers
    assert folder("float16", behind) != half
    assert read_bundle(folder("float16", behind)).manifest.opset <= older.value


@pytest.mark.whole
def test_a_table_of_whole_blocks_is_rounded_as_well(make_model: MakeModel, tmp_path: Path) -> None:
    model, run = make_model("bert", hidden_size=96), Run(Cache(tmp_path), Recorder())
    dense, table = dense_export(model, run), model.table
    assert table is not None
    found = dense_in(model, dense, "int4", at_level(1), run)
    factors = rounded_factors(replace(model, sites=(*model.sites, table)), "int4")
    inputs, changed = batch(model, 3, 7), factors.pop(table.name)
    assert isinstance(changed, Dense)
    embeddings = model.module.get_submodule(table.name).weight
    before = embeddings.detach().clone()
    try:
        embeddings.data.copy_(changed.weight.T)
        with installed(model.module, factors), torch.no_grad():
            expected = run_torch(model, *inputs)
    finally:
        embeddings.data.copy_(before)
    np.testing.assert_allclose(run_graph(model, found.model_path, *inputs), expected, atol=1e-4)
