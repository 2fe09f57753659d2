"""Initializers and nodes of a graph: found again, inserted, replaced, and what they compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from edgelr.compress.block_quantized import quantize
from edgelr.core.vocabulary import WeightPrecision
from edgelr.graph.nodes import (
    constant,
    insert,
    multiply_by_transposed,
    quantized_product,
    replace_node,
    store,
)
from edgelr.graph.save import save_graph
from tests.helpers.single_node import NEWEST, one_node, outputs_of

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((48, 40)).astype(np.float32)
X = RANDOM.standard_normal((3, 48)).astype(np.float32)


@pytest.fixture
def model() -> ir.Model:
    """One product of ``x (n, 48)`` with ``w (48, 40)``."""
    return one_node(helper.make_node("MatMul", ["x", "w"], ["y"], "/site"), {"w": WEIGHT}, 48)


def answers(model: ir.Model, path: Path) -> np.ndarray:
    save_graph(model, path, NEWEST, NEWEST)
    return outputs_of(path, X)


def test_a_constant_is_stored_once_for_its_name(model: ir.Model) -> None:
    first = constant(model.graph, "axes", np.array([1], np.int64))
    assert constant(model.graph, "axes", np.array([2], np.int64)) is first
    assert first.const_value is not None
    assert first.const_value.numpy().tolist() == [1]
    assert (first.dtype, first.shape) == (ir.DataType.INT64, ir.Shape([1]))
    assert constant(model.graph, "w", WEIGHT) is model.graph.initializers["w"]


def test_a_tensor_is_stored_under_its_own_name(model: ir.Model) -> None:
    stored = store(model.graph, ir.tensor(WEIGHT, name="copy"))
    assert model.graph.initializers["copy"] is stored
    assert set(model.graph.initializers) == {"w", "copy"}


def test_a_node_is_inserted_where_its_user_finds_it(model: ir.Model, tmp_path: Path) -> None:
    user = model.graph[0]
    halved = ir.node("Mul", [user.inputs[0], constant(model.graph, "half", np.float32(0.5))])
    halved.name = "/site/half"
    value = insert(model.graph, user, halved)
    assert value.name == "/site/half/output_0"
    assert [node.op_type for node in model.graph] == ["Mul", "MatMul"]
    user.replace_input_with(0, value)
    np.testing.assert_allclose(answers(model, tmp_path / "m.onnx"), X @ WEIGHT / 2, atol=1e-5)


def test_a_node_in_the_place_of_another_answers_to_all_of_its_users(
    model: ir.Model, tmp_path: Path
) -> None:
    old = model.graph[0]
    shape, user = old.outputs[0].shape, ir.node("Neg", [old.outputs[0]], name="user")
    model.graph.append(user)
    new = ir.node("MatMul", [old.inputs[0], constant(model.graph, "other", 2 * WEIGHT)])
    replace_node(model.graph, old, new)
    assert old.graph is None
    assert user.inputs[0] is new.outputs[0] is model.graph.outputs[0]
    assert (new.outputs[0].name, new.outputs[0].shape) == ("y", shape)
    np.testing.assert_allclose(answers(model, tmp_path / "m.onnx"), 2 * X @ WEIGHT, atol=1e-4)


def test_a_head_multiplies_by_the_table_as_it_is_stored(model: ir.Model, tmp_path: Path) -> None:
    table = constant(model.graph, "table", np.ascontiguousarray(WEIGHT.T))
    multiply_by_transposed(model.graph, model.graph[0], table)
    del model.graph.initializers["w"]
    (head,) = model.graph
    assert (head.op_type, head.name) == ("FusedMatMul", "/site")
    np.testing.assert_allclose(answers(model, tmp_path / "m.onnx"), X @ WEIGHT, atol=1e-4)


@pytest.mark.parametrize("weights", ["int4", "int8"])
def test_a_product_with_packed_integers_is_that_with_the_matrix_they_stand_for(
    model: ir.Model, tmp_path: Path, weights: WeightPrecision
) -> None:
    stored, old = quantize(WEIGHT, weights), model.graph[0]
    packed = [
        constant(model.graph, name, getattr(stored, name))
        for name in ("packed", "scales", "zero_points")
    ]
    new = quantized_product(stored, [old.inputs[0], *packed], 1, "/site/blocks")
    replace_node(model.graph, old, new)
    assert new.name == "/site/blocks"
    assert new.attributes["accuracy_level"].as_int() == 1
    found = answers(model, tmp_path / "m.onnx")
    np.testing.assert_allclose(found, X @ stored.dense(), atol=1e-3)
