"""Factors in graphs: what is added for them, on MatMul and on Gemm."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import helper

from edgelr.compress.compressed_model import installed
from edgelr.compress.factors import FactorSet, LowRank, Pivoted
from edgelr.core.errors import EdgelrError
from edgelr.core.run import Run
from edgelr.core.sites import LinearSite
from edgelr.graph.bind import Binding, bind
from edgelr.graph.factorize import FactorizeLinears, run_length
from edgelr.graph.save import save_graph
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_sites
from edgelr.stages.transformers.dense import dense_export
from tests.graph.test_build import low_rank, operators, single, write
from tests.helpers.run_exports import Recorder, batch, run_graph, run_torch, session_cache
from tests.helpers.single_node import NEWEST, one_node, outputs_of

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("order", "run"),
    [
        ([1, 0, 2, 3], 1),
        ([2, 3, 0, 1], 2),
        ([4, 5, 6, 7, 0, 1, 2, 3], 4),
        ([1, 2, 3, 0], 1),  # neighbours, but not aligned: no reshape can cut them out
        ([0, 1, 2, 3, 4, 5], 2),
    ],
)
def test_a_permutation_moves_in_its_longest_aligned_runs(order: list[int], run: int) -> None:
    assert run_length(np.array(order)) == run


def pivoted_at(factors: LowRank, window: np.ndarray) -> Pivoted:
    """Pivot the smaller side of a product at some of its outputs or inputs."""
    rows = factors.up.shape[1] <= factors.down.shape[0]
    matrix = factors.up if rows else factors.down.T  # (rank, n)
    others = np.delete(np.arange(matrix.shape[1]), window)
    chosen, order = matrix[:, window], torch.from_numpy(np.concatenate((window, others)))
    rest = torch.linalg.solve(chosen, matrix[:, others])
    if rows:
        return Pivoted("rows", factors.down @ chosen, rest, order)
    return Pivoted("columns", rest.T.contiguous(), chosen.T @ factors.up, order)


PIVOTS = {  # what is chosen of n, and how many nodes that adds to MatMul and MatMul
    "first": (lambda n: np.arange(8), {"Split": 1, "Add": 1}, {"Concat": 1}),
    "inside": (
        lambda n: np.arange(8, 16),
        {"Split": 1, "Add": 2, "MatMul": 1},
        {"Concat": 1, "MatMul": 1},
    ),
    "last": (lambda n: np.arange(n - 8, n), {"Split": 1, "Add": 1}, {"Concat": 1}),
    "runs": (
        lambda n: np.r_[8:12, 16:20],
        {"Split": 1, "Add": 1, "Gather": 1, "Reshape": 2},
        {"Concat": 1, "Gather": 1, "Reshape": 2},
    ),
    "single": (
        lambda n: np.arange(n - 1, n - 17, -2),
        {"Split": 1, "Add": 1, "Gather": 1, "Transpose": 2},
        {"Concat": 1, "Gather": 1, "Transpose": 2},
    ),
}


@pytest.mark.parametrize("kind", PIVOTS)
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_pivots_cost_the_nodes_of_their_place(
    tiny_decoder: LoadedModel, kind: str, axis: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Neighbours are cut out and put back as they are; what is scattered is permuted."""
    model, folder = tiny_decoder, tmp_path_factory.mktemp("pivots")
    dense = dense_export(model, Run(session_cache(tmp_path_factory), Recorder()))
    choose, columns, rows = PIVOTS[kind]
    wanted = (
        (lambda s: s.out_features <= s.in_features)
        if axis == "rows"
        else (lambda s: s.out_features > s.in_features)
    )
    site = next(site for site in find_sites(model) if wanted(site))
    size = min(site.in_features, site.out_features)
    product = low_rank(model, site, 8)
    factors: FactorSet = {site.name: single(pivoted_at(product, choose(size)))}
    path = write(model, dense, factors, folder)
    added = operators(path) - operators(dense.bundle.model_path)
    assert added - Counter(MatMul=1) == Counter(rows if axis == "rows" else columns)
    with installed(model.module, {site.name: single(product)}):
        for inputs in (batch(model, 1, 1), batch(model, 3, 7)):
            expected = run_torch(model, *inputs)
            np.testing.assert_allclose(run_graph(model, path, *inputs), expected, atol=1e-4)


# --- on a Gemm ----------------------------------------------------------------------------------


def gemm(alpha: float) -> tuple[ir.Model, list[Binding], np.ndarray]:
    """A Gemm with a bias and its weight ``(out, in)`` transposed, bound to a site."""
    weight = RANDOM.standard_normal((20, 12)).astype(np.float32)
    bias = RANDOM.standard_normal(20).astype(np.float32)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], "/head/Gemm", transB=1, alpha=alpha)
    model = one_node(node, {"w": weight, "b": bias}, 12)
    site = LinearSite("head", 12, 20, True, "head", None, "head")
    return model, bind(model.graph, [site], lambda _: weight), weight


def test_a_gemm_keeps_its_bias(tmp_path: Path) -> None:
    model, bindings, weight = gemm(alpha=1.0)
    assert bindings[0].transposed
    ir.save(model, tmp_path / "dense.onnx")
    u, s, v = torch.linalg.svd(torch.tensor(weight).T, full_matrices=False)
    FactorizeLinears(bindings, {"head": LowRank(u * s, v)})(model)
    save_graph(model, tmp_path / "split.onnx", NEWEST, NEWEST)
    x = RANDOM.standard_normal((7, 12)).astype(np.float32)
    expected = outputs_of(tmp_path / "dense.onnx", x)
    np.testing.assert_allclose(outputs_of(tmp_path / "split.onnx", x), expected, atol=1e-4)
    assert [node.op_type for node in model.graph] == ["MatMul", "MatMul", "Add"]


def test_a_gemm_that_scales_is_refused() -> None:
    model, bindings, weight = gemm(alpha=2.0)
    factors = LowRank(torch.tensor(weight.T[:, :4]), torch.tensor(weight[:4]))
    with pytest.raises(EdgelrError, match=r"Gemm of head has alpha=2\.0"):
        FactorizeLinears(bindings, {"head": factors})(model)
