"""Find the linears of any graph: products with a constant matrix.

=========  =============================  =========================================
node       constant                       weight is stored
=========  =============================  =========================================
MatMul     one matrix, on the right       ``(in, out)``, behind axes of 1 if it has any
MatMul     one matrix, on the left        ``(out, in)``, behind axes of 1 if it has any
Gemm       2-D, on the right              ``(in, out)``, or ``(out, in)`` with transB
Conv       one group                      ``(out, in, *kernel)``
=========  =============================  =========================================

A linear is a *weight*: nodes that share one, as in a model whose blocks repeat, are factorized
together. A weight that cannot be split is left as it is, and the reason is kept.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgelr.core.sites import LinearSite
from edgelr.core.vocabulary import Array, Precision
from edgelr.data.readings import PatchReading, Reading
from edgelr.graph.products import (
    fixed_values,
    is_transposed,
    reason_of_product,
    reason_of_weight,
    weight_place,
)

SCOPES = "pkg.torch.onnx.name_scopes"  # key under which torch's exporter keeps module paths
_PRECISIONS: dict[ir.DataType, Precision] = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.FLOAT16: "float16",
}


@dataclass(frozen=True, slots=True)
class Linear:
    """A constant matrix and the nodes that multiply by it.

    Attributes:
        site: name and sizes.
        weight: initializer.
        nodes: nodes that share the weight, also in bodies of If and Loop.
        transposed: whether the weight is stored ``(out, in)``.
        readings: inputs of the nodes in the main graph; empty where all are in bodies.
        place: place of the weight among the inputs of the nodes.
    """

    site: LinearSite
    weight: ir.Value
    nodes: tuple[ir.Node, ...]
    transposed: bool
    readings: tuple[Reading, ...]
    place: int

    @property
    def precision(self) -> Precision:
        assert self.weight.dtype is not None
        return _PRECISIONS[self.weight.dtype]

    @property
    def is_convolution(self) -> bool:
        return self.site.role == "Conv"

    def read_weight(self) -> Array:
        """Read the matrix from the file, ``(out_features, in_features)``."""
        return read_matrix(self.weight, self.transposed, self.is_convolution)

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
    refused: dict[str, str] = {}
    fixed = fixed_values(model)
    for node in model.graph.all_nodes():
        place = weight_place(node)
        weight = None if place is None else node.inputs[place]
        if weight is not None:
            users.setdefault(weight, []).append(node)
        elif reason := reason_of_product(node, fixed):
            refused[_unique(_name(node), {*refused})] = reason
    found: dict[str, Linear] = {}
    first: dict[tuple[Reading, ...], str] = {}  # linear that reads the same
    for weight, nodes in users.items():
        name = _unique(_name(nodes[0], weight), found.keys() | refused.keys())
        reason = None if weight.dtype in _PRECISIONS else f"its weight is {weight.dtype}, not float"
        reason = reason or reason_of_weight(weight, nodes)
        if reason:
            refused[name] = reason
        else:
            linear = _linear(model.graph, name, weight, tuple(nodes))
            reads = first.setdefault(linear.readings, name) if linear.readings else name
            found[name] = replace(linear, site=replace(linear.site, input_name=reads))
    return Linears(tuple(found.values()), refused)


def multiplies(node: ir.Node) -> bool:
    """Whether a node multiplies a value by a constant matrix, or kernel, on its right."""
    return weight_place(node) == 1


def read_matrix(weight: ir.Value, transposed: bool, kernel: bool = False) -> Array:
    """Read a weight as ``(out_features, in_features)``; a kernel is part of the inputs."""
    assert weight.const_value is not None
    stored: Array = weight.const_value.numpy()
    matrix = stored.reshape(len(stored) if kernel else stored.shape[-2], -1)
    return matrix if transposed else matrix.T


def module_of(node: ir.Node) -> list[str]:
    """Path of the module that a node was traced in; empty where the graph does not tell."""
    scopes: list[str] = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    return scopes[-2:-1]


def path_of(node: ir.Node, default: str = "") -> str:
    """Name of a node as a module path: builders name nodes after modules."""
    path = (node.name or default).strip("/").replace("/", ".")
    return path.removesuffix(f".{node.op_type}")


def _linear(graph: ir.Graph, name: str, weight: ir.Value, nodes: tuple[ir.Node, ...]) -> Linear:
    node, place = nodes[0], weight_place(nodes[0])
    assert weight.const_value is not None
    assert place is not None
    transposed, shape = is_transposed(node), tuple(weight.const_value.shape.numpy())
    kernel = shape[2:] if node.op_type == "Conv" else ()
    rows, columns = shape[:2] if kernel else shape[-2:]
    columns *= math.prod(kernel)
    site = LinearSite(
        name=name,
        in_features=columns if transposed else rows,
        out_features=rows if transposed else columns,
        has_bias=any(len(node.inputs) > 2 and node.inputs[2] is not None for node in nodes),
        role=node.op_type,
        block=None,
        input_name=name,
        kernel=kernel if set(kernel) - {1} else (),
    )
    return Linear(site, weight, nodes, transposed, tuple(_readings(graph, nodes, kernel)), place)


def _readings(
    graph: ir.Graph, nodes: tuple[ir.Node, ...], kernel: tuple[int, ...]
) -> Iterator[Reading]:
    for node in nodes:
        place = weight_place(node)
        x = None if place is None else node.inputs[1 - place]
        if x is None or x.name is None or x.graph is not graph:
            continue  # a value inside a body cannot be an output of the graph
        if not kernel:
            yield Reading(x.name, axis=-1 if place else -2)
            continue
        ones, given = (1,) * len(kernel), node.attributes
        yield PatchReading(
            x.name,
            axis=1,
            kernel=kernel,
            strides=tuple(given.get_ints("strides", ones)),
            dilations=tuple(given.get_ints("dilations", ones)),
            pads=tuple(given.get_ints("pads", (0,) * 2 * len(kernel))),
            auto_pad=given.get_string("auto_pad", "NOTSET"),
        )


def _name(node: ir.Node, weight: ir.Value | None = None) -> str:
    """Name a linear after its module, its node's path, or else its weight."""
    module = module_of(node)
    if module and module[0]:
        return module[0]
    return path_of(node, (weight and weight.name) or "") or node.outputs[0].name or node.op_type


def _unique(name: str, taken: set[str]) -> str:
    count, unique = 1, name
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    return unique
