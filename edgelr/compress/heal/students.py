"""Factors as a function of trained parameters: the factors themselves, or updates of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgelr.compress.factors import FactorSet, LowRank, Pivoted
from edgelr.compress.heal.adapters import adapted

if TYPE_CHECKING:
    from edgelr.compress.heal.values import Healing
    from edgelr.core.vocabulary import Adapter

COMMON = ("down", "weight")  # fields that the sites of a group have in common


@dataclass(frozen=True)
class Student:
    """Factors that learn.

    Attributes:
        parameters: leaf tensors by name, for an optimizer; empty where nothing can be trained.
        factors: function that computes the factors of all sites from them, differentiably.
    """

    parameters: dict[str, nn.Parameter]
    factors: Callable[[], FactorSet]

    def graduate(self) -> FactorSet:
        """Detach the factors as they stand; sites of a group share one tensor."""
        learned = self.factors()  # held until the end, so that no id is used twice
        plain: dict[int, Tensor] = {}
        return _mapped(
            learned,
            lambda _name, _field, tensor: plain.setdefault(
                id(tensor), tensor.detach().contiguous()
            ),
        )


def student_of(given: FactorSet, asked: Healing) -> Student:
    """Make the factors that are asked for trainable; the others stay as they are.

    Raises:
        EnvironmentProblem: an adapter was asked for, and peft is not installed.
    """
    assert not any(isinstance(each, Pivoted) for each in given.values())
    names = set(given) if asked.sites == "all" else low_rank_sites(given)
    if asked.adapter is None:
        return _trained_itself(given, names)
    return _trained_by_updates(given, names, asked.adapter, asked.seed)


def low_rank_sites(factors: FactorSet) -> set[str]:
    """Name the sites whose rank is at most half of the full rank (LRCs, arXiv:2407.11239).

    Sites that share a basis are one matrix, with their outputs side by side.
    """
    products = {name: each for name, each in factors.items() if isinstance(each, LowRank)}
    outputs: dict[str, int] = {}
    for name, each in products.items():
        owner = each.shared or name
        outputs[owner] = outputs.get(owner, 0) + each.up.shape[1]
    return {
        name
        for name, each in products.items()
        if 2 * len(each.up) <= min(len(each.down), outputs[each.shared or name])
    }


def _trained_itself(given: FactorSet, names: set[str]) -> Student:
    """Train the factors themselves; the shared factor of a group is one parameter."""
    parameters: dict[str, nn.Parameter] = {}

    def leaf(name: str, field: str, tensor: Tensor) -> Tensor:
        if name not in names:
            return tensor
        owner = _group(given, name, field) or name
        return parameters.setdefault(f"{owner}.{field}", nn.Parameter(_copy(tensor)))

    learned = _mapped(given, leaf)
    return Student(parameters, lambda: learned)


def _trained_by_updates(given: FactorSet, names: set[str], adapter: Adapter, seed: int) -> Student:
    """Train an update of every factor that one site alone has.

    Updates are merged for every step: what is evaluated is what will be exported.
    """
    places: dict[tuple[str, str], Tensor] = {
        (name, field): getattr(given[name], field)
        for name in given
        if name in names and isinstance(given[name], LowRank)
        for field in ("down", "up")
        if _group(given, name, field) is None
    }
    if not places:
        return Student({}, lambda: given)
    parameters, merge = adapted(list(places.values()), adapter, seed)

    def factors() -> FactorSet:
        merged = dict(zip(places, merge(), strict=True))
        return _mapped(given, lambda name, field, tensor: merged.get((name, field), tensor))

    return Student(parameters, factors)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def _group(given: FactorSet, name: str, field: str) -> str | None:
    """Name the group whose sites have this field in common; None where the site is alone."""
    return getattr(given[name], "shared", None) if field in COMMON else None


def _mapped(given: FactorSet, change: Callable[[str, str, Tensor], Tensor]) -> FactorSet:
    """Replace every tensor by ``change(site, field, tensor)``."""
    made: FactorSet = {}
    for name, factors in given.items():
        values = {field.name: getattr(factors, field.name) for field in fields(factors)}
        changed: dict[str, Any] = {
            field: change(name, field, value)
            for field, value in values.items()
            if isinstance(value, Tensor)
        }
        made[name] = replace(factors, **changed)
    return made
