"""From a loaded model to graph files: the dense export, and the rewritten graph of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from edgelr.compress.block_quantized import Blocks
from edgelr.compress.factors import FactorSet
from edgelr.core.graph_files import encoder_beside, graph_file
from edgelr.core.sites import LinearSite
from edgelr.core.vocabulary import Precision
from edgelr.graph.bind import bind
from edgelr.graph.cleanup import rename_norms, share_tied_head, tidy_decoder
from edgelr.graph.factorize import EXACT, factorize_linears
from edgelr.graph.float16 import to_float16
from edgelr.graph.quantize_table import quantize_table
from edgelr.graph.save import load_graph, save_graph, save_graphs
from edgelr.graph.split_tied_table import name_products_apart
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import weight_of

LATEST_OPSET = 1000  # no limit: the graph keeps the operator set that it was traced in
LATEST_IR_VERSION = 1000
EXAMPLE_ROWS, EXAMPLE_TOKENS = 2, 12  # neither 0 nor 1, which tracing would specialize


def trace(model: LoadedModel, folder: Path) -> None:
    """Write the dense float32 graph, or both of a pair, into ``folder``; linears are unpacked."""
    traced = folder / "traced"
    traced.mkdir()
    example = model.example_inputs(EXAMPLE_ROWS, EXAMPLE_TOKENS)
    model.exporter.trace(model.module, model.folder, traced, example)
    path = folder / graph_file(model.modality, "float32")
    beside = encoder_beside(path)
    if beside is not None:
        written = {each: load_graph(traced / each.stem / "model.onnx") for each in (path, beside)}
        share_tied_head(written[path])
        save_graphs(written, LATEST_OPSET, LATEST_IR_VERSION)
        return
    graph = load_graph(traced / "model.onnx")
    if model.task == "text-generation" and model.exporter.fuse is None:  # it was built, not traced
        tidy_decoder(graph)
    else:
        share_tied_head(graph)
    save_graph(graph, path, LATEST_OPSET, LATEST_IR_VERSION)


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

    Of a pair, both graphs: ``traced`` and ``path`` are the decoder's, and the encoder's are beside.

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
    own = [site for site in chosen if not site.reads_source]
    _rewrite(model, graph, own, factors, blocks, accuracy_level)
    for name in factors.keys() - {site.name for site in sites}:  # no linear: the token table
        stored = (blocks or {})[f"{name}.weight"]
        quantize_table(graph.graph, name, weight_of(model, name).numpy(), stored, accuracy_level)
    written = {path: graph}
    encoder, encoder_path = encoder_beside(traced), encoder_beside(path)
    if encoder is not None and encoder_path is not None:
        written[encoder_path] = load_graph(encoder)
        others = [site for site in chosen if site.reads_source]
        _rewrite(model, written[encoder_path], others, factors, blocks, accuracy_level)
    if precision == "float16":
        for half in written.values():
            to_float16(half)
    if len(written) == 1:
        save_graph(graph, path, max_opset, ir_version)
    else:
        save_graphs(written, max_opset, ir_version)
    if precision == "float32":  # what the CPU multiplies in; a GPU would hold the table twice
        for file in written:
            name_products_apart(file)
    return graph.opset_imports[""], graph.ir_version


def _rewrite(
    model: LoadedModel,
    graph: ir.Model,
    sites: Sequence[LinearSite],
    factors: FactorSet,
    blocks: Mapping[str, Blocks] | None,
    accuracy_level: int,
) -> None:
    """Factorize the sites of one graph, and fuse it."""
    bindings = bind(
        graph.graph,
        sites,
        lambda name: weight_of(model, name).numpy(),
        model.exporter.node_names,
    )
    factorize_linears(graph, bindings, factors, blocks, accuracy_level)
    if model.exporter.fuse is not None:
        with _held_back(graph):
            model.exporter.fuse(graph)
        rename_norms(graph.graph)


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
