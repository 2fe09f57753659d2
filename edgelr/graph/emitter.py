"""Products, weights and other nodes that take the place of one linear's node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgelr.compress.block_quantized import Blocks
from edgelr.core.errors import EdgelrError
from edgelr.graph.nodes import constant, insert, quantized_product


@dataclass(frozen=True)
class Emitter:
    """Inserts nodes before the node of a linear.

    Attributes:
        graph: graph of the node.
        node: node that will be replaced.
        site: name of the linear, by which tensors are named.
        blocks: quantized matrices, by name of the tensor.
        accuracy_level: type in which MatMulNBits multiplies: 1 float32, 4 int8.
    """

    graph: ir.Graph
    node: ir.Node
    site: str
    blocks: Mapping[str, Blocks]
    accuracy_level: int

    @property
    def path(self) -> str:
        return self.node.name or self.site

    def weight(self, name: str, array: np.ndarray, owner: str | None = None) -> ir.Value:
        """Store a tensor of the site, or find the one that its group shares."""
        return constant(self.graph, f"{owner or self.site}.{name}", np.ascontiguousarray(array))

    def product(
        self, x: ir.Value, name: str, array: np.ndarray, owner: str | None = None
    ) -> ir.Value:
        """Multiply ``x`` by a matrix ``(in, out)``, which may be quantized."""
        key = f"{owner or self.site}.{name}"
        stored = self.blocks.get(key)
        if stored is None:
            return self.add("MatMul", [x, self.weight(name, array, owner)], name)
        inputs = [
            constant(self.graph, key, stored.packed),
            constant(self.graph, f"{key}.scales", stored.scales),
            constant(self.graph, f"{key}.zero_points", stored.zero_points.ravel()),
        ]
        node = quantized_product(stored, [x, *inputs], self.accuracy_level, f"{self.path}/{name}")
        return self.insert(node)

    def add(
        self,
        op: str,
        inputs: list[ir.Value],
        name: str,
        attributes: dict[str, int | list[int]] | None = None,
    ) -> ir.Value:
        return self.insert(ir.node(op, inputs, attributes or {}, name=f"{self.path}/{name}"))

    def insert(self, node: ir.Node) -> ir.Value:
        """Insert a node whose output has the type of the dense one's."""
        output = insert(self.graph, self.node, node)
        output.type = self.node.outputs[0].type
        return output

    def split(self, x: ir.Value, sizes: list[int]) -> list[ir.Value]:
        """Cut the last axis into parts."""
        lengths = constant(self.graph, f"{self.site}.sizes", np.array(sizes, np.int64))
        name, count = f"{self.path}/split", len(sizes)
        node = ir.node("Split", [x, lengths], {"axis": -1}, num_outputs=count, name=name)
        insert(self.graph, self.node, node)
        for index, part in enumerate(node.outputs):
            part.name = f"{name}/output_{index}"
            part.type = self.node.outputs[0].type
        return list(node.outputs)

    def axes(self, x: ir.Value) -> int:
        """Count the axes of the linear's input and output.

        Raises:
            EdgelrError: the graph does not say.
        """
        for value in (x, self.node.outputs[0]):
            if value.shape is not None:
                return len(value.shape)
        if self.node.op_type == "Gemm":
            return 2
        raise EdgelrError(f"The graph does not say how many axes the input of {self.site} has.")
