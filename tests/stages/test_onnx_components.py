"""Decompositions of a graph's linears: the error that is predicted is the one measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelr.core.cache import Cache
from edgelr.graph.linears import find_linears
from edgelr.graph.open import open_foreign
from edgelr.stages.onnx.components import decompose, read_components, write_components
from edgelr.stages.onnx.sensitivity import open_probe
from tests.helpers.foreign_graphs import Builder, mlp, random


@pytest.mark.parametrize("shape", [(16, 24), (24, 16)])
def test_dropped_error_is_the_error_that_is_measured(shape: tuple[int, int]) -> None:
    weight = random(*shape).astype(np.float64)
    x = random(500, shape[1], seed=2) @ random(shape[1], shape[1], seed=3)
    gram = x.T.astype(np.float64) @ x / len(x)
    down, up, error = decompose(weight, gram)
    np.testing.assert_allclose((down @ up).T, weight, atol=1e-8)
    assert (np.diff(error) <= 0).all()
    for rank in (2, 7, 15):
        dropped = weight - (down[:, :rank] @ up[:rank]).T
        damped = 0.99 * gram + 0.01 * np.trace(gram) / len(gram) * np.eye(len(gram))
        assert np.trace(dropped @ damped @ dropped.T) == pytest.approx(error[rank], rel=1e-6)


def test_whitening_beats_the_plain_svd_on_correlated_inputs() -> None:
    weight = random(16, 24).astype(np.float64)
    x = random(500, 24, seed=2) * np.geomspace(1, 0.01, 24)
    whitened, plain = (decompose(weight, gram) for gram in (x.T @ x / len(x), None))
    errors = [
        np.linalg.norm(x @ (weight - (down[:, :6] @ up[:6]).T).T)
        for down, up, _ in (whitened, plain)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_inputs_that_never_vary_do_not_break_the_decomposition() -> None:
    weight = random(16, 24).astype(np.float64)
    for gram in (np.zeros((24, 24)), np.ones((24, 24))):
        down, up, error = decompose(weight, gram)
        np.testing.assert_allclose((down @ up).T, weight, atol=1e-8)
        assert np.isfinite(error).all()


def test_grams_are_those_of_what_the_linears_read(
    graph: Path, graph_cache: Cache, tmp_path: Path
) -> None:
    """The first linear reads the input itself: its components are those of the input's Gram."""
    graph = mlp(tmp_path / "mlp.onnx")
    x = random(40, 1, 48, seed=4)
    folder = tmp_path / "components"
    folder.mkdir()
    write_components(graph, {"x": x}, folder, lambda *_: None)
    found = read_components(folder, ["first", "second", "last"])
    flat = x.reshape(-1, 48).astype(np.float64)
    weight = find_linears(open_foreign(graph)).found[0].read_weight().astype(np.float64)
    _, _, error = decompose(weight, flat.T @ flat / len(flat))
    np.testing.assert_allclose(found.errors["first"], error, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(found.truncate("first", 48).dense(), weight, atol=1e-5)


def test_the_gram_of_a_convolution_has_the_positions_that_it_reads(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 20, 12, 1, 1)
    build.node("Conv", ["x", "w"], "y", name="conv", strides=[2, 2])
    graph = build.save(tmp_path / "conv.onnx", {"x": [1, 12, 6, 6]}, ["y"])
    x = random(4, 1, 12, 6, 6)
    folder = tmp_path / "components"
    folder.mkdir()
    write_components(graph, {"x": x}, folder, lambda *_: None)
    flat = np.moveaxis(x[:, 0, :, ::2, ::2], 1, -1).reshape(-1, 12).astype(np.float64)
    weight = find_linears(open_foreign(graph)).found[0].read_weight().astype(np.float64)
    _, _, error = decompose(weight, flat.T @ flat / len(flat))
    found = read_components(folder, ["conv"]).errors["conv"]
    np.testing.assert_allclose(found, error, rtol=1e-5, atol=1e-8)


def test_a_truncated_kernel_moves_the_output_by_what_was_predicted(tmp_path: Path) -> None:
    build = Builder()
    build.weight("w", 20, 6, 3, 3)
    build.node("Conv", ["x", "w"], "y", name="conv", pads=[1, 1, 1, 1])
    graph = build.save(tmp_path / "conv.onnx", {"x": [1, 6, 12, 12]}, ["y"])
    x = random(8, 1, 6, 12, 12)
    folder = tmp_path / "components"
    folder.mkdir()
    write_components(graph, {"x": x}, folder, lambda *_: None)
    components = read_components(folder, ["conv"])
    probe = open_probe(graph, components, {"x": x})
    whole, short = (probe.outputs(ranks, {"x": x}) for ranks in ({}, {"conv": 8}))
    squares = [((a["y"] - b["y"]) ** 2).sum(1).mean() for a, b in zip(whole, short, strict=True)]
    assert np.mean(squares) == pytest.approx(components.errors["conv"][8], rel=0.02)
