"""Find the linears of any graph: products with a constant matrix.

=========  ========================  ==================
node       constant                  weight is stored
=========  ========================  ==================
MatMul     2-D, on the right         ``(in, out)``
Gemm       2-D, on the right         ``(in, out)``, or ``(out, in)`` with transB
Conv       all kernel sizes 1        ``(out, in, 1, …)``
=========  ========================  ==================

A linear is a *weight*: nodes that share one, as in a model whose blocks repeat, are factorized
together. A weight that cannot be split is left as it is, and the reason is kept.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgelr.core.sites import LinearSite
from edgelr.core.vocabulary import Array, Precision

SCOPES = "pkg.torch.onnx.name_scopes"  # key under which torch's exporter keeps module paths
_OPERATORS = ("MatMul", "Gemm", "Conv")
_PRECISIONS: dict[ir.DataType, Precision] = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.FLOAT16: "float16",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """A value that a linear reads.

    Attributes:
        value: name in the graph.
        channels_first: whether features are on axis 1, as in Conv, and not on the last.
        strides: strides of a Conv, which skips the positions between them; empty for others.
    """

    value: str
    channels_first: bool = False
    strides: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Linear:
    """A constant matrix and the nodes that multiply by it.

    Attributes:
        site: name and sizes.
        weight: initializer.
        nodes: nodes that share the weight, also in bodies of If and Loop.
        transposed: whether the weight is stored ``(out, in)``.
        readings: inputs of the nodes in the main graph; empty where all are in bodies.
    """

    site: LinearSite
    weight: ir.Value
    nodes: tuple[ir.Node, ...]
    transposed: bool
    readings: tuple[Reading, ...]

    @property
    def precision(self) -> Precision:
        assert self.weight.dtype is not None
        return _PRECISIONS[self.weight.dtype]

    def read_weight(self) -> Array:
        """Read the matrix from the file, ``(out_features, in_features)``."""
        return read_matrix(self.weight, self.transposed)

    def as_stored(self, matrix: Array) -> Array:
        """Bring ``(out_features, in_features)`` into the layout and the type of the weight."""
        assert self.weight.const_value is not None
        shape, dtype = self.weight.const_value.shape.numpy(), self.weight.const_value.dtype.numpy()
        return (matrix if self.transposed else matrix.T).reshape(shape).astype(dtype)


@dataclass(frozen=True)
class Linears:
    """Linears of a graph, in its own order.

    Attributes:
        found: linears that can be factorized.
        refused: reasons why others cannot, by name.
    """

    found: tuple[Linear, ...]
    refused: dict[str, str]

    @property
    def sites(self) -> tuple[LinearSite, ...]:
        return tuple(linear.site for linear in self.found)


def find_linears(model: ir.Model) -> Linears:
    """Find every linear of a graph and of the bodies inside it."""
    users: dict[ir.Value, list[ir.Node]] = {}
    for node in model.graph.all_nodes():
        if multiplies(node):
            users.setdefault(_weight(node), []).append(node)
    found: dict[str, Linear] = {}
    first: dict[tuple[Reading, ...], str] = {}  # linear that reads the same
    refused: dict[str, str] = {}
    for weight, nodes in users.items():
        name = _unique(_name(nodes[0], weight), found.keys() | refused.keys())
        reason = _refusal(weight, nodes)
        if reason:
            refused[name] = reason
        else:
            linear = _linear(model.graph, name, weight, tuple(nodes))
            reads = first.setdefault(linear.readings, name) if linear.readings else name
            found[name] = replace(linear, site=replace(linear.site, input_name=reads))
    return Linears(tuple(found.values()), refused)


def multiplies(node: ir.Node, kernels: bool = False) -> bool:
    """Whether a node multiplies a value by a constant matrix.

    Args:
        node: node of any operator.
        kernels: whether convolutions count whose kernel is larger than 1.
    """
    if node.op_type not in _OPERATORS or node.domain not in ("", "ai.onnx"):
        return False
    x, weight = node.inputs[0], node.inputs[1]
    if x is None or x.const_value is not None or weight is None or weight.const_value is None:
        return False
    shape = weight.const_value.shape.numpy()
    if node.op_type != "Conv":
        return len(shape) == 2
    return len(shape) > 2 and (kernels or set(shape[2:]) == {1})


def is_transposed(node: ir.Node) -> bool:
    """Whether the weight of a linear's node is stored ``(out, in)``."""
    return node.op_type == "Conv" or node.attributes.get_int("transB", 0) == 1


