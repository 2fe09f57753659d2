"""Replace dense linears by two small MatMuls.

low_rank::

    x ── MatMul(down) ── MatMul(up) ── y

pivoted by rows: some outputs are linear in the others::

    x ── MatMul(first) ─┬───────────────────── Concat ── permute ── y
                        └─ MatMul(second) ────┘

pivoted by columns: some inputs are folded into the others::

    x ── permute ── Split ─┬────────────────── Add ── MatMul(second) ── y
                           └─ MatMul(first) ──┘

A permutation of the last axis is Transpose, Gather on the first axis, Transpose: a Gather on the
last axis copies element by element on the CPU, five to nine times slower. The Split after it
also keeps the last Transpose away from a MatMul: ONNX Runtime's CPU layout optimizer crashes on
Transpose, Cast, MatMul in float16 graphs (microsoft/onnxruntime#28392, seen in 1.31).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgelr.errors import EdgelrError
from edgelr.graph.bind import Binding
from edgelr.graph.tidy import constant, insert
from edgelr.types import FactorSet, LowRank, Pivoted


def factorize_linears(model: ir.Model, bindings: Iterable[Binding], factors: FactorSet) -> None:
    """Rewrite the bound nodes of every site that has factors, in place; others stay dense."""
    for binding in bindings:
        chosen = factors.get(binding.site.name)
        if chosen is None:
            continue
        emit = _Emitter(model.graph, binding.node, binding.site.name)
        x = binding.node.inputs[0]
        if x is None:
            raise EdgelrError(f"The node of {binding.site.name} has no input.")
        y = _low_rank(emit, x, chosen) if isinstance(chosen, LowRank) else _pivoted(emit, x, chosen)
        _take_over(emit, y)


@dataclass(frozen=True)
class _Emitter:
    """Inserts nodes before ``node``, named after the site."""

    graph: ir.Graph
    node: ir.Node
    site: str

    @property
    def path(self) -> str:
        return self.node.name or self.site

    def weight(self, name: str, array: np.ndarray) -> ir.Value:
        return constant(self.graph, f"{self.site}.{name}", np.ascontiguousarray(array))

    def add(
        self,
        op: str,
        inputs: list[ir.Value],
        name: str,
        attributes: dict[str, int | list[int]] | None = None,
    ) -> ir.Value:
        node = ir.node(op, inputs, attributes or {}, name=f"{self.path}/{name}")
        output = insert(self.graph, self.node, node)
        output.type = self.node.outputs[0].type
        return output

    def split(self, x: ir.Value, sizes: tuple[int, int]) -> tuple[ir.Value, ir.Value]:
        """Cut the last axis in two."""
        lengths = constant(self.graph, f"{self.site}.sizes", np.array(sizes, np.int64))
        node = ir.node(
            "Split", [x, lengths], {"axis": -1}, num_outputs=2, name=f"{self.path}/split"
        )
        first, second = node.outputs
        insert(self.graph, self.node, node)
        second.name = f"{node.name}/output_1"
        first.type = second.type = self.node.outputs[0].type
        return first, second


def _low_rank(emit: _Emitter, x: ir.Value, factors: LowRank) -> ir.Value:
    hidden = emit.add("MatMul", [x, emit.weight("down", factors.down.numpy())], "down")
    return emit.add("MatMul", [hidden, emit.weight("up", factors.up.numpy())], "up")


def _pivoted(emit: _Emitter, x: ir.Value, factors: Pivoted) -> ir.Value:
    first = emit.weight("first", factors.first.numpy())
    second = emit.weight("second", factors.second.numpy())
    order = factors.order.numpy().astype(np.int64)
    if factors.axis == "rows":
        pivots = emit.add("MatMul", [x, first], "first")
        others = emit.add("MatMul", [pivots, second], "second")
        both = emit.add("Concat", [pivots, others], "concat", {"axis": -1})
        return _permute(emit, both, np.argsort(order))
    ordered = _permute(emit, x, order)
    pivots, others = emit.split(ordered, (len(factors.second), len(factors.first)))
    mixed = emit.add("MatMul", [others, first], "first")
    return emit.add("MatMul", [emit.add("Add", [pivots, mixed], "add"), second], "second")


def _permute(emit: _Emitter, x: ir.Value, order: NDArray[np.int64]) -> ir.Value:
    """Take ``x[..., order]``: whole runs of neighbours where there are any, else columns."""
    run = run_length(order)
    if run == 1:
        return _permute_columns(emit, x, emit.weight("order", order), _axes(emit, x))
    leading = [0] * (_axes(emit, x) - 1)  # 0: as in the input
    runs = constant(emit.graph, f"runs_of_{run}", np.array([*leading, -1, run], np.int64))
    flat = constant(emit.graph, f"flat_{len(leading)}", np.array([*leading, -1], np.int64))
    cut = emit.add("Reshape", [x, runs], "runs")
    index = emit.weight("order", order[::run] // run)
    moved = emit.add("Gather", [cut, index], "gather", {"axis": len(leading)})
    return emit.add("Reshape", [moved, flat], "flat")


def run_length(order: NDArray[np.int64]) -> int:
    """Longest run, a power of two, of which a permutation is made: runs move as a whole."""
    run = 1
    while len(order) % (2 * run) == 0:
        starts = order.reshape(-1, 2 * run)
        whole = starts[:, 0] % (2 * run) == 0
        if not (whole.all() and (np.diff(starts, axis=1) == 1).all()):
            break
        run *= 2
    return run


def _permute_columns(emit: _Emitter, x: ir.Value, index: ir.Value, axes: int) -> ir.Value:
    """Take ``x[..., index]`` with the last axis brought to the front and back."""
    forward, back = [axes - 1, *range(axes - 1)], [*range(1, axes), 0]
    moved = emit.add("Transpose", [x], "to_front", {"perm": forward})
    taken = emit.add("Gather", [moved, index], "gather", {"axis": 0})
    return emit.add("Transpose", [taken], "to_back", {"perm": back})


def _axes(emit: _Emitter, x: ir.Value) -> int:
    """Number of axes of the linear's input and output."""
    for value in (x, emit.node.outputs[0]):
        if value.shape is not None:
            return len(value.shape)
    if emit.node.op_type == "Gemm":
        return 2
    raise EdgelrError(f"The graph does not say how many axes the input of {emit.site} has.")


def _take_over(emit: _Emitter, y: ir.Value) -> None:
    """Put ``y`` in the place of the dense node's output, with a Gemm's bias added back."""
    node, old = emit.node, emit.node.outputs[0]
    if node.op_type == "Gemm":
        _require_plain(node, emit.site)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        y = y if bias is None else emit.add("Add", [y, bias], "bias")
    y.name, y.shape, y.type = old.name, old.shape, old.type
    old.name = None
    for key, value in node.metadata_props.items():
        producer = y.producer()
        if producer is not None:
            producer.metadata_props[key] = value
    ir.convenience.replace_all_uses_with(old, y, replace_graph_outputs=True)
    weight = node.inputs[1]
    emit.graph.remove(node, safe=True)
    if weight is not None and weight.name and not weight.uses():
        emit.graph.initializers.pop(weight.name, None)


def _require_plain(node: ir.Node, site: str) -> None:
    for name, expected in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)):
        attribute = node.attributes.get(name)
        if attribute is not None and attribute.value != expected:
            raise EdgelrError(
                f"The Gemm of {site} has {name}={attribute.value}; edgelr rewrites only "
                f"{name}={expected}."
            )
