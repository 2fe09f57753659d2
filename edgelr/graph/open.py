"""Open a graph that edgelr did not write, with its constants as initializers."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import Sequential, common

from edgelr.core.errors import InputError
from edgelr.graph.constants import FoldConstants


def open_foreign(path: Path) -> ir.Model:
    """Read a graph that edgelr did not write; its weights stay on disk until they are used.

    Local functions are inlined. Constants become initializers of the main graph, also where they
    are computed from constants, and initializers are no inputs: ONNX Runtime would not hold those
    constant.

    Raises:
        InputError: the file is missing, is no ONNX graph, or has a function that cannot be inlined.
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
    _find_data(path, model)
    _inline(path, model)
    Sequential(
        common.RemoveInitializersFromInputsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        FoldConstants(),
    )(model)
    return model


def external_files(path: Path) -> list[Path]:
    """List the files beside a graph that hold its weights.

    Raises:
        InputError: one is missing, or a link to where ONNX Runtime follows none, for safety.
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
        if not _is_beside(file, path):
            raise InputError(
                f"{path} has weights in {file}, which is a link to {file.resolve()}. Expected a "
                f"file below the folder of the graph, or of what the graph is a link to: ONNX "
                f"Runtime follows no other link. Copy both to another folder (cp -L)."
            )
    return files


def _find_data(path: Path, model: ir.Model) -> None:
    """Point every weight to the file that it lies in, behind links, as in a cache of the Hub.

    ir-py follows no link that leaves the folder; ONNX Runtime does, where graph and data are links
    into one folder. So what ONNX Runtime allows is checked here, and ir-py is given no folder.
    """
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                file = Path(tensor.path)
                if _is_link(file) and _is_beside(file, path):
                    value.const_value = ir.ExternalTensor(
                        file.resolve(), tensor.offset, tensor.length, tensor.dtype,
                        shape=tensor.shape, name=tensor.name,
                    )  # fmt: skip


def _is_beside(file: Path, path: Path) -> bool:
    """Whether a file lies below the folder of a graph, or of what the graph is a link to."""
    folders = path.parent.resolve(), path.resolve().parent
    return any(file.resolve().is_relative_to(folder) for folder in folders)


def _is_link(file: Path) -> bool:
    """Whether a file has another name: as a symbolic link, or as a hard one."""
    return file.is_file() and (
        file.resolve() != file.parent.resolve() / file.name or file.stat().st_nlink > 1
    )


def _inline(path: Path, model: ir.Model) -> None:
    """Put the nodes of local functions in the places of their calls.

    Raises:
        InputError: a function is of an operator set in which its operators mean something else.
    """
    if not model.functions:
        return
    for function in model.functions.values():
        _take_over_opsets(path, model, function)
        for node in function.all_nodes():
            node.meta["unnamed"] = not node.name
    Sequential(common.InlinePass(), common.NameFixPass())(model)
    for node in model.graph.all_nodes():
        if node.meta.pop("unnamed", False):
            node.name = None  # the pass calls all of these "node"


def _take_over_opsets(path: Path, model: ir.Model, function: ir.Function) -> None:
    for domain, version in function.opset_imports.items():
        newest = model.opset_imports.setdefault(domain, version)
        if version != newest and not _means_the_same(function, version, newest):
            raise InputError(
                f"{path} has the local function {function.name} of operator set {version}, and "
                f"its own is {newest}. Expected one operator set, or operators that are the same "
                f"in both. Export the model again without functions."
            )
        function.opset_imports[domain] = newest


def _means_the_same(function: ir.Function, old: int, new: int) -> bool:
    """Whether ONNX's operators of a function are the same in two operator sets."""
    names = {node.op_type for node in function.all_nodes() if node.domain in ("", "ai.onnx")}
    if not all(onnx.defs.has(name, version, "") for name in names for version in (old, new)):
        return False
    since = (
        {onnx.defs.get_schema(name, version, "").since_version for version in (old, new)}
        for name in names
    )
    return all(len(versions) == 1 for versions in since)
