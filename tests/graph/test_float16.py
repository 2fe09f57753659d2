"""Graphs in float16: no weight overflows, and angles keep their digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelr.core.errors import EdgelrError
from edgelr.graph.float16 import LARGEST, ToFloat16
from edgelr.graph.save import save_graph
from edgelr.runtime.requests import Execution
from edgelr.runtime.session import open_session
from tests.helpers.single_node import NEWEST, one_node, outputs_of

RANDOM = np.random.default_rng(0)


def test_a_weight_too_large_for_float16_is_refused(tmp_path: Path) -> None:
    weight = np.full((48, 8), 1e6, np.float32)
    model = one_node(helper.make_node("MatMul", ["x", "w"], ["y"]), {"w": weight}, 48)
    ToFloat16()(model)
    with pytest.raises(EdgelrError, match=r"weight w reaches 1e\+06; float16 ends at 65504"):
        save_graph(model, tmp_path / "half.onnx", NEWEST, NEWEST)


def test_angles_keep_their_digits_in_float16(tmp_path: Path) -> None:
    """Two thousand turns later, a position still has its own cosine; a shared weight has both."""
    positions = np.arange(1990, 2048)
    nodes = [
        helper.make_node("Cast", ["positions"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "speeds"], ["angles"]),
        helper.make_node("Cos", ["angles"], ["cosines"]),
        helper.make_node("Add", ["cosines", "speeds"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("positions", TensorProto.INT64, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.array([1, 0.37, 0.01], np.float32), "speeds")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(made))
    ToFloat16()(model)
    save_graph(model, tmp_path / "model.onnx", NEWEST, NEWEST)
    session = open_session(tmp_path / "model.onnx", Execution(threads=1))
    ((found,), _) = session.run({"positions": positions[:, None]}, ["y"])
    assert found.dtype == np.float16
    speeds = np.array([1, 0.37, 0.01])
    expected = np.cos(positions[:, None] * speeds) + speeds
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_minus_infinity_of_a_mask_becomes_the_lowest_float16(tmp_path: Path) -> None:
    lowest = np.array(np.finfo(np.float32).min)
    model = one_node(helper.make_node("Add", ["x", "m"], ["y"]), {"m": lowest}, 48)
    ToFloat16()(model)
    save_graph(model, tmp_path / "half.onnx", NEWEST, NEWEST)
    found = outputs_of(tmp_path / "half.onnx", np.zeros((1, 48), np.float32))
    np.testing.assert_array_equal(found, np.full((1, 48), -LARGEST, np.float16))
