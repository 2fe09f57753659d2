"""One calibration pass: the Gram of every distinct input, then of every output gradient.

Both Grams are running sums over batches, and each half of the pass writes its result to disk, a
block per file, before the other starts: the peak is the model, one kind of Gram, and one batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from edgelr.compress.gradient_pass import batches, fisher_pass, input_hooks
from edgelr.compress.grams import add_gram, mirrored
from edgelr.compress.methods import SiteStatistics
from edgelr.core.sites import LinearSite
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import Progress
from edgelr.data.calibration import spread, weights
from edgelr.model.convolutions import features_last, read_features
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import (
    as_tensors,
    decided_tokens,
    decisions_per_row,
    loss_of,
    named_inputs,
)
from edgelr.model.sites import positions

if TYPE_CHECKING:
    from torch import Tensor

    from edgelr.compress.methods import Need
    from edgelr.data.calibration import Calibration

INPUT_BATCH_TOKENS = 1024
GRADIENT_TOKENS = 65536  # of all texts: past that, input Grams gain more from further text


def collect(
    model: LoadedModel,
    sites: tuple[LinearSite, ...],
    parts: list[Calibration],
    needs: frozenset[Need],
    folder: Path,
    seed: int,
    progress: Progress,
) -> None:
    """Write the statistics that a recipe needs into ``folder``.

    Args:
        model: model in float32.
        sites: watched linears.
        parts: calibration texts; see ``calibration.weights``. Input Grams read all of them, output
            Grams no more than ``GRADIENT_TOKENS`` tokens.
        needs: kinds of Grams.
        folder: folder that receives ``<kind>-<block>.safetensors``.
        seed: random seed of the sampled labels or probes.
        progress: function of ``(stage, done, total)`` in tokens.
    """
    if "input_gram" in needs:
        grams = _input_grams(model, sites, parts, progress)
        _save_blocks(folder, "input_gram", grams, sites)
        del grams
    if "output_gradient_gram" in needs:
        generator = torch.Generator().manual_seed(seed)
        few = spread(parts, GRADIENT_TOKENS)
        grams = _gradient_grams(model, sites, few, generator, progress)
        _save_blocks(folder, "output_gradient_gram", grams, sites)


@dataclass(frozen=True)
class StatisticsStore:
    """Reads the statistics that ``collect`` wrote, one site at a time.

    Attributes:
        folders: folder of each kind of Gram; kinds that no method needed have none.
        units_per_token: losses per token, see ``SiteStatistics``; of a site, per position.
    """

    folders: Mapping[Need, Path]
    units_per_token: float

    def of(self, site: LinearSite) -> SiteStatistics:
        """Load the Grams of one site."""
        return SiteStatistics(
            self._read("input_gram", site.input_name, site),
            self._read("output_gradient_gram", site.name, site),
            self.units_per_token / site.positions_per_token,
        )

    def _read(self, kind: Need, key: str, site: LinearSite) -> Tensor | None:
        if kind not in self.folders:
            return None
        with safe_open(_block_file(self.folders[kind], kind, site), framework="pt") as file:
            tensor: Tensor = file.get_tensor(key)
            return tensor


def units_per_token(model: LoadedModel, parts: list[Calibration]) -> float:
    """Losses per token: one, the share that is masked, or those of a text divided by its tokens."""
    traits = TASKS.get(model.task)
    weighted = list(zip(parts, weights(parts), strict=True))
    if traits.by_row:
        texts = sum(weight * len(part.mask) / part.tokens for part, weight in weighted)
        return texts * decisions_per_row(model)
    if traits.loss != "mask_label":
        return 1.0
    return sum(weight * _decided(model, part) / part.tokens for part, weight in weighted)


def _decided(model: LoadedModel, part: Calibration) -> int:
    """Count the tokens of a text that have a loss."""
    return int(decided_tokens(model, *as_tensors(part.inputs, part.mask)).sum())


def _block_file(folder: Path, kind: str, site: LinearSite) -> Path:
    return folder / f"{kind}-{'rest' if site.block is None else site.block}.safetensors"


def _save_blocks(
    folder: Path, kind: str, grams: dict[str, Tensor], sites: tuple[LinearSite, ...]
) -> None:
    files: dict[Path, dict[str, Tensor]] = {}
    for site in sites:
        key = site.input_name if kind == "input_gram" else site.name
        files.setdefault(_block_file(folder, kind, site), {})[key] = grams[key]
    for path, tensors in files.items():
        save_file(tensors, path)


def _input_grams(
    model: LoadedModel,
    sites: tuple[LinearSite, ...],
    parts: list[Calibration],
    progress: Progress,
) -> dict[str, Tensor]:
    """Mean of ``x x^T`` for every distinct input, ``{input_name: (in, in)}``."""
    grams = {site.input_name: torch.zeros(site.in_features, site.in_features) for site in sites}
    of_source = {site.input_name for site in sites if site.reads_source}
    watched = {name: model.module.get_submodule(name) for name in grams}
    counted: dict[bool, tuple[Tensor, float]] = {}  # real positions, of sources too; their weights

    def add(name: str, x: Tensor) -> None:
        real, weight = counted[name in of_source]
        for features in read_features(watched[name], x.detach()):
            add_gram(grams[name], counted_positions(features, real), weight)

    done, total = 0, sum(part.tokens for part in parts)
    base = getattr(model.module, "base_model", model.module)  # a head's logits are not needed
    module = base if set(watched.values()) <= set(base.modules()) else model.module
    with torch.no_grad(), input_hooks(watched, add):
        for part, share in zip(parts, weights(parts), strict=True):
            for inputs, mask in batches([part], INPUT_BATCH_TOKENS):
                weight = share * total / part.tokens
                counted = {False: (mask.bool(), weight)}
                source = loss_of(model).source(model, part, inputs, mask)
                if source is not None:
                    counted[True] = (source.real, weight * source.tokens)
                module(**named_inputs(model, inputs, mask))
                done += int(mask.sum())
                progress("input statistics", done, total)
    often = positions(sites)
    return {name: mirrored(gram) / (total * often[name]) for name, gram in grams.items()}


def _gradient_grams(
    model: LoadedModel,
    sites: tuple[LinearSite, ...],
    parts: list[Calibration],
    generator: torch.Generator,
    progress: Progress,
) -> dict[str, Tensor]:
    """Mean of ``g g^T`` for every site, ``{site: (out, out)}``; padding has no gradient.

    Of an encoder-decoder, the mean is over the tokens that are predicted, wherever a site is: a
    loss is theirs.
    """
    grams = {site.name: torch.zeros(site.out_features, site.out_features) for site in sites}
    watched = {name: model.module.get_submodule(name) for name in grams}

    def add(name: str, gradient: Tensor) -> None:
        flat = features_last(watched[name], gradient).flatten(0, -2)  # (positions, out)
        add_gram(grams[name], flat)

    def watch(name: str, _module: nn.Module, _x: Tensor, output: Tensor) -> None:
        output.register_hook(lambda gradient: add(name, gradient))

    fisher_pass(model, watched, watch, parts, generator, "gradient statistics", progress)
    total = sum(part.tokens for part in parts)
    often = positions(sites)
    return {name: mirrored(gram) / (total * often[name]) for name, gram in grams.items()}


def counted_positions(x: Tensor, real: Tensor) -> Tensor:
    """Leave padding out of the input of a site, ``(positions, in_features)``; images have none.

    Args:
        x: input of the site, ``(..., in_features)``.
        real: mask, true where there is no padding, ``(rows, tokens)``.
    """
    whole = x.shape[:-1] != real.shape or bool(real.all())  # then there is nothing to copy
    return x.flatten(0, -2) if whole else x[real]
