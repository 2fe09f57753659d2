"""Passes over calibration texts: batches run forward and back, while some modules are watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn

from edgelr.core.vocabulary import Progress
from edgelr.model.losses import as_tensors, backward, loss_of

if TYPE_CHECKING:
    from torch import Tensor

    from edgelr.data.calibration import Calibration
    from edgelr.model.loaded import LoadedModel
    from edgelr.model.losses import Inputs

    WatchModule: TypeAlias = Callable[[str, nn.Module, Tensor, Tensor], None]

GRADIENT_BATCH_TOKENS = 384  # the backward pass keeps every activation of its batch


def fisher_pass(
    model: LoadedModel,
    modules: dict[str, nn.Module],
    watch: WatchModule,
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
    watch: WatchModule,
    parts: list[Calibration],
    send: Callable[[Inputs, Tensor], None],
    what: str,
    progress: Progress,
) -> None:
    """Run every batch of the texts forward and back, and watch some of the modules.

    Args:
        model: model in float32.
        modules: watched modules, by name.
        watch: function of ``(name, module, input, output)``, called in a forward pass that wants
            gradients. It may register a hook on the output, to see its gradient; references kept by
            the hook stay alive until the backward pass ends.
        parts: calibration texts.
        send: function that runs a batch ``(inputs, mask)``.
        what: name of the work, for ``progress``.
        progress: function of ``(what, done, total)`` in tokens, called after every batch.
    """
    loss, done, total = loss_of(model), 0, sum(part.tokens for part in parts)
    tokens = 1 if loss.reads_prompts else GRADIENT_BATCH_TOKENS
    with _output_hooks(modules, watch), torch.enable_grad():
        for inputs, mask in batches(parts, tokens, loss.cuts_rows):
            send(inputs, mask)
            done += int(mask.sum())
            progress(what, done, total)


def batches(
    parts: list[Calibration], tokens: int, cut: bool = False
) -> Iterator[tuple[Inputs, Tensor]]:
    """Yield inputs and mask of about ``tokens`` tokens; longer rows are whole unless ``cut``."""
    for part in parts:
        for inputs, mask in part.batches(max(1, tokens // part.length)):
            given, real = as_tensors(inputs, mask)
            if cut:
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


@contextmanager
def _output_hooks(modules: dict[str, nn.Module], watch: WatchModule) -> Iterator[None]:
    """Call ``watch`` whenever one of the modules runs inside the block and gradients are wanted."""

    def seen(name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if torch.is_grad_enabled():
            watch(name, module, args[0], output)

    handles = [
        module.register_forward_hook(partial(seen, name)) for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
