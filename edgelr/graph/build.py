"""From a loaded model to graph files: the dense export, and the rewritten graph of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from edgelr.blocks import Blocks
from edgelr.factors import FactorSet
from edgelr.graph.bind import bind
from edgelr.graph.precision import to_float16
from edgelr.graph.rewrite import EXACT, factorize_linears
from edgelr.graph.save import load_graph, save_graph
from edgelr.graph.table import quantize_table
from edgelr.graph.tidy import rename_norms, share_tied_table, tidy_decoder
from edgelr.sites import weight_of
from edgelr.types import LinearSite, LoadedModel, Precision

LATEST_OPSET = 1000  # no limit: the graph keeps the operator set that it was traced in
LATEST_IR_VERSION = 1000
EXAMPLE_ROWS, EXAMPLE_TOKENS = 2, 12  # neither 0 nor 1, which tracing would specialize


def trace(model: LoadedModel, folder: Path) -> None:
    """Write the dense float32 graph ``model.onnx`` into ``folder``, with its linears unpacked."""
    traced = folder / "traced"
    traced.mkdir()
    example = model.example_inputs(EXAMPLE_ROWS, EXAMPLE_TOKENS)
    model.exporter.trace(model.module, model.folder, traced, example)
    graph = load_graph(traced / "model.onnx")
    if model.task == "text-generation" and model.exporter.fuse is None:  # it was built, not traced
        tidy_decoder(graph)
    else:
        share_tied_table(graph)
    save_graph(graph, folder / "model.onnx", LATEST_OPSET, LATEST_IR_VERSION)


def build(
    model: LoadedModel,
    traced: Path,
    sites: tuple[LinearSite, ...],
    factors: FactorSet,
    path: Path,
    precision: Precision,
    max_opset: int = LATEST_OPSET,
    ir_version: int = LATEST_IR_VERSION,
    blocks: Mapping[str, Blocks] | None = None,
    accuracy_level: int = EXACT,
) -> tuple[int, int]:
    """Write the graph in which the sites of ``factors`` are factorized; none gives dense.

    Args:
        model: its weights verify the binding.
        traced: the graph that ``trace`` wrote.
        sites: of the model.
        factors: of the sites that do not stay dense.
        path: of the graph file.
        precision: of every weight, input and output.
        max_opset: newest operator set of the device's ONNX Runtime.
        ir_version: newest file format that it reads.
        blocks: matrices that are stored in whole numbers, by the name of the tensor.
        accuracy_level: with which MatMulNBits multiplies them.

    Returns:
        The operator set and the file format version that were written.
    """
    graph = load_graph(traced)
    chosen = [site for site in sites if site.name in factors]
    bindings = bind(
        graph.graph,
        chosen,
        lambda name: weight_of(model, name).numpy(),
        model.exporter.node_names,
    )
    factorize_linears(graph, bindings, factors, blocks, accuracy_level)
    if model.exporter.fuse is not None:
        with _held_back(graph):
            model.exporter.fuse(graph)
        rename_norms(graph.graph)
    for name in factors.keys() - {site.name for site in sites}:  # no linear: the token table
        stored = (blocks or {})[f"{name}.weight"]
        quantize_table(graph.graph, name, weight_of(model, name).numpy(), stored, accuracy_level)
    if precision == "float16":
        to_float16(graph)
    save_graph(graph, path, max_opset, ir_version)
    return graph.opset_imports[""], graph.ir_version


@contextmanager
def _held_back(graph: ir.Model) -> Iterator[None]:
    """Hide the values of weights that several nodes read while the block runs.

    Fusions pack constant weights side by side, and would make copies of what is stored once.
    """
    shared = {
        value: value.const_value
        for value in graph.graph.initializers.values()
        if len({use.node for use in value.uses() if use.node.op_type == "MatMul"}) > 1
    }
    for value in shared:
        value.const_value = None
    yield
    for value, tensor in shared.items():
        value.const_value = tensor
