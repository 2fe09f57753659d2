"""From a loaded model to graph files: the dense export, and the rewritten graph of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from edgelr.compress.block_quantized import Blocks
from edgelr.compress.factors import Dense, FactorSet
from edgelr.core.graph_files import encoder_beside, graph_file
from edgelr.core.sites import LinearSite
from edgelr.core.vocabulary import Precision
from edgelr.graph.bind import Binding, bind
from edgelr.graph.cleanup import KeepScopes, RenameNorms, ShareTiedHead, clean_decoder
from edgelr.graph.factorize import EXACT, FactorizeLinears
from edgelr.graph.float16 import ToFloat16
from edgelr.graph.quantize_table import QuantizeTable, ReplaceTable
from edgelr.graph.save import load_graph, save_graph, save_graphs
from edgelr.graph.split_tied_table import split_tied_table
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import weight_of

LATEST_OPSET = 1000  # no limit: the graph keeps the operator set that it was traced in
LATEST_IR_VERSION = 1000
EXAMPLE_ROWS, EXAMPLE_TOKENS = 2, 12  # neither 0 nor 1, which tracing would specialize


def trace(model: LoadedModel, folder: Path) -> None:
    """Write the dense float32 graph into ``folder``; linears are unpacked.

    Of an encoder-decoder model and of a dual encoder, both graphs.
    """
    traced = folder / "traced"
    traced.mkdir()
    example = model.example_inputs(EXAMPLE_ROWS, EXAMPLE_TOKENS)
    model.exporter.trace(model.module, model.folder, traced, example)
    path = folder / graph_file(model.modality, "float32")
    beside = encoder_beside(path)
    if beside is not None:
        written = {each: load_graph(traced / each.stem / "model.onnx") for each in (path, beside)}
        ShareTiedHead()(written[path])
        for each in written.values():
            KeepScopes()(each)
        save_graphs(written, LATEST_OPSET, LATEST_IR_VERSION)
        return
    graph = load_graph(traced / "model.onnx")
    if model.task == "text-generation" and model.exporter.fuse is None:  # it was built, not traced
        clean_decoder(graph)
    else:
        ShareTiedHead()(graph)
    KeepScopes()(graph)
    save_graph(graph, path, LATEST_OPSET, LATEST_IR_VERSION)


@dataclass(frozen=True, slots=True)
class GraphTarget:
    """Form in which a graph is written.

    Attributes:
        precision: type of every weight, input and output.
        max_opset: newest operator set of the device's ONNX Runtime.
        ir_version: newest file format of the device's ONNX Runtime.
        accuracy_level: type in which MatMulNBits multiplies: 1 float32, 4 int8.
    """

    precision: Precision = "float32"
    max_opset: int = LATEST_OPSET
    ir_version: int = LATEST_IR_VERSION
    accuracy_level: int = EXACT


AS_TRACED = GraphTarget()


def build(
    model: LoadedModel,
    traced: Path,
    sites: tuple[LinearSite, ...],
    factors: FactorSet,
    path: Path,
    target: GraphTarget = AS_TRACED,
    blocks: Mapping[str, Blocks] | None = None,
) -> tuple[int, int]:
    """Write the graph in which the sites of ``factors`` are factorized; none gives dense.

    Of an encoder-decoder model, both graphs: ``traced`` and ``path`` are the decoder's, and the
    encoder's are beside. Of a dual encoder, those of images, and those of texts are beside.

    Args:
        model: torch model, whose weights verify the binding.
        traced: graph file that ``trace`` wrote.
        sites: linears of the model.
        factors: factors of the sites that do not stay dense, by name.
        path: graph file that is written.
        target: form in which it is written.
        blocks: quantized matrices, by name of the tensor; None stores in float what they stand for.

    Returns:
        The operator set and the file format version that were written.
    """
    graphs, blocks, level = _load(traced, path), blocks or {}, target.accuracy_level
    for file, graph in graphs.items():
        own = [site for site in sites if site.reads_source == (file != path)]
        chosen = [site for site in own if site.name in factors]
        FactorizeLinears(_bind(model, graph, chosen), factors, blocks, level)(graph)
        _fuse(model, graph)
    for name in factors.keys() - {site.name for site in sites}:  # no linear: the token table
        weight, stored = weight_of(model, name).numpy(), blocks.get(f"{name}.weight")
        if stored is None:
            table = factors[name]
            assert isinstance(table, Dense)
            ReplaceTable(name, weight, table.weight.T.numpy())(graphs[path])
        else:
            QuantizeTable(name, weight, stored, level)(graphs[path])
    _save(graphs, target)
    return graphs[path].opset_imports[""], graphs[path].ir_version


def _load(traced: Path, path: Path) -> dict[Path, ir.Model]:
    """Read the graph that becomes ``path``, and the encoder's beside it, where there is one."""
    graphs = {path: load_graph(traced)}
    encoder, encoder_path = encoder_beside(traced), encoder_beside(path)
    if encoder is not None and encoder_path is not None:
        graphs[encoder_path] = load_graph(encoder)
    return graphs


def _save(graphs: Mapping[Path, ir.Model], target: GraphTarget) -> None:
    """Write one graph, or two with one sidecar, in the form of ``target``."""
    if target.precision == "float16":
        for graph in graphs.values():
            ToFloat16()(graph)
    if len(graphs) == 1:
        ((path, graph),) = graphs.items()
        save_graph(graph, path, target.max_opset, target.ir_version)
    else:
        save_graphs(graphs, target.max_opset, target.ir_version)
    if target.precision == "float32":  # the CPU's; a GPU would hold the table twice
        for path in graphs:
            split_tied_table(path)


def _bind(model: LoadedModel, graph: ir.Model, sites: Sequence[LinearSite]) -> list[Binding]:
    names = model.exporter.node_names
    return bind(graph.graph, sites, lambda name: weight_of(model, name).numpy(), names)


def _fuse(model: LoadedModel, graph: ir.Model) -> None:
    """Fuse a graph into ONNX Runtime's operators, where the family has a way to."""
    if model.exporter.fuse is not None:
        with _held_back(graph):
            model.exporter.fuse(graph)
        RenameNorms()(graph)
        KeepScopes()(graph)


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