def read_matrix(weight: ir.Value, transposed: bool) -> Array:
    """Read a weight as ``(out_features, in_features)``; a kernel is part of the inputs."""
    assert weight.const_value is not None
    stored: Array = weight.const_value.numpy()
    matrix = stored.reshape(len(stored), -1)
    return matrix if transposed else matrix.T


def module_of(node: ir.Node) -> list[str]:
    """Path of the module that a node was traced in; empty where the graph does not tell."""
    scopes: list[str] = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    return scopes[-2:-1]


def path_of(node: ir.Node, default: str = "") -> str:
    """Name of a node as a module path: builders name nodes after modules."""
    path = (node.name or default).strip("/").replace("/", ".")
    return path.removesuffix(f".{node.op_type}")


def _weight(node: ir.Node) -> ir.Value:
    weight = node.inputs[1]
    assert weight is not None
    return weight


def _refusal(weight: ir.Value, nodes: list[ir.Node]) -> str | None:
    """Say why a weight stays as it is."""
    if weight.dtype not in _PRECISIONS:
        return f"its weight is {weight.dtype}, not float"
    strangers = [use.node for use in weight.uses() if use.node not in nodes or use.idx != 1]
    if strangers:
        return f"its weight is also read by {strangers[0].op_type}"
    if weight.is_graph_output():
        return "its weight is an output of the graph"
    if len({is_transposed(node) for node in nodes}) > 1:
        return "its weight is also read transposed"
    if len({node.op_type == "Conv" for node in nodes}) > 1:
        return "its weight is read by Conv and by MatMul"
    if any(node.attributes.get_int("group", 1) != 1 for node in nodes):
        return "it is a convolution in groups"
    if any(node.attributes.get_int("transA", 0) for node in nodes):
        return "its input is transposed (transA)"
    return None


def _linear(graph: ir.Graph, name: str, weight: ir.Value, nodes: tuple[ir.Node, ...]) -> Linear:
    transposed = is_transposed(nodes[0])
    assert weight.const_value is not None
    rows, columns = weight.const_value.shape.numpy()[:2]
    readings = tuple(_readings(graph, nodes))
    site = LinearSite(
        name=name,
        in_features=columns if transposed else rows,
        out_features=rows if transposed else columns,
        has_bias=any(len(node.inputs) > 2 and node.inputs[2] is not None for node in nodes),
        role=nodes[0].op_type,
        block=None,
        input_name=name,
    )
    return Linear(site, weight, nodes, transposed, readings)


def _readings(graph: ir.Graph, nodes: tuple[ir.Node, ...]) -> Iterator[Reading]:
    for node in nodes:
        x = node.inputs[0]
        if x is None or x.name is None or x.graph is not graph:
            continue  # a value inside a body cannot be an output of the graph
        strides = tuple(node.attributes.get_ints("strides", ()))
        yield Reading(x.name, channels_first=node.op_type == "Conv", strides=strides)


def _name(node: ir.Node, weight: ir.Value) -> str:
    """Name a linear after its module, its node's path, or else its weight."""
    module = module_of(node)
    if module and module[0]:
        return module[0]
    return path_of(node, weight.name or "") or node.op_type


def _unique(name: str, taken: set[str]) -> str:
    count, unique = 1, name
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    return unique
