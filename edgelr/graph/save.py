"""Write a graph for one device: its opset, its IR version, one sidecar; then check the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as common_passes

from edgelr.core.errors import EdgelrError
from edgelr.graph.split_tied_table import ALIGNMENT_BYTES, JoinTiedTable

ALIGNED_FROM_BYTES = 2**20  # onnx_ir lets larger tensors start at a multiple of this alignment
SIDECAR_FROM_BYTES = 1024  # smaller tensors are part of the graph file


def load_graph(path: Path) -> ir.Model:
    """Read a graph; its weights stay on disk until they are used, and have one name each."""
    return JoinTiedTable()(ir.load(path)).model


def save_graph(
    model: ir.Model, path: Path, max_opset: int, ir_version: int, check: bool = True
) -> None:
    """Write ``path`` and ``path.data``, and check what was written.

    Args:
        model: graph; unused initializers and nodes are removed from it.
        path: graph file; its folder exists.
        max_opset: newest operator set of the device's ONNX Runtime.
        ir_version: newest file format of the device's ONNX Runtime.
        check: whether ONNX's checker reads the file again. Graphs of others are often less
            complete than it wants, and run all the same: ONNX Runtime alone judges them.

    Raises:
        EdgelrError: an operator has no equal form in that operator set, or the checker refuses
            the file.
    """
    _prepare(model, max_opset, ir_version)
    ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=SIDECAR_FROM_BYTES)
    if check:
        _check(path)


def save_graphs(models: Mapping[Path, ir.Model], max_opset: int, ir_version: int) -> None:
    """Write several graphs into one folder, with one sidecar, that of the first.

    A weight of two graphs is stored once.

    Args:
        models: graphs, by path of the file.
        max_opset: newest operator set of the device's ONNX Runtime.
        ir_version: newest file format of the device's ONNX Runtime.
    """
    shared: dict[tuple[object, ...], ir.TensorProtocol] = {}
    users: dict[tuple[object, ...], list[ir.Value]] = {}
    for model in models.values():
        _prepare(model, max_opset, ir_version)
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.nbytes > SIDECAR_FROM_BYTES:
                content = sha256(tensor.tobytes()).hexdigest()
                key = (tensor.dtype, *tensor.shape.numpy(), content)
                shared.setdefault(key, tensor)
                users.setdefault(key, []).append(value)
            elif isinstance(tensor, ir.ExternalTensor):  # it lies in the file that was read
                (value.const_value,) = ir.external_data.convert_tensors_from_external([tensor])
    first = next(iter(models))
    stored = ir.external_data.convert_tensors_to_external(
        list(shared.values()), first.parent, f"{first.name}.data"
    )
    for key, tensor in zip(shared, stored, strict=True):
        for value in users[key]:
            value.const_value = tensor
    for path, model in models.items():
        ir.save(model, path)
        _check(path)


def _prepare(model: ir.Model, max_opset: int, ir_version: int) -> None:
    common_passes.RemoveUnusedNodesPass()(model)
    common_passes.DeduplicateInitializersPass()(model)
    _lower_opset(model, max_opset)
    model.ir_version = min(model.ir_version, ir_version)
    model.producer_name = "edgelr"


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EdgelrError(f"The ONNX checker refuses {path.name}: {error}") from error


def read_versions(path: Path) -> tuple[int, int]:
    """Read the operator set and the version of the file format of a graph file."""
    model = load_graph(path)
    return model.opset_imports[""], model.ir_version


def weight_bytes(model: ir.Model) -> int:
    """Add up the bytes of all initializers as they would be stored."""
    return sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )


def padding_bytes(tensor_bytes: Iterable[int]) -> int:
    """Bound the unused bytes before tensors of these sizes in a sidecar."""
    return ALIGNMENT_BYTES * sum(size > ALIGNED_FROM_BYTES for size in tensor_bytes)


def _lower_opset(model: ir.Model, max_opset: int) -> None:
    """Declare an older operator set where every operator means the same in it.

    Most releases only add types. An operator whose number of inputs or whose attributes changed
    between the two sets is refused, because its meaning may have changed.
    """
    current = model.opset_imports[""]
    if current <= max_opset:
        return
    for node in model.graph.all_nodes():
        if node.domain in ("", "ai.onnx"):
            _require_same(node, current, max_opset)
    model.opset_imports[""] = max_opset


def _require_same(node: ir.Node, current: int, target: int) -> None:
    new = onnx.defs.get_schema(node.op_type, current, "")
    try:
        old = onnx.defs.get_schema(node.op_type, target, "")
    except onnx.defs.SchemaError:
        old = None
    used = set(node.attributes)
    if (
        old is None
        or len(node.inputs) > old.max_input
        or not used <= set(old.attributes)
        or old.min_input != new.min_input
    ):
        raise EdgelrError(
            f"The operator {node.op_type} of {node.name!r} changed between opset {target} and "
            f"{current}, and the device's ONNX Runtime knows opset {target} at most. Choose a "
            f"profile with a newer ONNX Runtime."
        )
