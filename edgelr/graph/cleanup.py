"""Clean up the graphs of exporters, before anything is rewritten.

``clean_decoder`` is for the graph of onnxruntime-genai's builder, ``ShareTiedHead`` for every
traced graph, and ``RenameNorms`` for both, after fusions as well.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, Sequential
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from edgelr.graph.linears import SCOPES
from edgelr.graph.nodes import constant, insert, multiply_by_transposed, replace_node
from edgelr.graph.plain import MICROSOFT

FLAT_AXES = 3  # of what ONNX Runtime's kernel normalizes


def clean_decoder(model: ir.Model) -> None:
    """Clean up a graph of onnxruntime-genai's builder, in place."""
    Sequential(
        # The builder declares a wrong shape for one constant; an initializer brings its own.
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        UntransposeTable(),
        RenameNorms(),
        DeclareHeadSize(),
        AcceptLeftPadding(),
    )(model)


class UntransposeTable(InPlacePass):
    """Store a tied table as it is looked up: nothing is transposed when the graph is loaded.

    ::

        weight (H, V) ── Transpose ── Gather(ids)      table (V, H) ── Gather(ids)
                      └─ MatMul(x)                becomes           └─ FusedMatMul(x, transB)
    """

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every table that is transposed, and multiplied by one head as it is."""
        graph, modified = model.graph, False
        for transpose in [node for node in graph if node.op_type == "Transpose"]:
            weight = transpose.inputs[0]
            if weight is None or weight.const_value is None:
                continue
            heads = [use.node for use in weight.uses() if use.node.op_type == "MatMul"]
            if len(heads) != 1:
                continue
            rows = np.ascontiguousarray(weight.const_value.numpy().T)
            table = constant(graph, "model.embed_tokens.weight", rows)
            ir.convenience.replace_all_uses_with(transpose.outputs[0], table)
            multiply_by_transposed(graph, heads[0], table)
            graph.remove(transpose, safe=True)
            del graph.initializers[weight.name or ""]
            modified = True
        return PassResult(model, modified)


class ShareTiedHead(InPlacePass):
    """Let a head that is tied to the table of embeddings multiply by the table itself.

    1. Tracing transposes the table in the graph: ``MatMul(x, Transpose(table))``.
    2. Tracing stores the head's weight a second time, as ``(H, V)``.

    Both become ``FusedMatMul(x, table, transB=1)``.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Compare the weight of every product with every table that is looked up."""
        graph, modified = model.graph, False
        gathers = [node for node in graph if node.op_type == "Gather"]
        for head in [node for node in graph if node.op_type == "MatMul"]:
            for table in dict.fromkeys(node.inputs[0] for node in gathers):
                weight = head.inputs[1]
                if weight is None or table is None or not _is_transposed(weight, table):
                    continue
                multiply_by_transposed(graph, head, table)
                model.opset_imports.setdefault(MICROSOFT, 1)
                modified = True
                break
        return PassResult(model, modified)


def _is_transposed(weight: ir.Value, table: ir.Value) -> bool:
    producer = weight.producer()
    if producer is not None:  # case 1
        return producer.op_type == "Transpose" and producer.inputs[0] is table
    found, wanted = weight.const_value, table.const_value  # case 2
    if found is None or wanted is None or len(wanted.shape) != 2:
        return False
    if found.shape.numpy() != wanted.shape.numpy()[::-1]:
        return False
    return np.array_equal(found.numpy(), wanted.numpy().T)


class KeepScopes(InPlacePass):
    """Drop what tracing noted of every node, but for the path of its module.

    Stack traces name files of the machine on which the graph was traced, and the notes of a small
    graph are three quarters of its file.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Drop the notes of nodes and values."""
        noted = [node.metadata_props for node in model.graph.all_nodes()]
        noted += [
            value.metadata_props for node in model.graph.all_nodes() for value in node.outputs
        ]
        dropped = [(notes, key) for notes in noted for key in notes if key != SCOPES]
        for notes, key in dropped:
            del notes[key]
        return PassResult(model, bool(dropped))


class RenameNorms(InPlacePass):
    """Replace SimplifiedLayerNormalization, which ONNX's checker does not know.

    ONNX Runtime has it in ONNX's own domain. ``norm(x + x)`` with four times the epsilon is
    ``norm(x)``: SkipSimplifiedLayerNormalization of ``x`` with itself, in ONNX Runtime's own
    domain. Doubling is exact; the two kernels differ in the order in which they sum, by a few units
    in the last place. The kernel takes three axes: a norm of every head has its rows put one behind
    another.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Replace every norm of the main graph."""
        norms = [node for node in model.graph if node.op_type == "SimplifiedLayerNormalization"]
        for norm in norms:
            x, scale = norm.inputs[0], norm.inputs[1]
            assert x is not None, "a norm has an input"
            shape = () if x.shape is None else tuple(x.shape)
            heads = len(shape) > FLAT_AXES
            if heads:
                rows = [-1, *(size for size in shape[-2:] if isinstance(size, int))]
                flat = constant(model.graph, f"{norm.name}/flat", np.array(rows))
                x = insert(model.graph, norm, ir.node("Reshape", [x, flat], name=f"{norm.name}/in"))
            epsilon = {"epsilon": 4 * norm.attributes["epsilon"].as_float()}
            skip = ir.node(
                "SkipSimplifiedLayerNormalization",
                [x, x, scale],
                epsilon,
                domain=MICROSOFT,
                name=norm.name,
            )
            if heads:
                skip = _in_shape_of(model.graph, norm, skip)
            replace_node(model.graph, norm, skip)
        return PassResult(model, modified=bool(norms))


def _in_shape_of(graph: ir.Graph, before: ir.Node, node: ir.Node) -> ir.Node:
    """Insert a node whose rows were put one behind another; return what gives them their shape."""
    flat = insert(graph, before, node)
    axes = ir.node("Shape", [before.inputs[0]], name=f"{before.name}/shape")
    return ir.node("Reshape", [flat, insert(graph, before, axes)], name=f"{before.name}/out")


class DeclareHeadSize(InPlacePass):
    """Write the head size into the last axis of every cache, where the builder has a symbol."""

    def call(self, model: ir.Model) -> PassResult:
        """Take the head size from the cosines of each attention."""
        modified = False
        for node in model.graph:
            if node.op_type != "GroupQueryAttention":
                continue
            cosines = node.inputs[7]  # (positions, half of the rotated size)
            if cosines is None or cosines.shape is None:
                continue
            half = cosines.shape[1]
            assert isinstance(half, int)
            for value in (node.inputs[3], node.inputs[4], node.outputs[1], node.outputs[2]):
                if value is not None and value.shape is not None:
                    value.shape = ir.Shape([*value.shape[:3], 2 * half])
                    modified = True
        return PassResult(model, modified)


class AcceptLeftPadding(InPlacePass):
    """Accept batches that are padded on the left.

    GroupQueryAttention takes row lengths and expects real tokens first::

        shift = (tokens - mask.sum()) where the row's first mask is 0, else 0
        ids, positions ── roll to the front by shift ── blocks ── roll back ── head ── logits

    A decode step never shifts.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Roll token ids and positions before the blocks, hidden states before the head."""
        graph = model.graph
        inputs = {value.name: value for value in graph.inputs}
        ids = inputs["input_ids"]
        head = next(node for node in graph if node.outputs[0].name == "logits")
        first = graph[0]
        shift, count = _shift(graph, first, ids, inputs["attention_mask"])
        rolled = _rolled(graph, first, "forward", shift, count, "Add")
        back = _rolled(graph, first, "back", shift, count, "Sub")
        lookups = [use for use in ids.uses() if use.node.op_type == "Gather"]
        _reorder(graph, first, ids, rolled, "input_ids", lookups)
        positions = inputs.get("position_ids")
        if positions is not None:  # of families that turn queries and keys outside of the attention
            _reorder(graph, first, positions, rolled, "positions", tuple(positions.uses()))
        _roll_back(graph, first, head, back)
        return PassResult(model, modified=True)


def _reorder(
    graph: ir.Graph,
    first: ir.Node,
    value: ir.Value,
    order: ir.Value,
    name: str,
    readers: Iterable[tuple[ir.Node, int]],
) -> None:
    """Let ``readers`` of a value ``(batch, tokens)`` read its tokens in another order."""
    gather = ir.node("GatherElements", [value, order], {"axis": 1}, name=f"/padding/{name}")
    moved = insert(graph, first, gather)
    for node, index in readers:
        node.replace_input_with(index, moved)


def _roll_back(graph: ir.Graph, first: ir.Node, head: ir.Node, back: ir.Value) -> None:
    """Let the head read the hidden states in the order of the padded batch."""
    axis = constant(graph, "/padding/axis_2", np.array([2], np.int64))
    index = insert(graph, first, ir.node("Unsqueeze", [back, axis], name="/padding/index"))
    hidden = head.inputs[0]
    gather = ir.node("GatherND", [hidden, index], {"batch_dims": 1}, name="/padding/hidden")
    restored = insert(graph, head, gather)
    if hidden is not None:
        restored.shape, restored.type = hidden.shape, hidden.type
    head.replace_input_with(0, restored)


def _shift(
    graph: ir.Graph, before: ir.Node, ids: ir.Value, mask: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Padding in front of each row, ``(batch, 1)``, and the number of tokens, ``()``."""
    one = constant(graph, "/padding/one", np.array([1], np.int64))
    zero = constant(graph, "/padding/zero", np.array([0], np.int64))
    scalar = constant(graph, "/padding/scalar_1", np.array(1, np.int64))
    end = constant(graph, "/padding/end", np.array([np.iinfo(np.int64).max], np.int64))

    def add(op: str, inputs: list[ir.Value], name: str, **attributes: int) -> ir.Value:
        return insert(graph, before, ir.node(op, inputs, attributes, name=f"/padding/{name}"))

    shape = add("Shape", [ids], "shape")
    count = add("Gather", [shape, scalar], "tokens", axis=0)
    last = add("Neg", [add("Unsqueeze", [count, zero], "tokens_1d")], "from_end")
    recent = add("Slice", [mask, last, end, one], "recent_mask")  # (batch, tokens)
    first = add("Slice", [recent, zero, one, one], "first_mask")  # (batch, 1)
    real = add("ReduceSum", [recent, one], "real", keepdims=1)  # (batch, 1)
    padded = add("Sub", [count, real], "padded")
    absent = add("Sub", [scalar, first], "first_is_padding")
    return add("Mul", [padded, absent], "shift"), count


def _rolled(
    graph: ir.Graph, before: ir.Node, name: str, shift: ir.Value, count: ir.Value, op: str
) -> ir.Value:
    """Positions ``(arange(tokens) + or - shift) mod tokens``, ``(batch, tokens)``."""
    start = constant(graph, "/padding/start", np.array(0, np.int64))
    step = constant(graph, "/padding/scalar_1", np.array(1, np.int64))
    prefix = f"/padding/{name}"
    positions = insert(
        graph, before, ir.node("Range", [start, count, step], name=f"{prefix}/positions")
    )
    moved = insert(graph, before, ir.node(op, [positions, shift], name=f"{prefix}/moved"))
    return insert(graph, before, ir.node("Mod", [moved, count], name=f"{prefix}/mod"))
