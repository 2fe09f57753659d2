"""Graphs that are timed: ONNX Runtime runs them, and they compute what they are timed for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgelr.core.vocabulary import PRECISION_BYTES, Precision, WeightPrecision
from edgelr.device.latency import Product
from edgelr.graph.probe import write_attention, write_decoding, write_norms, write_products
from edgelr.graph.save import load_graph, weight_bytes
from edgelr.graph.workload import read_workload
from tests.helpers.foreign_graphs import random, run

WIDTH, OTHER = 64, 96


@pytest.mark.parametrize("weights", ["float32", "float16", "int8", "int4"])
@pytest.mark.parametrize("pairs", [1, 3])
def test_a_chain_multiplies_there_and_back_with_weights_of_their_own(
    tmp_path: Path, weights: WeightPrecision, pairs: int
) -> None:
    path = tmp_path / "products.onnx"
    write_products(path, WIDTH, OTHER, weights, pairs, accuracy_level=1)
    found = read_workload(path)
    there, back = Product(WIDTH, OTHER, weights), Product(OTHER, WIDTH, weights)
    assert found.products == (there, back) * pairs
    assert found.other_nodes == 0
    if weights in PRECISION_BYTES:
        stored = 2 * pairs * WIDTH * OTHER * PRECISION_BYTES[weights]
        assert weight_bytes(load_graph(path)) == stored
    x = random(5, WIDTH).astype(np.float16 if weights == "float16" else np.float32)
    (y,) = run(path, x=x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert 0.05 < np.abs(y).mean() < 20  # neither overflows nor dies out, however long it is


@pytest.mark.parametrize("values", ["float32", "float16"])
def test_norms_keep_the_size_of_what_they_add(tmp_path: Path, values: Precision) -> None:
    write_norms(tmp_path / "norms.onnx", WIDTH, 7, values)
    x, y = (random(1, 5, WIDTH, seed=seed).astype(values) for seed in (1, 2))
    (found,) = run(tmp_path / "norms.onnx", x=x, y=y)
    np.testing.assert_allclose(np.square(found.astype(float)).mean(-1), 1, atol=0.01)
    assert read_workload(tmp_path / "norms.onnx").other_nodes == 7


def test_attention_is_that_of_every_head_alone(tmp_path: Path) -> None:
    heads, size = 3, 16
    write_attention(tmp_path / "attention.onnx", heads, size, "float32")
    query, key, value = (random(1, 5, heads * size, seed=seed) for seed in range(3))
    (found,) = run(tmp_path / "attention.onnx", query=query, key=key, value=value)
    q, k, v = (each[0].reshape(5, heads, size).swapaxes(0, 1) for each in (query, key, value))
    scores = q @ k.swapaxes(1, 2) / np.sqrt(size)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = (weights @ v).swapaxes(0, 1).reshape(1, 5, heads * size)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_decoding_reads_a_cache_of_zeros_and_one_token(tmp_path: Path) -> None:
    """Its scores are 0 but for its own: the answer is about ``x / (past + 1)`` at each node."""
    past, nodes = 31, 2
    write_decoding(tmp_path / "decoding.onnx", 2, 16, past, nodes, "float32")
    x = 1e-3 * random(1, 1, 32)
    (found,) = run(tmp_path / "decoding.onnx", x=x)
    np.testing.assert_allclose(found, x / (past + 1) ** nodes, rtol=1e-3)
    operators = Counter(node.op_type for node in load_graph(tmp_path / "decoding.onnx").graph)
    assert operators == {"GroupQueryAttention": nodes}
