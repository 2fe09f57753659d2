"""One calibration pass: the Gram of every distinct input, then of every output gradient.

Both Grams are running sums over batches, and each half of the pass writes its result to disk, a
block per file, before the other starts: the peak is the model, one kind of Gram, and one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from edgelr.compress.grams import add_gram, mirrored
from edgelr.compress.methods import SiteStatistics
from edgelr.core.inputs import Pair
from edgelr.core.sites import LinearSite
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import Progress
from edgelr.data import calibration as calibrations
from edgelr.model.convolutions import features_last, read_features
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import (
    as_tensors,
    backward,
    decided_tokens,
    decisions_per_row,
    named_inputs,
)
from edgelr.model.sites import positions

if TYPE_CHECKING:
    from torch import Tensor

    from edgelr.compress.methods import Need
    from edgelr.data.calibration import Calibration
    from edgelr.model.losses import Inputs

    Watch: TypeAlias = Callable[[str, nn.Module, Tensor, Tensor], None]


INPUT_BATCH_TOKENS = 1024
GRADIENT_TOKENS = 65536  # of all texts: past that, input Grams gain more from further text
GRADIENT_BATCH_TOKENS = 384  # the backward pass keeps every activation of its batch


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
        model: in float32.
        sites: the linears to watch.
        parts: calibration texts; see ``calibration.weights``. Input Grams read all of them, output
            Grams no more than ``GRADIENT_TOKENS`` tokens.
        needs: which Grams.
        folder: receives ``<kind>-<block>.safetensors``.
        seed: of the sampled labels or probes.
        progress: called with ``(stage, done, total)`` in tokens.
    """
    if "input_gram" in needs:
        grams = _input_grams(model, sites, parts, progress)
        _save_blocks(folder, "input_gram", grams, sites)
        del grams
    if "output_gradient_gram" in needs:
        generator = torch.Generator().manual_seed(seed)
        spread = calibrations.spread(parts, GRADIENT_TOKENS)
        grams = _gradient_grams(model, sites, spread, generator, progress)
        _save_blocks(folder, "output_gradient_gram", grams, sites)


@dataclass(frozen=True)
class StatisticsStore:
    """Reads back what ``collect`` wrote, one site at a time.

    Attributes:
        folders: where each kind of Gram is; kinds that no method needed have none.
        units_per_token: see ``SiteStatistics``; that of a site is one per position.
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
    pairs = list(zip(parts, calibrations.weights(parts), strict=True))
    if TASKS.get(model.task).by_row:
        texts = sum(weight * len(part.mask) / part.tokens for part, weight in pairs)
        return texts * decisions_per_row(model)
    if model.mask_token is None:
        return 1.0
    return sum(weight * _decided(model, part) / part.tokens for part, weight in pairs)


def _decided(model: LoadedModel, part: Calibration) -> int:
    """Count the tokens of a text that have a loss."""
    return int(decided_tokens(model, torch.tensor(part.inputs), torch.tensor(part.mask)).sum())


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
    real = source_real = torch.ones(0, dtype=torch.bool)  # what is no padding in the running batch
    weight = source_weight = 1.0  # of a token of the running part

    def add(name: str, x: Tensor) -> None:
        own = (source_real, source_weight) if name in of_source else (real, weight)
        for features in read_features(watched[name], x.detach()):
            add_gram(grams[name], counted_positions(features, own[0]), own[1])

    total = sum(part.tokens for part in parts)
    done = 0
    base = getattr(model.module, "base_model", model.module)  # a head's logits are not needed
    module = base if set(watched.values()) <= set(base.modules()) else model.module
    with torch.no_grad(), input_hooks(watched, add):
        for part, share in zip(parts, calibrations.weights(parts), strict=True):
            weight = share * total / part.tokens
            if of_source and isinstance(part.inputs, Pair):
                source_weight = share * total / part.source_tokens
            for inputs, mask in _batches([part], INPUT_BATCH_TOKENS):
                real = mask.bool()
                if isinstance(inputs, Pair):
                    source_real = inputs.source_mask.bool()
                elif model.prompts is not None:  # which every image of the batch is read with
                    source_real = torch.as_tensor(model.prompts.mask).bool()
                    source_weight = weight * int(mask.sum()) / int(source_real.sum())
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

    Of a pair, the mean is over the tokens that are predicted, wherever a site is: a loss is theirs.
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
    """Leave padding out of what a site reads, ``(positions, in_features)``; images have none.

    Args:
        x: ``(..., in_features)``.
        real: ``(rows, tokens)``, true where no padding is.
    """
    whole = x.shape[:-1] != real.shape or bool(real.all())  # then there is nothing to copy
    return x.flatten(0, -2) if whole else x[real]


def fisher_pass(
    model: LoadedModel,
    modules: dict[str, nn.Module],
    watch: Watch,
    parts: list[Calibration],
    generator: torch.Generator,
    what: str,
    progress: Progress,
) -> None:
    """Send gradients of the Fisher information back through every text.

    ``generator`` draws labels or probes; the other arguments are those of ``gradient_pass``.
    """

    def send(inputs: Inputs, mask: Tensor) -> None:
        backward(model, inputs, mask, generator)

    gradient_pass(model, modules, watch, parts, send, what, progress)


def gradient_pass(
    model: LoadedModel,
    modules: dict[str, nn.Module],
    watch: Watch,
    parts: list[Calibration],
    send: Callable[[Inputs, Tensor], None],
    what: str,
    progress: Progress,
) -> None:
    """Run every batch of the texts forward and back, and watch some of the modules.

    Args:
        model: in float32.
        modules: to watch, by name.
        watch: called in a forward pass that wants gradients, with ``(name, module, input,
            output)``; it may register a hook on the output, to see its gradient. What it holds on
            to is held until then.
        parts: calibration texts.
        send: runs a batch ``(inputs, mask)``.
        what: is done, for ``progress``.
        progress: called with ``(what, done, total)`` in tokens, after every batch.
    """

    def seen(name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if torch.is_grad_enabled():
            watch(name, module, args[0], output)

    handles = [
        module.register_forward_hook(partial(seen, name)) for name, module in modules.items()
    ]
    cut = TASKS.get(model.task).loss == "next_token"  # other texts are one whole
    tokens = 1 if model.prompts is not None else GRADIENT_BATCH_TOKENS  # alone with its prompts
    done, total = 0, sum(part.tokens for part in parts)
    try:
        with torch.enable_grad():
            for inputs, mask in _batches(parts, tokens, cut):
                send(inputs, mask)
                done += int(mask.sum())
                progress(what, done, total)
    finally:
        for handle in handles:
            handle.remove()


def _batches(
    parts: list[Calibration], tokens: int, cut: bool = False
) -> Iterator[tuple[Any, Tensor]]:
    """Yield inputs and mask of about ``tokens`` tokens; longer rows are whole unless ``cut``."""
    for part in parts:
        for inputs, mask in part.batches(max(1, tokens // part.length)):
            given, real = as_tensors(inputs, mask)
            if cut and not isinstance(given, Pair):
                yield from zip(given.split(tokens, 1), real.split(tokens, 1), strict=True)
            else:
                yield given, real


@contextmanager
def input_hooks(
    modules: dict[str, nn.Module], add: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Call ``add(name, input)`` whenever one of the modules runs inside the block."""
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: add(name, args[0]))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
