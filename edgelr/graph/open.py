"""Open a graph that edgelr did not write, with its constants as initializers."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, Sequential, common

from edgelr.core.errors import InputError
from edgelr.graph.nodes import store


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
    Sequential(
        common.RemoveInitializersFromInputsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        FoldConstants(),
    )(model)
    return model


class FoldConstants(InPlacePass):
    """Put constants where ``find_linears`` sees them.

    1. The Identity of a constant becomes the constant.
    2. So does the Transpose of a constant matrix that nothing else reads, transposed when it is
       read: a table that is also gathered from would be there twice.

    ir-py's ``IdentityEliminationPass`` removes every other Identity as well, among them those by
    which a branch of If returns an outer value; ONNX Runtime refuses the graph that is left.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Fold the constants of the graph and of the bodies inside it."""
        folded = [_fold(model.graph, node) for node in list(model.graph.all_nodes())]
        return PassResult(model, modified=any(folded))


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    if node.op_type not in ("Identity", "Transpose") or node.outputs[0].is_graph_output():
        return False
    weight = node.inputs[0]
    if weight is None or weight.const_value is None:
        return False
    if node.op_type == "Transpose":  # case 2
        readers = {use.node.op_type for use in weight.uses()}
        if len(weight.const_value.shape) != 2 or readers != {"Transpose"}:
            return False
        if list(node.attributes.get_ints("perm", (1, 0))) == [1, 0]:
            weight = _transposed(graph, f"{weight.name}.transposed", weight.const_value)
    ir.convenience.replace_all_uses_with(node.outputs[0], weight)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


def _transposed(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """Register the transposed weight, which is not computed before it is read."""
    if name in graph.initializers:
        return graph.initializers[name]
    rows, columns = tensor.shape.numpy()
    lazy = ir.LazyTensor(
        lambda: ir.tensor(tensor.numpy().T.copy(), name=name),
        dtype=tensor.dtype,
        shape=ir.Shape((columns, rows)),
        name=name,
    )
    return store(graph, lazy)


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
