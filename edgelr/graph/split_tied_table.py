"""Give a tied table of embeddings several names, for the same bytes of the sidecar.

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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from edgelr.graph.nodes import store

# Attention holds one: query, key and value side by side, where nothing is masked.
PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "Attention")
PIECE_BYTES = 2**26  # of a table: what is in memory twice while it is packed
ALIGNMENT_BYTES = 2**16  # of a place in a file that can be mapped: a page, everywhere

_Place: TypeAlias = tuple[str, int, int]  # file, first byte, the byte behind the last
_PRODUCT = ".product"  # after the name of a table, and before the number of a piece


def split_tied_table(path: Path, piece_bytes: int = PIECE_BYTES) -> None:
    """Split the tied tables of a graph file; its sidecar stays as it is.

    Args:
        path: graph file.
        piece_bytes: size of a piece, about.
    """
    result = SplitTiedTable(piece_bytes)(ir.load(path))
    if result.modified:
        ir.save(result.model, path)


@dataclass(frozen=True)
class SplitTiedTable(InPlacePass):
    """Give the products of a table that is also gathered from names of their own.

    1. A table whose rows are outputs of one product becomes pieces of about ``piece_bytes``.
    2. Of any other table, all rows are one piece; several products share it.

    Tables inside the graph file, and those with readers of other kinds, stay.
    """

    piece_bytes: int

    def call(self, model: ir.Model) -> PassResult:
        """Split every table of a sidecar that is read by products and by Gathers only."""
        modified = False
        for table in list(model.graph.initializers.values()):
            stored, uses = table.const_value, table.uses()
            products = [use.node for use in uses if use.node.op_type in PRODUCTS]
            gathers = [use.node for use in uses if use.node.op_type == "Gather"]
            if not isinstance(stored, ir.ExternalTensor) or not (products and gathers):
                continue
            if len(uses) > len(products) + len(gathers):
                continue
            self._split(model.graph, table, stored, products)
            modified = True
        return PassResult(model, modified)

    def _split(
        self, graph: ir.Graph, table: ir.Value, stored: ir.ExternalTensor, products: list[ir.Node]
    ) -> None:
        first, rows = products[0], stored.shape.numpy()[0]
        cut = len(products) == 1 and _gives_rows(first) and first.inputs[1] is table
        size = _rows_of_a_piece(stored, self.piece_bytes) if cut else rows
        if size < rows:  # case 1
            _multiply_by_pieces(graph, first, stored, size)
            return
        whole = _named_rows(graph, stored, 0, rows, _PRODUCT)  # case 2
        for node in products:
            node.replace_input_with(node.inputs.index(table), whole)


class JoinTiedTable(InPlacePass):
    """Undo ``SplitTiedTable`` in a graph that was read.

    1. Weights at one place of a file become one.
    2. Products with pieces of a table that lie one behind the other become one product.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Join what lies at one place, then the pieces."""
        graph, modified = model.graph, False
        known: dict[_Place, ir.Value] = {}
        for name, value in list(graph.initializers.items()):
            place = _place(value)
            if place is None:
                continue
            first = known.setdefault(place, value)
            if first is not value:
                ir.convenience.replace_all_uses_with(value, first)
                del graph.initializers[name]
                modified = True
        for node in [node for node in graph if node.op_type == "Concat"]:
            modified |= _join(graph, node, known)
        return PassResult(model, modified)


def _gives_rows(node: ir.Node) -> bool:
    """Whether the outputs of a product are the rows of its matrix, one for one."""
    return node.op_type == "FusedMatMul" and node.attributes.get_int("transB", 0) == 1


def _rows_of_a_piece(table: ir.ExternalTensor, piece_bytes: int) -> int:
    """Choose the rows of a piece so that every piece begins where a file can be mapped."""
    rows = table.shape.numpy()[0]
    least = ALIGNMENT_BYTES // math.gcd(ALIGNMENT_BYTES, table.nbytes // rows)
    return math.ceil(rows / math.ceil(table.nbytes / piece_bytes) / least) * least


def _multiply_by_pieces(
    graph: ir.Graph, product: ir.Node, table: ir.ExternalTensor, size: int
) -> None:
    """Replace a product by one for every ``size`` rows, and put their outputs side by side."""
    rows, parts = table.shape.numpy()[0], []
    for number, begin in enumerate(range(0, rows, size)):
        end = min(begin + size, rows)
        piece = _named_rows(graph, table, begin, end, f"{_PRODUCT}_{number}")
        parts.append(_product_like(product, piece, f"{product.name}_{number}"))
        parts[-1].outputs[0].name = f"{product.outputs[0].name}_{number}"
    joined = ir.node("Concat", [part.outputs[0] for part in parts], {"axis": -1}, name=product.name)
    ir.convenience.replace_nodes_and_values(
        graph, product, [product], [*parts, joined], product.outputs, joined.outputs
    )


def _named_rows(
    graph: ir.Graph, table: ir.ExternalTensor, begin: int, end: int, suffix: str
) -> ir.Value:
    """Give rows of a table a name of their own, at their place of the file."""
    shape = table.shape.numpy()
    row_bytes = table.nbytes // shape[0]
    rows = ir.ExternalTensor(
        table.location,
        (table.offset or 0) + begin * row_bytes,
        (end - begin) * row_bytes,
        table.dtype,
        shape=ir.Shape((end - begin, *shape[1:])),
        name=f"{table.name}{suffix}",
        base_dir=table.base_dir,
    )
    return store(graph, rows)


def _product_like(product: ir.Node, matrix: ir.Value, name: str | None) -> ir.Node:
    """Multiply the same values, in the same way, by another matrix."""
    inputs = [product.inputs[0], matrix]
    attributes = product.attributes
    return ir.node(product.op_type, inputs, attributes, domain=product.domain, name=name)


def _join(graph: ir.Graph, concat: ir.Node, tables: Mapping[_Place, ir.Value]) -> bool:
    """Multiply by a table at once where the graph does it piece by piece; tell whether it did."""
    products = [node for value in concat.inputs if value and (node := value.producer())]
    if len(products) < len(concat.inputs) or not all(map(_gives_rows, products)):
        return False
    read = products[0].inputs[0]
    pieces = [product.inputs[1] for product in products]
    place = _joined_place(pieces)
    table = None if place is None else tables.get(place)
    if table is None or any(product.inputs[0] is not read for product in products):
        return False
    whole = _product_like(products[0], table, concat.name)
    ir.convenience.replace_nodes_and_values(
        graph, concat, [concat, *products], [whole], concat.outputs, whole.outputs
    )
    for piece in pieces:
        if piece is not None and piece.name is not None and not piece.uses():
            del graph.initializers[piece.name]
    return True


def _joined_place(pieces: list[ir.Value | None]) -> _Place | None:
    """Find where weights lie one behind the other; None where they do not."""
    joined = _place(pieces[0])
    for piece in pieces[1:]:
        place = _place(piece)
        if joined is None or place is None or place[:2] != (joined[0], joined[2]):
            return None
        joined = (*joined[:2], place[2])
    return joined


def _place(value: ir.Value | None) -> _Place | None:
    """Find where a weight lies; None where it is no part of a sidecar."""
    stored = None if value is None else value.const_value
    if not isinstance(stored, ir.ExternalTensor):
        return None
    begin = stored.offset or 0
    return str(stored.path), begin, begin + stored.nbytes
