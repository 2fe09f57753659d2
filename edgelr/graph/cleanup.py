"""Mend what exporters emit, before anything is rewritten.

In any traced graph, a tied head is stored once. In the decoder graph of onnxruntime-genai's
builder:

1. A tied head is stored once and nothing is transposed at load time::

       weight (H, V) ── Transpose ── Gather(ids)      table (V, H) ── Gather(ids)
                     └─ MatMul(x)                becomes           └─ FusedMatMul(x, transB)

2. A batch may be padded on the left. GroupQueryAttention takes row lengths and expects real
   tokens first, so the graph rolls each row to the front and its hidden states back again.
3. Only operators that the ONNX checker knows, or knows to be ONNX Runtime's, remain.
4. The caches' last axis is the head size, not a symbol.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from edgelr.compress.block_quantized import Blocks
from edgelr.core.vocabulary import BLOCK_SIZE

MICROSOFT = "com.microsoft"


def tidy_decoder(model: ir.Model) -> None:
    """Apply the four changes in place."""
    graph = model.graph
    # The builder declares a wrong shape for one constant; an initializer brings its own.
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _share_tied_table(graph)
    rename_norms(graph)
    _fix_head_size(graph)
    _accept_left_padding(graph)


def constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Register ``array`` as an initializer, or find the one of that name."""
    if name in graph.initializers:
        return graph.initializers[name]
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(tensor.shape.numpy()),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def insert(graph: ir.Graph, before: ir.Node, node: ir.Node) -> ir.Value:
    """Insert ``node`` before another one and return its output, named after the node."""
    node.outputs[0].name = f"{node.name}/output_0"
    graph.insert_before(before, node)
    return node.outputs[0]


def product_of_blocks(
    stored: Blocks, inputs: list[ir.Value | None], accuracy_level: int, name: str
) -> ir.Node:
    """Make the MatMulNBits of a value, integers, scales and zero points."""
    attributes = {
        "K": stored.in_features,
        "N": stored.out_features,
        "bits": stored.bits,
        "block_size": BLOCK_SIZE,
        "accuracy_level": accuracy_level,
    }
    return ir.node("MatMulNBits", inputs, attributes, domain=MICROSOFT, name=name)


def _share_tied_table(graph: ir.Graph) -> None:
    for transpose in [node for node in graph if node.op_type == "Transpose"]:
        weight = transpose.inputs[0]
        if weight is None or weight.const_value is None:
            continue
        heads = [use.node for use in weight.uses() if use.node.op_type == "MatMul"]
        if len(heads) != 1:
            continue
        table = constant(
            graph, "model.embed_tokens.weight", np.ascontiguousarray(weight.const_value.numpy().T)
        )
        ir.convenience.replace_all_uses_with(transpose.outputs[0], table)
        multiply_by_transposed(graph, heads[0], table)
        graph.remove(transpose, safe=True)
        del graph.initializers[weight.name or ""]


def share_tied_head(model: ir.Model) -> None:
    """Let a head that is tied to the table of embeddings multiply with the table itself.

    Tracing transposes the head's weight, or stores it a second time as ``(H, V)``.
    """
    graph = model.graph
    gathers = [node for node in graph if node.op_type == "Gather"]
    for head in [node for node in graph if node.op_type == "MatMul"]:
        for table in dict.fromkeys(node.inputs[0] for node in gathers):
            weight = head.inputs[1]
            if weight is None or table is None or not _is_transposed(weight, table):
                continue
            multiply_by_transposed(graph, head, table)
            model.opset_imports.setdefault(MICROSOFT, 1)
            break


def _is_transposed(weight: ir.Value, table: ir.Value) -> bool:
    producer = weight.producer()
    if producer is not None:
        return producer.op_type == "Transpose" and producer.inputs[0] is table
    found, wanted = weight.const_value, table.const_value
    if found is None or wanted is None or len(wanted.shape) != 2:
        return False
    if found.shape.numpy() != wanted.shape.numpy()[::-1]:
        return False
    return np.array_equal(found.numpy(), wanted.numpy().T)


