"""Give a table that is multiplied and gathered several names, for the same bytes of the sidecar.

ONNX Runtime's CPU provider packs the matrix of a product into a layout of its own, reads every page
of it for that, and then lets go of it. A tied table it has to keep: rows are still gathered. So the
product gets a name of its own, and where the table is large, one for every piece of its rows::

    table ─┬─ Gather(ids)          table ── Gather(ids)
           └─ product(x)          table.product_0 ── product(x) ─┬─ Concat   all of them at
                                  table.product_1 ── product(x) ─┘           one place in the file

Mapped apart, the pages of a piece are given back after it was packed, before those of the next are
read; of the table itself only those rows are in memory that tokens have asked for. Providers that
copy weights to a device of their own would hold the table twice there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import onnx
import onnx_ir as ir

# Attention holds one: query, key and value side by side, where nothing is masked.
PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "Attention")
PIECE_BYTES = 2**26  # of a table: what is in memory twice while it is packed
ALIGNMENT_BYTES = 2**16  # of a place in a file that can be mapped: a page, everywhere

_Place: TypeAlias = tuple[str, int, int]  # file, first byte, the byte behind the last
_PRODUCT = ".product"  # after the name of a table, and before the number of a piece


def name_products_apart(path: Path, piece_bytes: int = PIECE_BYTES) -> None:
    """Rewrite a graph file; its sidecar stays as it is.

    Args:
        path: of the graph.
        piece_bytes: of a table whose rows are outputs; of others, all rows are one piece.
    """
    model = onnx.load(str(path), load_external_data=False)
    graph, changed = model.graph, False
    stored = [t for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in stored:
        readers = [node for node in graph.node if tensor.name in node.input]
        products = [node for node in readers if node.op_type in PRODUCTS]
        gathers = [node for node in readers if node.op_type == "Gather"]
        if not (products and gathers and len(readers) == len(products + gathers)):
            continue
        whole = len(products) > 1 or not _gives_rows(products[0])
        pieces = list(_pieces(tensor, None if whole else piece_bytes))
        graph.initializer.extend(pieces)
        if len(pieces) > 1:
            _multiply_by_pieces(graph, products[0], [piece.name for piece in pieces])
        else:
            for node in products:
                node.input[list(node.input).index(tensor.name)] = pieces[0].name
        changed = True
    if changed:
        onnx.save(model, str(path))


def name_once(graph: ir.Graph) -> None:
    """Undo it in a graph that was read: weights at one place of a file become one."""
    known: dict[_Place, ir.Value] = {}
    for name, value in list(graph.initializers.items()):
        place = _place(value)
        if place is None:
            continue
        first = known.setdefault(place, value)
        if first is not value:
            ir.convenience.replace_all_uses_with(value, first)
            del graph.initializers[name]
    for node in [node for node in graph if node.op_type == "Concat"]:
        _join(graph, node, known)


def _gives_rows(node: onnx.NodeProto) -> bool:
    """Whether the outputs of a product are the rows of its matrix, one for one."""
    flags = {attribute.name: attribute.i for attribute in node.attribute}
    return node.op_type == "FusedMatMul" and flags.get("transB", 0) == 1


def _pieces(tensor: onnx.TensorProto, piece_bytes: int | None) -> Iterator[onnx.TensorProto]:
    """Name pieces of about so many bytes, at places of the file that can be mapped; None: all."""
    rows = tensor.dims[0]
    stored = {entry.key: entry.value for entry in tensor.external_data}
    length = int(stored["length"])
    row_bytes = length // rows
    least = ALIGNMENT_BYTES // math.gcd(ALIGNMENT_BYTES, row_bytes)
    count = 1 if piece_bytes is None else math.ceil(length / piece_bytes)
    size = math.ceil(rows / count / least) * least
    for number, begin in enumerate(range(0, rows, size)):
        piece = onnx.TensorProto()
        piece.CopyFrom(tensor)
        piece.name = tensor.name + _PRODUCT + (f"_{number}" if size < rows else "")
        piece.dims[:] = [min(size, rows - begin), *tensor.dims[1:]]
        place = {
            "location": stored["location"],
            "offset": str(int(stored.get("offset", 0)) + begin * row_bytes),
            "length": str(piece.dims[0] * row_bytes),
        }
        del piece.external_data[:]
        for key, value in place.items():
            entry = piece.external_data.add()
            entry.key, entry.value = key, value
        yield piece


def _multiply_by_pieces(
    graph: onnx.GraphProto, product: onnx.NodeProto, pieces: Sequence[str]
) -> None:
    """Replace a product by one for every piece, and put their outputs side by side."""
    parts = []
    for number, name in enumerate(pieces):
        part = onnx.NodeProto()
        part.CopyFrom(product)
        part.name = f"{product.name}_{number}"
        part.input[1], part.output[0] = name, f"{product.output[0]}_{number}"
        parts.append(part)
    outputs = [part.output[0] for part in parts]
    joined = onnx.helper.make_node("Concat", outputs, product.output, product.name, axis=-1)
    nodes = list(graph.node)
    place = nodes.index(product)
    del graph.node[:]
    graph.node.extend([*nodes[:place], *parts, joined, *nodes[place + 1 :]])


def _join(graph: ir.Graph, concat: ir.Node, tables: Mapping[_Place, ir.Value]) -> None:
    """Multiply by a table at once where the graph does it piece by piece."""
    parts = [value.producer() for value in concat.inputs if value is not None]
    products = [node for node in parts if node is not None and node.op_type == "FusedMatMul"]
    pieces = [node.inputs[1] for node in products]
    places = [_place(piece) for piece in pieces]
    first = places[0] if places else None
    if len(products) < len(concat.inputs) or first is None:
        return
    path, begin, end = first
    for place in places[1:]:
        if place is None or place[:2] != (path, end):
            return
        end = place[2]
    table = tables.get((path, begin, end))
    if table is None:
        return
    whole = ir.node(
        "FusedMatMul",
        [products[0].inputs[0], table],
        products[0].attributes,
        domain=products[0].domain,
        name=concat.name,
    )
    ir.convenience.replace_nodes_and_values(
        graph, concat, [concat, *products], [whole], concat.outputs, whole.outputs
    )
    for name, value in list(graph.initializers.items()):
        if value in pieces and not value.uses():
            del graph.initializers[name]


def _place(value: ir.Value | None) -> _Place | None:
    """Find where a weight lies; None where it is no part of a sidecar."""
    stored = None if value is None else value.const_value
    if not isinstance(stored, ir.ExternalTensor):
        return None
    begin = stored.offset or 0
    return str(stored.path), begin, begin + stored.nbytes
