"""Find the node of every site.

Exporters rename weights, but they keep where a node came from: torch's dynamo exporter writes the
module scopes into the node's metadata, and builders name nodes after modules. Whatever the name
says, the weight decides: a node is bound only if it multiplies by the very weight of the site.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgelr.core.errors import EdgelrError
from edgelr.core.sites import LinearSite

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCOPES = "pkg.torch.onnx.name_scopes"
TOLERANCE = 1e-6  # of the largest weight: exporters fold constants, they do not round


@dataclass(frozen=True, slots=True)
class Binding:
    """A site's node. ``transposed``: the initializer is ``(out, in)``, as in Gemm with transB.

    A convolution has the axes of its kernel behind these.
    """

    site: LinearSite
    node: ir.Node
    transposed: bool


def bind(
    graph: ir.Graph,
    sites: Iterable[LinearSite],
    weight_of: Callable[[str], NDArray[np.float32]],
    node_names: tuple[tuple[str, str], ...] = (),
) -> list[Binding]:
    """Bind every site to its node.

    Args:
        graph: unfused, or fused only where no linear is packed.
        sites: what to find.
        weight_of: the weight ``(out, in)`` of a site, by name.
        node_names: replacements that turn a module's name into its node's path.

    Raises:
        EdgelrError: a site has no node, or its node holds another weight.
    """
    named: dict[str, ir.Node] = {}
    for node in graph:
        if _is_linear(node):
            for key in _keys(node):
                named.setdefault(key, node)
    bindings = []
    for site in sites:
        bound = named.get(site.name) or named.get(_renamed(site.name, node_names))
        if bound is None:
            raise EdgelrError(
                f"The graph has no MatMul or Gemm of {site.name} among its {len(named)} linears. "
                f"The exporter of this family should declare node_names that lead to it."
            )
        bindings.append(Binding(site, bound, _verify(site, bound, weight_of(site.name))))
    return bindings


def _is_linear(node: ir.Node) -> bool:
    if node.op_type not in ("MatMul", "Gemm", "Conv") or node.domain:
        return False
    weight = node.inputs[1]
    if weight is None or weight.const_value is None:
        return False
    return node.op_type == "Conv" or len(weight.shape or ()) == 2


def _keys(node: ir.Node) -> list[str]:
    """Module paths that the node may stand for: its scopes, and its own path."""
    path = (node.name or "").strip("/").replace("/", ".")
    return [*module_of(node), path.removesuffix(f".{node.op_type}")]


def module_of(node: ir.Node) -> list[str]:
    """The path of the module that a node was traced in; none where the graph does not tell."""
    scopes: list[str] = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    return scopes[-2:-1]


def _renamed(name: str, node_names: tuple[tuple[str, str], ...]) -> str:
    for old, new in node_names:
        name = name.replace(old, new)
    return name


def _verify(site: LinearSite, node: ir.Node, weight: NDArray[np.float32]) -> bool:
    """Compare the node's weight with the site's; tell whether it is stored ``(out, in)``."""
    transposed = node.op_type == "Gemm" and _attribute(node, "transB", 0) == 1
    value = node.inputs[1]
    assert value is not None
    assert value.const_value is not None
    stored = value.const_value.numpy()
    if node.op_type == "Conv":  # (out, in, height, width)
        stored, transposed = stored.reshape(len(stored), -1), True
    found = stored if transposed else stored.T
    if found.shape != weight.shape:
        raise EdgelrError(
            f"{site.name} was bound to node {node.name!r}, whose weight is {found.shape}; the "
            f"module's is {weight.shape}. This is a fault of the exporter's node_names."
        )
    error = float(np.abs(found - weight).max())
    if error > TOLERANCE * float(np.abs(weight).max()):
        raise EdgelrError(
            f"{site.name} was bound to node {node.name!r}, whose weight differs from the module's "
            f"by {error:.2e}. This is a fault of the exporter's node_names."
        )
    return transposed


def _attribute(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.value
