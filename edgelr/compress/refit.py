"""Closed-form refit: factors are solved again on the inputs that the compressed model gives them.

A site was factorized for the inputs ``x`` of the dense model; behind compressed sites it reads
other inputs ``x'``. With ``H' = E[x' x'^T]`` and ``C = E[x x'^T]`` the linear of least
``E ||W x - A x'||^2`` is ``A = W C H'^-1``, and the best factors of rank ``r`` are those of ``A``
in the metric of ``H'`` (SVD-LLM's update, Wang et al., 2024, arXiv:2403.07378; the reconstruction
of MPIFA, Zhao et al., 2025, arXiv:2501.19090). ``H = E[x x^T]`` is known already, from more tokens:
only what differs from it, ``E[x' x'^T - x x^T]`` and ``E[x (x' - x)^T]``, is measured here. Where
the two models read the same, ``A`` is ``W`` whatever the tokens.

Blocks are refitted in the order in which they run. A block keeps its new factors only if they
bring its output on held-out rows closer to the dense model's: on few tokens a refit makes it worse.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from edgelr.compress.compressed_model import multiplied
from edgelr.compress.decompose import compressed_groups, decompose_group, products
from edgelr.compress.factors import FactorSet
from edgelr.compress.gradient_pass import input_hooks
from edgelr.compress.methods.metric import damped
from edgelr.compress.methods.svd_llm import INPUT_DAMPING
from edgelr.core.errors import InputError
from edgelr.core.plan import Plan
from edgelr.core.sites import SiteGroup
from edgelr.core.vocabulary import Progress
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import loss_of, named_inputs
from edgelr.model.sites import weight_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgelr.compress.methods import Method
    from edgelr.compress.statistics import StatisticsStore
    from edgelr.data.calibration import Calibration

BATCH_TOKENS = 2048


@dataclass(frozen=True)
class FactorSource:
    """Origin of factors.

    Attributes:
        plan: ranks and groups.
        groups: groups of the plan's sites; those that span blocks, or are tied, stay as they are.
        statistics: Grams of the sites; those of the output gradients weigh the errors.
        method: method of the factorization.
    """

    plan: Plan
    groups: list[SiteGroup]
    statistics: StatisticsStore
    method: Method


@dataclass
class _Batch:
    """Rows on their way through the blocks, in the dense and in the compressed model."""

    dense: Tensor  # (rows, tokens, hidden), behind the last block that ran
    compressed: Tensor
    entered: Tensor  # input of that block's compressed copy
    real: Tensor  # (rows, tokens): true where there is no padding
    args: tuple[Any, ...]  # further arguments of every block
    options: dict[str, Any]


@dataclass
class _Moments:
    """Sums over tokens of ``x' x'^T - x x^T`` and of ``x (x' - x)^T``, by distinct input."""

    tokens: int = 0
    input_shift: dict[str, Tensor] = field(default_factory=dict)
    cross_shift: dict[str, Tensor] = field(default_factory=dict)

    def add(self, dense: dict[str, Tensor], compressed: dict[str, Tensor], real: Tensor) -> None:
        """Add one batch; values are ``(rows, tokens, in_features)``."""
        self.tokens += int(real.sum())
        for name, given in compressed.items():
            wanted = dense[name][real]
            shift = given[real] - wanted
            cross = (wanted.T @ shift).double()
            inputs = cross + cross.T + (shift.T @ shift).double()
            for sums, product in ((self.input_shift, inputs), (self.cross_shift, cross)):
                sums[name] = sums[name] + product if name in sums else product


@dataclass(frozen=True)
class Refitted:
    """All factors, changed or not, and the number of blocks in which new ones were kept."""

    factors: FactorSet
    kept_blocks: int
    blocks: int


@torch.no_grad()
def refit(
    model: LoadedModel,
    source: FactorSource,
    factors: FactorSet,
    calibration: list[Calibration],
    held_out: Calibration,
    progress: Progress,
) -> Refitted:
    """Refit the factors of every block, where that helps on held-out rows.

    Args:
        model: dense model.
        source: plan, statistics and method that the factors come from.
        factors: products, as ``truncate`` makes them.
        calibration: rows to refit on.
        held_out: rows to judge on.
        progress: function of ``("refit", blocks done, blocks)``.

    Raises:
        InputError: the model is not made of blocks that follow each other, of one size.
    """
    found, kept = dict(factors), 0
    blocks = _blocks(source)
    first = next(iter(blocks))
    batches = [batch for part in calibration for batch in _enter(model, first, part)]
    judged = list(_enter(model, first, held_out))
    for done, (name, members) in enumerate(blocks.items(), start=1):
        block = _Block(model, name, [site.input_name for group in members for site in group.sites])
        old = {key: each for key, each in found.items() if key.startswith(f"{name}.")}
        moments = block.advance(batches, old)
        block.advance(judged, old)
        made = {**old, **_refitted(model, source, members, moments)}
        before, after = block.errors(judged, made)
        if after < before:
            kept += 1
            found.update(made)
            block.repeat(batches, made)
            block.repeat(judged, made)
        progress("refit", done, len(blocks))
    return Refitted(found, kept, len(blocks))


class _Block:
    """One block, run with its dense weights and with factors."""

    def __init__(self, model: LoadedModel, name: str, inputs: list[str]) -> None:
        self.root = model.module
        self.module = model.module.get_submodule(name)
        self.inputs = {name: model.module.get_submodule(name) for name in inputs}

    def advance(self, batches: list[_Batch], factors: FactorSet) -> _Moments:
        """Run both copies on; return the moments of the inputs of their sites."""
        moments = _Moments()
        for batch in batches:
            dense: dict[str, Tensor] = {}
            compressed: dict[str, Tensor] = {}
            with input_hooks(self.inputs, dense.__setitem__):
                output = self._run(batch, batch.dense)
            batch.entered = batch.compressed
            with (
                input_hooks(self.inputs, compressed.__setitem__),
                multiplied(self.root, factors),
            ):
                batch.compressed = self._run(batch, batch.entered)
            batch.dense = output
            moments.add(dense, compressed, batch.real)
        return moments

    def repeat(self, batches: list[_Batch], factors: FactorSet) -> None:
        """Run the compressed copy again, with other factors."""
        with multiplied(self.root, factors):
            for batch in batches:
                batch.compressed = self._run(batch, batch.entered)

    def errors(self, batches: list[_Batch], factors: FactorSet) -> tuple[float, float]:
        """Squared distance to the dense output, as it is and with other factors."""
        before = after = 0.0
        with multiplied(self.root, factors):
            for batch in batches:
                target = batch.dense[batch.real]
                before += float((batch.compressed[batch.real] - target).square().sum())
                other = self._run(batch, batch.entered)[batch.real]
                after += float((other - target).square().sum())
        return before, after

    def _run(self, batch: _Batch, hidden: Tensor) -> Tensor:
        output = self.module(hidden, *batch.args, **batch.options)
        result: Tensor = output[0] if isinstance(output, tuple) else output
        return result


def _refitted(
    model: LoadedModel, source: FactorSource, groups: list[SiteGroup], moments: _Moments
) -> FactorSet:
    """Solve the linears again, and factorize them at the ranks of the plan."""
    planned, statistics = compressed_groups(source.plan), source.statistics
    found: FactorSet = {}
    for group in groups:
        first = group.sites[0]
        known = statistics.of(first).input_gram
        assert known is not None  # recipes.py refuses a refit to methods that do not look at inputs
        grams = _shifted(moments, first.input_name, damped(known, INPUT_DAMPING))
        if grams is None:
            continue
        input_gram, cross_gram = grams
        weights, given = [], []
        for site in group.sites:
            weight = weight_of(model, site.name).double()
            weights.append(torch.linalg.solve(input_gram, (weight @ cross_gram).T).T)
            given.append(replace(statistics.of(site), input_gram=input_gram))
        result = decompose_group(group, weights, given, source.method)
        found.update(products(result, group.name, planned[group.name]))
    return found


def _shifted(moments: _Moments, name: str, known: Tensor) -> tuple[Tensor, Tensor] | None:
    """``H'`` and ``C``, or None where there are too few tokens for a positive definite ``H'``."""
    inputs = known + moments.input_shift[name] / moments.tokens
    if torch.linalg.cholesky_ex(inputs).info:
        return None
    return inputs, known + moments.cross_shift[name] / moments.tokens


def _blocks(source: FactorSource) -> dict[str, list[SiteGroup]]:
    """Groups that can be refitted, by the block that they lie in, in running order."""
    chosen = compressed_groups(source.plan)
    blocks: dict[str, list[SiteGroup]] = {}
    for group in source.groups:
        first = group.sites[0]
        if first.block is not None:
            members = blocks.setdefault(first.name.removesuffix(f".{first.role}"), [])
            if group.name in chosen and group.kind in ("one", "input"):
                members.append(group)
    if not blocks:
        raise InputError(
            "No linear lies in a numbered block, and a refit goes block by block. Expected a model "
            "of blocks that follow each other: choose a recipe without a refit."
        )
    sites = (site for group in source.groups for site in group.sites)
    staged = [each.name for each in sites if each.kernel or each.positions_per_token != 1]
    if staged:
        raise InputError(
            f"{len(staged)} linears are convolutions, or run on windows or at another resolution "
            f"({staged[0]}), and a refit goes through blocks of one size. Choose a recipe without "
            f"a refit."
        )
    return dict(sorted(blocks.items(), key=lambda item: int(item[0].rpartition(".")[2])))


class _Reached(Exception):
    """The first block was called: the rest of the model need not run."""


def _enter(model: LoadedModel, first: str, rows: Calibration) -> Iterator[_Batch]:
    """Run the model up to its first block, and keep the arguments of that call."""
    caught: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def catch(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        caught.append((args, options))
        raise _Reached

    block = model.module.get_submodule(first)
    uncached = loss_of(model).options  # a cache would keep the keys of one run for the next
    for inputs, mask in rows.batches(max(1, BATCH_TOKENS // rows.length)):
        given = named_inputs(model, torch.tensor(inputs), torch.tensor(mask))
        handle = block.register_forward_pre_hook(catch, with_kwargs=True)
        try:
            with suppress(_Reached):
                model.module(**given, **uncached)
        finally:
            handle.remove()
        (hidden, *args), options = caught.pop()
        yield _Batch(hidden, hidden, hidden, torch.tensor(mask).bool(), tuple(args), options)
