"""Give a table that is multiplied and gathered from two names, for the same bytes of the sidecar.

ONNX Runtime's CPU provider packs the matrix of a product into a layout of its own, reads every page
of it for that, and then lets go of it. A tied table it has to keep: rows are still gathered::

    table ─┬─ Gather(ids)          table ── Gather(ids)
           └─ product(x)          table.product ── product(x)      both at one place in the file

Mapped twice, the product's pages are given back after packing, and of the others only those rows
are in memory that tokens have asked for. Providers that copy weights to a device of their own would
hold the table twice there.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

# Attention holds one: query, key and value side by side, where nothing is masked.
PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "Attention")


def name_products_apart(path: Path) -> None:
    """Rewrite a graph file; its sidecar stays as it is."""
    model = onnx.load(str(path), load_external_data=False)
    changed = False
    stored = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in stored:
        readers = [node for node in model.graph.node if tensor.name in node.input]
        products = [node for node in readers if node.op_type in PRODUCTS]
        gathers = [node for node in readers if node.op_type == "Gather"]
        if not (products and gathers and len(readers) == len(products + gathers)):
            continue
        apart = model.graph.initializer.add()
        apart.CopyFrom(tensor)
        apart.name = f"{tensor.name}.product"
        for node in products:
            node.input[list(node.input).index(tensor.name)] = apart.name
        changed = True
    if changed:
        onnx.save(model, str(path))


def name_once(graph: ir.Graph) -> None:
    """Undo it in a graph that was read: weights at one place of a file become one."""
    known: dict[tuple[str, int | None], ir.Value] = {}
    for name, value in list(graph.initializers.items()):
        stored = value.const_value
        if not isinstance(stored, ir.ExternalTensor):
            continue
        first = known.setdefault((str(stored.path), stored.offset), value)
        if first is not value:
            ir.convenience.replace_all_uses_with(value, first)
            del graph.initializers[name]
