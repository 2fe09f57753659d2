"""Memory of the weights of a graph file, once ONNX Runtime has loaded it.

The CPU provider copies every constant matrix that a product reads into the layout of its kernels,
once for each node, and lets go of the original. Everything else is read where it lies, in pages of
the file: tables that are gathered from, norms, biases. So the table of a tied head is there twice,
once tokens have asked for most of its rows: see ``edgelr.graph.split_tied_table``. A GPU holds
every weight as it is stored.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from edgelr.core.bundle import Residency
from edgelr.core.graph_files import encoder_beside
from edgelr.core.vocabulary import LAYOUTS, WeightPrecision
from edgelr.device.storage import packed_bytes
from edgelr.graph.save import load_graph, weight_bytes
from edgelr.graph.split_tied_table import PRODUCTS

QUANTIZED_PRODUCT = "MatMulNBits"


def read_residency(path: Path, provider: str) -> Residency:
    """Add up the weights of a graph file.

    Args:
        path: graph file; its weights are not read.
        provider: ``"cpu"`` or ``"cuda"``.
    """
    model = load_graph(path)
    if provider != "cpu":
        return Residency(weight_bytes(model), 0)
    packed, replaced = 0, set()
    for node in model.graph:
        matrix = _packed(node)
        if matrix is not None:
            packed += matrix[1]
            replaced.add((node, matrix[0]))
    mapped = sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
        and any((use.node, value) not in replaced for use in value.uses())
        and not _scales_of_a_product(value)
    )
    quantized = any(node.op_type == QUANTIZED_PRODUCT for node, _ in replaced)
    return Residency(packed, mapped, quantized)


def read_residencies(path: Path, provider: str) -> Residency:
    """Add up the weights of a graph file and, where it has one, of the encoder's beside it."""
    encoder = encoder_beside(path)
    parts = [read_residency(each, provider) for each in (path, encoder) if each is not None]
    return Residency(
        sum(part.packed_bytes for part in parts),
        sum(part.mapped_bytes for part in parts),
        any(part.quantized for part in parts),
    )


def precision_of(product: ir.Node) -> WeightPrecision:
    """Name the precision of the weights of a MatMulNBits, or the one that is most like it."""
    bits, size = (product.attributes[name].as_int() for name in ("bits", "block_size"))

    def difference(name: WeightPrecision) -> tuple[int, int]:
        return abs(LAYOUTS[name].bits - bits), abs(LAYOUTS[name].block_size - size)

    return min(LAYOUTS, key=difference)


def _packed(node: ir.Node) -> tuple[ir.Value | None, int] | None:
    """Find the constant that a node copies, and the bytes of the copy, if it copies any."""
    if node.op_type not in (*PRODUCTS, QUANTIZED_PRODUCT) or len(node.inputs) < 2:
        return None
    weight = node.inputs[1]
    if weight is None:
        return None
    if node.op_type == QUANTIZED_PRODUCT:
        shape = (node.attributes["K"].as_int(), node.attributes["N"].as_int())
        return weight, packed_bytes(shape, precision_of(node))
    return (weight, weight.const_value.nbytes) if weight.const_value is not None else None


def _scales_of_a_product(value: ir.Value) -> bool:
    """Whether only quantized products read a value: it is part of their copy."""
    return all(use.node.op_type == QUANTIZED_PRODUCT for use in value.uses())
