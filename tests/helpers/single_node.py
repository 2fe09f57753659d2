"""Graphs of one node, and what a graph file answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from edgelr.runtime.requests import Execution
from edgelr.runtime.session import open_session

NEWEST = 1000  # no limit to an operator set or a file format


def one_node(
    node: onnx.NodeProto, weights: dict[str, np.ndarray], features: int, opset: int = 20
) -> ir.Model:
    """A graph of one node from ``x (n, features)`` to ``y``."""
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", None])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))


def outputs_of(path: Path, x: np.ndarray) -> np.ndarray:
    (y,), _ = open_session(path, Execution(threads=1)).run({"x": x}, ["y"])
    return y
