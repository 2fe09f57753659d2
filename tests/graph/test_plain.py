"""Files of the plain writer: what the package onnx reads in them is what was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from edgelr.graph.plain import IR_VERSION, MICROSOFT, OPSET, PlainGraph


def test_onnx_reads_what_was_written(tmp_path: Path) -> None:
    graph = PlainGraph("made", "float16", (2, "tokens", 300), ["x", "y"])
    weight = np.arange(600, dtype=np.float16).reshape(300, 2)
    graph.constant("weight", weight)
    product = graph.node("MatMul", ["x", "weight"])
    graph.save(tmp_path / "made.onnx", graph.node("LeakyRelu", [product], {"alpha": 0.25}))
    found = onnx.load(tmp_path / "made.onnx")
    onnx.checker.check_model(found)
    assert found.ir_version == IR_VERSION
    assert {each.domain: each.version for each in found.opset_import} == {"": OPSET, MICROSOFT: 1}
    assert [each.name for each in found.graph.input] == ["x", "y"]
    tensor = found.graph.input[0].type.tensor_type
    assert tensor.elem_type == onnx.TensorProto.FLOAT16
    sizes = [each.dim_param or each.dim_value for each in tensor.shape.dim]
    assert sizes == [2, "tokens", 300]
    np.testing.assert_array_equal(numpy_helper.to_array(found.graph.initializer[0]), weight)
    assert onnx.helper.get_node_attr_value(found.graph.node[1], "alpha") == 0.25
    assert found.graph.node[1].input == found.graph.node[0].output


def test_a_node_may_have_more_outputs_and_a_domain(tmp_path: Path) -> None:
    graph = PlainGraph("made", "float32", (1,), ["x"])
    value = graph.node("Other", ["x"], {"count": 1000}, MICROSOFT, outputs=3)
    graph.save(tmp_path / "made.onnx", value)
    (node,) = onnx.load(tmp_path / "made.onnx").graph.node
    assert (node.op_type, node.domain, len(set(node.output))) == ("Other", MICROSOFT, 3)
    assert onnx.helper.get_node_attr_value(node, "count") == 1000
    assert value == node.output[0]
