"""Find the node of every site.

Exporters rename weights, but they keep where a node came from: torch's dynamo exporter writes the
module scopes into the node's metadata, and builders name nodes after modules. Whatever the name
says, the weight decides: a node is bound only if it multiplies by the very weight of the site.
(``edgelr.graph.linears`` knows no sites, and finds the linears of any graph.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgelr.core.errors import EdgelrError
from edgelr.core.sites import LinearSite
from edgelr.graph.linears import module_of, multiplies, path_of, read_matrix
from edgelr.graph.products import is_transposed

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 1e-6  # of the largest weight: exporters fold constants, they do not round


@dataclass(frozen=True, slots=True)
class Binding:
    """A site and its node.

    Attributes:
        site: linear of the torch model.
        node: MatMul, Gemm or Conv of the graph.
        transposed: whether the weight is stored ``(out, in)``, as in Gemm with transB; a
            convolution has the axes of its kernel behind these.
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
        graph: unfused graph, or one whose fusions packed no linear.
        sites: linears of the torch model.
        weight_of: weight ``(out, in)`` of a site, by name.
        node_names: replacements that turn a module's name into its node's path.

    Raises:
        EdgelrError: a site has no node, or its node holds another weight.
    """
    named: dict[str, ir.Node] = {}
    for node in graph:
        if multiplies(node):
            for key in (*module_of(node), path_of(node)):
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


def _renamed(name: str, node_names: tuple[tuple[str, str], ...]) -> str:
    for old, new in node_names:
        name = name.replace(old, new)
    return name


def _verify(site: LinearSite, node: ir.Node, weight: NDArray[np.float32]) -> bool:
    """Compare the node's weight with the site's; tell whether it is stored ``(out, in)``."""
    transposed, value = is_transposed(node), node.inputs[1]
    assert value is not None
    found = read_matrix(value, transposed, node.op_type == "Conv")
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
