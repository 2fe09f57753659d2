"""Replace dense linears by their factors.

1. Low rank::

       x ── MatMul(down) ── MatMul(up) ── y

2. Pivoted by rows: some outputs are linear in the others::

       x ── MatMul(first) ─┬───────────────────── Concat ── permute ── y
                           └─ MatMul(second) ────┘

3. Pivoted by columns: some inputs are folded into the others::

       x ── permute ── Split ─┬────────────────── Add ── MatMul(second) ── y
                              └─ MatMul(first) ──┘

   Where the pivots are neighbours, what lies before them and what lies behind them are products of
   their own, and nothing is permuted.
4. Tied: one matrix of two linears, which the second reads transposed::

       x ── MatMul(weight) ── y            x ── MatMul ── y
                                        weight ── Transpose ──┘

5. Kronecker: the input as a matrix ``(n1, n2)``::

       x ── Reshape ── MatMul(right) ── Reshape ── MatMul(left, ·) ── Reshape ── y

6. Convolution: the first has the kernel, the strides and the padding, the second the bias::

       x ── Conv(down) ── Conv(up, bias) ── y

7. Dense, for a weight that is quantized only::

       x ── MatMul(weight) ── y

Where a matrix is quantized, the MatMul of cases 1, 2 (first), 3 (second) and 7 is a MatMulNBits.
Sites of a group store what they share once; where they read the same value, its product with the
shared factor is computed once.

A permutation of the last axis is Transpose, Gather on the first axis, Transpose: a Gather on the
last axis copies element by element on the CPU, five to nine times slower. The Split after it
also keeps the last Transpose away from a MatMul: ONNX Runtime's CPU layout optimizer crashes on
Transpose, Cast, MatMul in float16 graphs (microsoft/onnxruntime#28392, seen in 1.31).

``edgelr.graph.split`` does the same to graphs that edgelr did not trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from edgelr.compress.block_quantized import Blocks
from edgelr.compress.factors import Dense, Factors, FactorSet, Kronecker, LowRank, Pivoted, Tied
from edgelr.core.errors import EdgelrError
from edgelr.graph.bind import Binding
from edgelr.graph.emitter import Emitter
from edgelr.graph.nodes import constant
from edgelr.graph.plain import MICROSOFT

EXACT = 1  # accuracy level: products in float32

Hidden = dict[tuple[str, ir.Value], ir.Value]
"""Products with shared factors that are computed already, by group and input."""


@dataclass(frozen=True)
class FactorizeLinears(InPlacePass):
    """Rewrite the bound node of every site that has factors; others stay dense.

    Attributes:
        bindings: sites and their nodes, in this graph.
        factors: factors by name of the site.
        blocks: quantized matrices, by name of the tensor.
        accuracy_level: type in which MatMulNBits multiplies: 1 float32, 4 int8.
    """

    bindings: Sequence[Binding]
    factors: FactorSet
    blocks: Mapping[str, Blocks] = field(default_factory=dict)
    accuracy_level: int = EXACT

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite the graph.

        Raises:
            EdgelrError: a node scales its input or its weight, or has none.
        """
        hidden: Hidden = {}
        chosen = [each for each in self.bindings if each.site.name in self.factors]
        for binding in chosen:
            self._rewrite(model.graph, binding, hidden)
        if self.blocks:
            model.opset_imports.setdefault(MICROSOFT, 1)
        model.graph.sort()  # a value that several sites read was made at the first site rewritten
        return PassResult(model, modified=bool(chosen))

    def _rewrite(self, graph: ir.Graph, binding: Binding, hidden: Hidden) -> None:
        site, factors = binding.site, self.factors[binding.site.name]
        emit = Emitter(graph, binding.node, site.name, self.blocks, self.accuracy_level)
        x = binding.node.inputs[0]
        if x is None:
            raise EdgelrError(f"The node of {site.name} has no input.")
        if site.kernel:
            assert isinstance(factors, LowRank)
            _take_over(emit, _convolution(emit, x, factors, site.kernel))
        else:
            _take_over(emit, _emit(emit, x, factors, hidden))


def _emit(emit: Emitter, x: ir.Value, factors: Factors, hidden: Hidden) -> ir.Value:
    if isinstance(factors, Dense):  # case 7
        return emit.product(x, "weight", factors.weight.numpy())
    if isinstance(factors, Tied):  # case 4
        return _tied(emit, x, factors)
    if isinstance(factors, Kronecker):  # case 5
        return _kronecker(emit, x, factors)
    if isinstance(factors, LowRank) or factors.axis == "columns":  # cases 1 and 3
        second = factors.up if isinstance(factors, LowRank) else factors.second
        key = (factors.shared or emit.site, x)
        if key not in hidden:
            hidden[key] = _first(emit, x, factors)
        name = "up" if isinstance(factors, LowRank) else "second"
        return emit.product(hidden[key], name, second.numpy())
    return _pivoted_rows(emit, x, factors)  # case 2


