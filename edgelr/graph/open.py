"""Open a graph that edgelr did not write, with its constants where they can be found."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common as passes

from edgelr.core.errors import InputError


def open_foreign(path: Path) -> ir.Model:
    """Read a graph that edgelr did not write; its weights stay on disk until they are used.

    Constants become initializers of the main graph, also behind Identity and Transpose, and
    initializers are no inputs: ONNX Runtime would not hold those constant.

    Raises:
        InputError: the file is missing, or is no ONNX graph.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist. Expected an ONNX file. Check the path.")
    try:
        model = ir.load(path)
    except Exception as error:  # the parser has no error class of its own
        raise InputError(
            f"{path} cannot be read as an ONNX graph ({type(error).__name__}: {error}). Expected "
            f"a complete .onnx file, with its external data beside it. Copy it again."
        ) from error
    if not list(model.graph):
        raise InputError(f"{path} holds no nodes. Expected a model. Export it again.")
    passes.RemoveInitializersFromInputsPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=0)(model)
    passes.LiftSubgraphInitializersToMainGraphPass()(model)
    for node in list(model.graph.all_nodes()):
        _fold(model.graph, node)
    return model


def _fold(graph: ir.Graph, node: ir.Node) -> None:
    """Put a constant in the place of the Identity, or of the Transpose, of a constant."""
    if node.op_type not in ("Identity", "Transpose") or node.outputs[0].is_graph_output():
        return
    weight = node.inputs[0]
    if weight is None or weight.const_value is None:
        return
    if node.op_type == "Transpose":
        readers = {use.node.op_type for use in weight.uses()}
        if len(weight.const_value.shape) != 2 or readers != {"Transpose"}:
            return  # a table that is also gathered from would be there twice
        perm = node.attributes.get("perm")
        if perm is None or list(perm.as_ints()) == [1, 0]:
            weight = _transposed(graph, weight)
    ir.convenience.replace_all_uses_with(node.outputs[0], weight)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _transposed(graph: ir.Graph, weight: ir.Value) -> ir.Value:
    """Register the transposed weight, which is not computed before it is read."""
    name, tensor = f"{weight.name}.transposed", weight.const_value
    assert tensor is not None
    if name not in graph.initializers:
        rows, columns = tensor.shape.numpy()
        lazy = ir.LazyTensor(
            lambda: ir.tensor(tensor.numpy().T.copy(), name=name),
            dtype=tensor.dtype,
            shape=ir.Shape((columns, rows)),
            name=name,
        )
        graph.register_initializer(
            ir.Value(
                name=name, shape=lazy.shape, type=ir.TensorType(tensor.dtype), const_value=lazy
            )
        )
    return graph.initializers[name]


def external_files(path: Path) -> list[Path]:
    """List the files beside a graph that hold its weights.

    Raises:
        InputError: one is missing, or a link: the ONNX libraries follow none, for safety.
    """
    model = open_foreign(path)
    tensors = [value.const_value for value in model.graph.initializers.values()]
    files = sorted({Path(each.path) for each in tensors if isinstance(each, ir.ExternalTensor)})
    for file in files:
        if not file.is_file():
            raise InputError(
                f"{path} has weights in {file}, which does not exist. Expected it beside the "
                f"graph. Copy it there."
            )
        if file.resolve() != file.parent.resolve() / file.name or file.stat().st_nlink > 1:
            raise InputError(
                f"{path} has weights in {file}, which is a link. Expected a file of its own: the "
                f"ONNX libraries follow no links. Copy both to another folder (cp -L)."
            )
    return files
