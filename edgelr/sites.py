"""Find the linears that may be factorized, and which of them read the same input."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgelr.errors import InputError
from edgelr.types import Grouping, LinearSite, LoadedModel, SiteGroup

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.hooks import RemovableHandle

PROBE_TOKENS = 8


def find_sites(model: LoadedModel) -> tuple[LinearSite, ...]:
    """List the factorizable linears in the order in which one forward pass runs them.

    A site is an ``nn.Linear`` that the pass reaches, whose weight nobody else uses (a tied head
    is not ours to split) and which the family does not keep dense. Sites that were handed the
    very same tensor share an ``input_name``: that of the first of them.

    Raises:
        InputError: nothing is left to factorize.
    """
    linears = {
        name: module
        for name, module in model.module.named_modules()
        if isinstance(module, nn.Linear) and _is_ours(name, module, model)
    }
    readers = _input_names(model, linears)
    if not readers:
        raise InputError(
            f"{model.source} has no linear that can be factorized: of its modules, none is an "
            f"nn.Linear with a weight of its own that runs (kept dense by its family: "
            f"{', '.join(model.exporter.keep_dense) or 'none'}). Nothing was written."
        )
    return tuple(_site(name, linears[name], input_name) for name, input_name in readers.items())


def find_groups(sites: tuple[LinearSite, ...], grouping: Grouping = "one") -> list[SiteGroup]:
    """Form the groups that are factorized together; ``one`` leaves every site alone."""
    assert grouping == "one"
    return [SiteGroup(site.name, (site,)) for site in sites]


def weight_of(model: LoadedModel, name: str) -> Tensor:
    """The weight ``(out_features, in_features)`` of a site, by name."""
    linear = model.module.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    return linear.weight.detach()


def _is_ours(name: str, module: nn.Linear, model: LoadedModel) -> bool:
    if name.rpartition(".")[2] in model.exporter.keep_dense:
        return False
    owners = [
        other
        for other, parameter in model.module.named_parameters(remove_duplicate=False)
        if parameter is module.weight
    ]
    return len(owners) == 1


def _site(name: str, linear: nn.Linear, input_name: str) -> LinearSite:
    block = re.search(r"\.(\d+)\.", name)
    return LinearSite(
        name=name,
        in_features=linear.in_features,
        out_features=linear.out_features,
        has_bias=linear.bias is not None,
        role=name[block.end() :] if block else name,
        block=int(block[1]) if block else None,
        input_name=input_name,
    )


def _input_names(model: LoadedModel, linears: dict[str, nn.Linear]) -> dict[str, str]:
    """Run once and note, in order, which linear first read each distinct input tensor."""
    readers: dict[str, str] = {}
    seen: list[tuple[Tensor, str]] = []  # holds the tensors, so that no address is reused

    def note(name: str, x: Tensor) -> None:
        for tensor, first in seen:
            if tensor is x:
                readers[name] = first
                return
        seen.append((x, name))
        readers[name] = name

    hooks: list[RemovableHandle] = [
        linear.register_forward_pre_hook(lambda _, args, name=name: note(name, args[0]))
        for name, linear in linears.items()
    ]
    try:
        with torch.no_grad():
            inputs = model.exporter.example_inputs(model.module.config, 2, PROBE_TOKENS)
            model.module(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return readers