def _first(emit: Emitter, x: ir.Value, factors: LowRank | Pivoted) -> ir.Value:
    """Multiply ``x`` by the factor that the sites of a group share: ``(..., rank)``."""
    owner = factors.shared or emit.site
    if isinstance(factors, LowRank):
        return emit.product(x, "down", factors.down.numpy(), owner)
    order = factors.order.numpy().astype(np.int64)
    before, first = _before_pivots(order, len(factors.second)), factors.first.numpy()
    if before is None:
        x, before = _permute(emit, x, order, owner), 0
    around = _around("first", before, len(first))
    sizes = [len(first[part]) for _, part in around]
    place = 1 if before else 0
    sizes.insert(place, len(factors.second))
    values = emit.split(x, sizes)
    y = values.pop(place)
    for (name, part), value in zip(around, values, strict=True):
        product = emit.add("MatMul", [value, emit.weight(name, first[part], owner)], name)
        y = emit.add("Add", [y, product], f"{name}_add")
    return y


def _pivoted_rows(emit: Emitter, x: ir.Value, factors: Pivoted) -> ir.Value:
    order = factors.order.numpy().astype(np.int64)
    before, second = _before_pivots(order, len(factors.second)), factors.second.numpy()
    pivots = emit.add("MatMul", [x, emit.weight("first", factors.first.numpy())], "first")
    parts = [
        emit.add("MatMul", [pivots, emit.weight(name, second[:, part])], name)
        for name, part in _around("second", before or 0, second.shape[1])
    ]
    parts.insert(1 if before else 0, pivots)
    whole = emit.add("Concat", parts, "concat", {"axis": -1})
    return whole if before is not None else _permute(emit, whole, np.argsort(order), emit.site)


def _before_pivots(order: NDArray[np.int64], rank: int) -> int | None:
    """Count what lies before pivots that are neighbours; None where a permutation is needed."""
    start = int(order[0])
    end = start + rank
    whole = [*range(start, end), *range(start), *range(end, len(order))]
    return start if order.tolist() == whole else None


def _around(name: str, before: int, count: int) -> list[tuple[str, slice]]:
    """Name the parts of ``count`` values that lie before the pivots, and behind them."""
    if before in (0, count):
        return [(name, slice(None))]
    return [(f"{name}_before", slice(before)), (f"{name}_behind", slice(before, None))]


def _tied(emit: Emitter, x: ir.Value, factors: Tied) -> ir.Value:
    weight = emit.weight("weight", factors.weight.numpy(), factors.shared)
    if factors.transposed:
        weight = emit.add("Transpose", [weight], "transpose", {"perm": [1, 0]})
    return emit.add("MatMul", [x, weight], "product")


def _kronecker(emit: Emitter, x: ir.Value, factors: Kronecker) -> ir.Value:
    terms, m1, n1 = factors.left.shape
    _, m2, n2 = factors.right.shape
    leading = [0] * (emit.axes(x) - 1)  # 0: as in the input

    def reshaped(value: ir.Value, name: str, *sizes: int) -> ir.Value:
        shape = constant(emit.graph, f"{emit.site}.{name}", np.array([*leading, *sizes], np.int64))
        return emit.add("Reshape", [value, shape], name)

    right = factors.right.mT.numpy()  # (terms, n2, m2)
    left = factors.left.permute(1, 0, 2).reshape(m1, terms * n1).numpy()
    matrix = reshaped(x, "matrix", 1, n1, n2)
    mixed = emit.add("MatMul", [matrix, emit.weight("right", right)], "right")
    stacked = reshaped(mixed, "stacked", terms * n1, m2)
    product = emit.add("MatMul", [emit.weight("left", left), stacked], "left")
    return reshaped(product, "flat", m1 * m2)


def _convolution(emit: Emitter, x: ir.Value, factors: LowRank, kernel: tuple[int, ...]) -> ir.Value:
    """Case 6: two convolutions; what belongs to positions stays with the first."""
    rank, ones = len(factors.up), (1,) * len(kernel)
    down = factors.down.numpy().T.reshape(rank, -1, *kernel)
    up = factors.up.numpy().T.reshape(-1, rank, *ones)
    bias = [each for each in emit.node.inputs[2:] if each is not None]
    attributes = list(emit.node.attributes.values())
    first = ir.Node(
        "", "Conv", [x, emit.weight("down", down)], attributes, name=f"{emit.path}/down"
    )
    return emit.add("Conv", [emit.insert(first), emit.weight("up", up), *bias], "up")


def _permute(emit: Emitter, x: ir.Value, order: NDArray[np.int64], owner: str) -> ir.Value:
    """Take ``x[..., order]``: whole runs of neighbours where there are any, else columns."""
    run = run_length(order)
    if run == 1:
        return _permute_columns(emit, x, emit.weight("order", order, owner), emit.axes(x))
    leading = [0] * (emit.axes(x) - 1)  # 0: as in the input
    runs = constant(emit.graph, f"runs_of_{run}", np.array([*leading, -1, run], np.int64))
    flat = constant(emit.graph, f"flat_{len(leading)}", np.array([*leading, -1], np.int64))
    cut = emit.add("Reshape", [x, runs], "runs")
    index = emit.weight("order", order[::run] // run, owner)
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


def _permute_columns(emit: Emitter, x: ir.Value, index: ir.Value, axes: int) -> ir.Value:
    """Take ``x[..., index]`` with the last axis brought to the front and back."""
    forward, back = [axes - 1, *range(axes - 1)], [*range(1, axes), 0]
    moved = emit.add("Transpose", [x], "to_front", {"perm": forward})
    taken = emit.add("Gather", [moved, index], "gather", {"axis": 0})
    return emit.add("Transpose", [taken], "to_back", {"perm": back})


def _take_over(emit: Emitter, y: ir.Value) -> None:
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
