"""Built graphs of both tiny models against torch, at every rank, form and precision."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgelr.compress.block_quantized import quantize
from edgelr.compress.compressed_model import installed
from edgelr.compress.factors import Dense as DenseFactors
from edgelr.compress.factors import Factors, FactorSet, LowRank, Pivoted
from edgelr.compress.forms import pivot
from edgelr.core.run import Run
from edgelr.core.sites import LinearSite
from edgelr.core.vocabulary import Precision
from edgelr.graph.build import GraphTarget, build
from edgelr.graph.save import load_graph, read_versions
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_sites, weight_of
from edgelr.stages.subject import DenseExport
from edgelr.stages.transformers.dense import dense_export
from tests.helpers.run_exports import Recorder, batch, run_graph, run_torch, session_cache


@pytest.fixture(scope="module", params=["tiny_decoder", "tiny_encoder"])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    found: LoadedModel = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def dense(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> DenseExport:
    return dense_export(model, Run(session_cache(tmp_path_factory), Recorder()))


def low_rank(model: LoadedModel, site: LinearSite, rank: int) -> LowRank:
    """Truncate the weight in float64."""
    u, s, v = torch.linalg.svd(weight_of(model, site.name).double().T, full_matrices=False)
    return LowRank((u * s)[:, :rank].contiguous(), v[:rank].contiguous())


def factors_of(model: LoadedModel, form: str, missing: int | None) -> FactorSet:
    """Factors of every site, at full rank but ``missing`` components; None takes half."""

    def make(site: LinearSite) -> Factors:
        limit = min(site.in_features, site.out_features)
        found = low_rank(model, site, limit // 2 if missing is None else limit - missing)
        return single(pivot(found) if form == "pivoted" else found)

    return {site.name: make(site) for site in find_sites(model)}


def single(factors: Factors) -> Factors:
    if isinstance(factors, LowRank):
        return LowRank(factors.down.float(), factors.up.float())
    return replace(factors, first=factors.first.float(), second=factors.second.float())


def write(
    model: LoadedModel,
    dense: DenseExport,
    factors: FactorSet,
    folder: Path,
    precision: Precision = "float32",
) -> Path:
    path = folder / f"{precision}.onnx"
    build(model, dense.traced, find_sites(model), factors, path, GraphTarget(precision, 23, 11))
    onnx.checker.check_model(str(path), full_check=True)
    return path


def padded(model: LoadedModel) -> tuple[np.ndarray, np.ndarray]:
    """A batch whose rows are padded on the side on which the family pads."""
    ids, mask = batch(model, 3, 11)
    for row, count in enumerate((0, 4, 9)):
        if model.task == "text-generation":
            mask[row, :count] = 0
        else:
            mask[row, 11 - count :] = 0
    return ids, mask


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in load_graph(path).graph)


def test_pivoted_equals_low_rank_one_below_full_rank_on_both_axes(
    model: LoadedModel, dense: DenseExport, tmp_path: Path
) -> None:
    pivoted = factors_of(model, "pivoted", 1)
    axes = {factors.axis for factors in pivoted.values() if isinstance(factors, Pivoted)}
    assert axes == {"rows", "columns"}
    path = write(model, dense, pivoted, tmp_path)
    with installed(model.module, factors_of(model, "low_rank", 1)):
        for inputs in (batch(model, 1, 1), batch(model, 3, 7), padded(model)):
            expected = run_torch(model, *inputs)
            np.testing.assert_allclose(run_graph(model, path, *inputs), expected, atol=1e-4)


@pytest.mark.parametrize("form", ["low_rank", "pivoted"])
def test_half_rank_equals_the_compressed_torch_model_and_its_file_in_float16(
    model: LoadedModel, dense: DenseExport, form: str, tmp_path: Path
) -> None:
    """Padded and whole; ``tests/exporters`` has every family, in forms that alternate."""
    factors = factors_of(model, form, None)
    path = write(model, dense, factors, tmp_path)
    with installed(model.module, factors):
        for inputs in (batch(model, 1, 12), padded(model)):
            expected = run_torch(model, *inputs)
            twin = run_graph(model, path, *inputs)
            np.testing.assert_allclose(twin, expected, atol=1e-4)
    half = run_graph(model, write(model, dense, factors, tmp_path, "float16"), *padded(model))
    assert np.abs(half - twin).max() <= 2e-2 * np.abs(twin).max()


def test_no_dense_weight_is_left_behind(
    model: LoadedModel, dense: DenseExport, tmp_path: Path
) -> None:
    path = write(model, dense, factors_of(model, "low_rank", None), tmp_path)
    kept = sum(f.stat().st_size for f in tmp_path.glob("*.data"))
    removed = sum(
        4 * (site.parameters - (site.in_features + site.out_features) * rank)
        for site in find_sites(model)
        for rank in [min(site.in_features, site.out_features) // 2]
    )
    sidecar = dense.bundle.model_path.with_name("model.onnx.data")
    assert kept == pytest.approx(sidecar.stat().st_size - removed, rel=0.02), path


def test_a_file_says_which_versions_were_written(
    model: LoadedModel, dense: DenseExport, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    versions = build(
        model, dense.traced, find_sites(model), {}, path, GraphTarget("float32", 23, 9)
    )
    written = onnx.load(path, load_external_data=False)
    assert versions == read_versions(path)
    assert versions == (written.opset_import[0].version, written.ir_version)
    assert versions[0] <= 23
    assert versions[1] == 9


def test_without_factors_the_graph_is_the_dense_one(
    model: LoadedModel, dense: DenseExport, tmp_path: Path
) -> None:
    path, inputs = write(model, dense, {}, tmp_path), padded(model)
    expected = run_graph(model, dense.bundle.model_path, *inputs)
    np.testing.assert_array_equal(run_graph(model, path, *inputs), expected)


def test_rounded_linears_answer_like_torch_with_the_rounded_weights(
    model: LoadedModel, dense: DenseExport, tmp_path: Path
) -> None:
    sites = find_sites(model)[:3]
    blocks, factors = {}, {}
    for site in sites:
        stored = quantize(weight_of(model, site.name).numpy().T.copy(), "int8")
        blocks[f"{site.name}.weight"] = stored
        factors[site.name] = DenseFactors(torch.from_numpy(stored.dense()))
    path = tmp_path / "model.onnx"
    build(model, dense.traced, find_sites(model), factors, path, blocks=blocks)
    assert operators(path)["MatMulNBits"] == len(sites) > 0
    with installed(model.module, factors):
        expected = run_torch(model, *padded(model))
    np.testing.assert_allclose(run_graph(model, path, *padded(model)), expected, atol=1e-4)
