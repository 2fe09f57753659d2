"""Graphs that edgelr did not write, with random weights, for every opset that is supported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

FLOATS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float16): TensorProto.FLOAT16}
# The newest file format of every opset's release of ONNX, as far as ONNX Runtime reads it.
IR_VERSIONS = {11: 6, 13: 7, 17: 8, 21: 10, 24: 11}


@dataclass
class Builder:
    """Collects the parts of a graph."""

    opset: int = 17
    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._generator = np.random.default_rng(self.seed)

    def weight(self, name: str, *shape: int, dtype: Any = np.float32) -> np.ndarray:
        array = (self._generator.standard_normal(shape) / 4).astype(dtype)
        self.weights.append(numpy_helper.from_array(array, name))
        return array

    def node(self, op: str, inputs: Sequence[str], output: str, name: str = "", **more: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, **more))
        return output

    def save(
        self,
        path: Path,
        inputs: dict[str, Sequence[int | str]],
        outputs: Sequence[str],
        types: dict[str, int] | None = None,
        external: bool = False,
    ) -> Path:
        known = types or {}
        graph = helper.make_graph(
            self.nodes,
            "foreign",
            [
                helper.make_tensor_value_info(name, known.get(name, TensorProto.FLOAT), shape)
                for name, shape in inputs.items()
            ],
            [
                helper.make_tensor_value_info(name, known.get(name, TensorProto.FLOAT), None)
                for name in outputs
            ],
            self.weights,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=IR_VERSIONS[self.opset],
        )
        onnx.save(model, path, save_as_external_data=external, size_threshold=0)
        return path


def mlp(path: Path, opset: int = 17, external: bool = False) -> Path:
    """Two MatMuls and a Gemm with transB, 48 → 80 → 80 → 32: distinct sizes, a tanh between."""
    build = Builder(opset)
    build.weight("w1", 48, 80)
    build.weight("b1", 80)
    build.weight("w2", 80, 80)
    build.weight("w3", 32, 80)
    build.weight("b3", 32)
    build.node("MatMul", ["x", "w1"], "h1", name="/first/MatMul")
    build.node("Add", ["h1", "b1"], "a1")
    build.node("Tanh", ["a1"], "t1")
    build.node("MatMul", ["t1", "w2"], "h2", name="/second/MatMul")
    build.node("Tanh", ["h2"], "t2")
    build.node("Gemm", ["t2", "w3", "b3"], "y", name="/last/Gemm", transB=1, alpha=0.5, beta=2.0)
    return build.save(path, {"x": ["rows", 48]}, ["y"], external=external)


def run(path: Path, **inputs: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    found: list[np.ndarray] = ort.InferenceSession(str(path), options).run(None, inputs)
    return found


def random(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
