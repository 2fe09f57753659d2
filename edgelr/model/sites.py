"""Find the linears that may be factorized, and which of them read the same input."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from edgelr.core.errors import InputError
from edgelr.core.sites import LinearSite, SiteGroup
from edgelr.core.vocabulary import ALTERNATIVES, Grouping
from edgelr.model.convolutions import features_last, is_convolution, matrix_of
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import SitePositions, loss_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.utils.hooks import RemovableHandle

PROBE_ROWS, PROBE_TOKENS = 3, 8  # three: of tables of positions, few have a multiple

Roles: TypeAlias = tuple[str, str]
AnyLinear: TypeAlias = nn.Linear | nn.Conv2d


def find_sites(model: LoadedModel) -> tuple[LinearSite, ...]:
    """List the factorizable linears in the order in which one forward pass runs them.

    A site is an ``nn.Linear``, or in families that say so a convolution, that the pass runs once,
    on the features of every token, whose weight nobody else uses (a tied head is not ours to
    split) and which the family does not keep dense; of an image it may also see windows, or
    another resolution. Sites that were handed the very same tensor share an ``input_name``: that
    of the first of them.

    Raises:
        InputError: nothing is left to factorize.
    """
    linears = {
        name: module
        for name, module in model.module.named_modules()
        if isinstance(module, nn.Linear) or (model.exporter.convolutions and is_convolution(module))
        if _is_ours(name, module, model)
    }
    sites = tuple(
        _site(name, linears[name], input_name, found)
        for name, input_name, found in _read_inputs(model, linears).sites()
    )
    if not sites:
        raise InputError(
            f"{model.source} has no linear that can be factorized: of its modules, none is an "
            f"nn.Linear with a weight of its own that runs once for each token (kept dense by its "
            f"family: {', '.join(model.exporter.keep_dense) or 'none'}). Nothing was written."
        )
    return sites


def find_groups(
    sites: tuple[LinearSite, ...], grouping: Grouping = "one", pairs: tuple[Roles, ...] = ()
) -> list[SiteGroup]:
    """Form the groups that are factorized together.

    ``one`` leaves every site alone. ``input`` joins the sites that read the same tensor, and
    ``blocks`` those of one role in two neighbouring blocks; there every site is in one group.
    ``any`` gives all of these, and ``tied`` gives every site alone and the pairs beside them: an
    allocator decides.

    Args:
        sites: linears of the model, in the order in which they run.
        grouping: rule of what may share.
        pairs: roles ``(first, second)`` of which one matrix may serve both, see ``Exporter``.
    """
    alone = [SiteGroup(site.name, (site,)) for site in sites]
    if grouping == "one":
        return alone
    shared = {
        "input": lambda: _same_input(sites),
        "blocks": lambda: _same_role(sites),
        "any": lambda: [*_same_input(sites), *_same_role(sites)],
        "tied": lambda: _tied_pairs(sites, pairs),
    }[grouping]()
    if grouping in ALTERNATIVES:
        return [*alone, *shared]
    covered = {site.name for group in shared for site in group.sites}
    return [*(group for group in alone if group.name not in covered), *shared]


def _same_input(sites: tuple[LinearSite, ...]) -> list[SiteGroup]:
    """Groups of the sites that read one tensor, such as query, key and value."""
    readers: dict[str, list[LinearSite]] = {}
    for site in sites:
        readers.setdefault(site.input_name, []).append(site)
    return [
        SiteGroup(_joined(group), tuple(group), "input")
        for group in readers.values()
        if len(group) > 1
    ]


def _same_role(sites: tuple[LinearSite, ...], span: int = 2) -> list[SiteGroup]:
    """Groups of one role in ``span`` neighbouring blocks, of the roles that share their input.

    Those are the ones that Basis Sharing (arXiv:2410.03765) found to share a basis well: query,
    key, value, gate and up, but neither the attention's output nor ``down``.
    """
    sharing = {site.role for group in _same_input(sites) for site in group.sites}
    roles: dict[tuple[str, str, int], list[LinearSite]] = {}
    for site in sites:
        if site.block is not None and site.role in sharing:
            roles.setdefault((_stack(site), site.role, site.block // span), []).append(site)
    shapes = {key: {(s.in_features, s.out_features) for s in group} for key, group in roles.items()}
    return [
        SiteGroup(_joined(group), tuple(group), "blocks")
        for key, group in roles.items()
        if len(group) == span and len(shapes[key]) == 1
    ]


def _tied_pairs(sites: tuple[LinearSite, ...], pairs: tuple[Roles, ...]) -> list[SiteGroup]:
    """Pairs of one block whose second site has the transposed shape of the first."""
    found = {(_stack(site), site.block, site.role): site for site in sites}
    groups = []
    for (stack, block, role), first in found.items():
        for wanted, other in pairs:
            if not f".{role}".endswith(f".{wanted}"):  # a stage may have several blocks
                continue
            second = found.get((stack, block, role.removesuffix(wanted) + other))
            if second and (second.out_features, second.in_features) == (
                first.in_features,
                first.out_features,
            ):
                groups.append(SiteGroup(_joined([first, second]), (first, second), "tied"))
    return groups


def _stack(site: LinearSite) -> str:
    """Name the blocks that a site's block is one of: an encoder and a decoder number their own."""
    return site.name.removesuffix(f"{site.block}.{site.role}")