def multiply_by_transposed(graph: ir.Graph, head: ir.Node, table: ir.Value) -> None:
    """Replace ``head`` by a product with ``table (V, H)`` transposed on the fly."""
    fused = ir.node(
        "FusedMatMul",
        [head.inputs[0], table],
        {"transB": 1},
        domain=MICROSOFT,
        name=head.name,
    )
    replace_node(graph, head, fused)


def rename_norms(graph: ir.Graph) -> None:
    """Replace SimplifiedLayerNormalization, which ONNX Runtime alone knows in ONNX's own domain.

    ``norm(x + x)`` with four times the epsilon is ``norm(x)``: SkipSimplifiedLayerNormalization of
    ``x`` with itself, in ONNX Runtime's own domain. Doubling is exact; the two kernels differ in
    the order in which they sum, by a few units in the last place.
    """
    for norm in [node for node in graph if node.op_type == "SimplifiedLayerNormalization"]:
        x, scale = norm.inputs[0], norm.inputs[1]
        epsilon = norm.attributes["epsilon"].as_float()
        skip = ir.node(
            "SkipSimplifiedLayerNormalization",
            [x, x, scale],
            {"epsilon": 4 * epsilon},
            domain=MICROSOFT,
            name=norm.name,
        )
        replace_node(graph, norm, skip)


def replace_node(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """Put ``new`` in the place of ``old``: its first output takes over name, shape and users."""
    before, after = old.outputs[0], new.outputs[0]
    graph.insert_after(old, new)
    after.name, after.shape, after.type = before.name, before.shape, before.type
    ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
    graph.remove(old, safe=True)


def _fix_head_size(graph: ir.Graph) -> None:
    for node in graph:
        if node.op_type != "GroupQueryAttention":
            continue
        cosines = node.inputs[7]  # (positions, half of the rotated size)
        if cosines is None or cosines.shape is None:
            continue
        half = cosines.shape[1]
        assert isinstance(half, int)
        size = 2 * half
        for value in (node.inputs[3], node.inputs[4], node.outputs[1], node.outputs[2]):
            if value is not None and value.shape is not None:
                value.shape = ir.Shape([*value.shape[:3], size])


def _accept_left_padding(graph: ir.Graph) -> None:
    """Roll every row of a left-padded prompt to the front, and its hidden states back.

    shift = (tokens - mask.sum()) where the row's first mask is 0; a decode step never shifts.
    """
    inputs = {value.name: value for value in graph.inputs}
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    head = next(node for node in graph if node.outputs[0].name == "logits")
    first = graph[0]
    shift, count = _shift(graph, first, ids, mask)
    rolled = _rolled(graph, first, "forward", shift, count, "Add")
    back = _rolled(graph, first, "back", shift, count, "Sub")
    users = [use for use in ids.uses() if use.node.op_type == "Gather"]
    moved = insert(
        graph,
        first,
        ir.node("GatherElements", [ids, rolled], {"axis": 1}, name="/padding/input_ids"),
    )
    for use in users:
        use.node.replace_input_with(use.idx, moved)
    positions = inputs.get("position_ids")
    if positions is not None:  # of families that turn queries and keys outside of the attention
        turned = positions.uses()
        node = ir.node(
            "GatherElements", [positions, rolled], {"axis": 1}, name="/padding/positions"
        )
        placed = insert(graph, first, node)
        for use in turned:
            use.node.replace_input_with(use.idx, placed)
    axis = constant(graph, "/padding/axis_2", np.array([2], np.int64))
    index = insert(graph, first, ir.node("Unsqueeze", [back, axis], name="/padding/index"))
    hidden = head.inputs[0]
    restored = insert(
        graph, head, ir.node("GatherND", [hidden, index], {"batch_dims": 1}, name="/padding/hidden")
    )
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