def _joined(sites: list[LinearSite]) -> str:
    """Name a group by what its sites' names do not share: ``layers.0.mlp.gate_proj+up_proj``."""
    names = [site.name.split(".") for site in sites]
    parts = [
        same[0] if len(set(same)) == 1 else "+".join(same) for same in zip(*names, strict=False)
    ]
    return (
        ".".join(parts)
        if len({len(name) for name in names}) == 1
        else "+".join(site.name for site in sites)
    )


def weight_of(model: LoadedModel, name: str) -> Tensor:
    """The weight ``(out_features, in_features)`` of a site, by name; or the token table."""
    linear = model.module.get_submodule(name)
    assert isinstance(linear, (nn.Linear, nn.Conv2d, nn.Embedding))
    return matrix_of(linear)


def singular_values(model: LoadedModel, name: str) -> NDArray[np.float64]:
    """Compute the singular values of a site's weight, descending."""
    values: NDArray[np.float64] = torch.linalg.svdvals(weight_of(model, name).double()).numpy()
    return values


def _is_ours(name: str, module: AnyLinear, model: LoadedModel) -> bool:
    if name.rpartition(".")[2] in model.exporter.keep_dense:
        return False
    owners = [
        other
        for other, parameter in model.module.named_parameters(remove_duplicate=False)
        if parameter is module.weight
    ]
    return len(owners) == 1


def positions(sites: tuple[LinearSite, ...]) -> dict[str, float]:
    """Tell of every site how often it runs for each token, by name."""
    return {site.name: site.positions_per_token for site in sites}


def _site(name: str, linear: AnyLinear, input_name: str, found: SitePositions) -> LinearSite:
    block = re.search(r"\.(\d+)\.", name)
    out_features, in_features = matrix_of(linear).shape
    return LinearSite(
        name=name,
        in_features=in_features,
        out_features=out_features,
        has_bias=linear.bias is not None,
        role=name[block.end() :] if block else name,
        block=int(block[1]) if block else None,
        input_name=input_name,
        positions_per_token=found.per_token,
        reads_source=found.of_source,
        kernel=linear.kernel_size if isinstance(linear, nn.Conv2d) else (),
    )


@dataclass
class _Readings:
    """The linears that ran in one forward pass, in order.

    Attributes:
        tensors: inputs with the names of the linears that read them; holding the tensors keeps
            their addresses from being used again.
        runs: number of runs of each linear, by name.
        positions: positions of each linear; None for those that are no sites.
    """

    tensors: list[tuple[Tensor, list[str]]] = field(default_factory=list)
    runs: dict[str, int] = field(default_factory=dict)
    positions: dict[str, SitePositions | None] = field(default_factory=dict)

    def note(self, name: str, linear: nn.Module, x: Tensor, found: SitePositions | None) -> None:
        """Add a linear that read ``x``."""
        self.runs[name] = self.runs.get(name, 0) + 1
        self.positions[name] = found if self.runs[name] == 1 else None
        readers = next((names for tensor, names in self.tensors if tensor is x), None)
        if readers is None or is_convolution(linear):  # others make other patches of one tensor
            self.tensors.append((x, [name]))
        else:
            readers.append(name)

    def sites(self) -> Iterator[tuple[str, str, SitePositions]]:
        """Yield every site with the first that read the same input, and its positions."""
        fit = {name: each for name, each in self.positions.items() if each is not None}
        read = [[name for name in readers if name in fit] for _, readers in self.tensors]
        first = {name: readers[0] for readers in read for name in readers}
        for name, found in fit.items():
            yield name, first[name], found


def _read_inputs(model: LoadedModel, linears: dict[str, AnyLinear]) -> _Readings:
    """Run once and note, in order, which linear first read each distinct input tensor.

    Left out are those that run again, or on something else than the tokens, as DeBERTa's do on
    its relative positions: a Gram of their inputs would not tell what an error costs.
    """
    found, loss = _Readings(), loss_of(model)
    given = model.example_inputs(PROBE_ROWS, PROBE_TOKENS)

    def note(name: str, x: Tensor, output: Tensor) -> None:
        shape = features_last(linears[name], output).shape[:-1]
        found.note(name, linears[name], x, loss.positions(model, given, shape))

    hooks: list[RemovableHandle] = [
        linear.register_forward_hook(lambda _, args, output, name=name: note(name, args[0], output))
        for name, linear in linears.items()
    ]
    try:
        with torch.no_grad():
            model.module(**given)
    finally:
        for hook in hooks:
            hook.remove()
    return found
