"""Convolutions as linears: their inputs are the patches around every position.

A kernel ``(out, in, height, width)`` is the weight ``(out, in * height * width)`` of a linear that
runs at every position of its output. Its factors are two convolutions: the first, with ``rank``
channels, at the same positions; the second is pointwise, with the bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


def is_convolution(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tell whether a module is a convolution that can be factorized.

    One in groups has a small matrix for every group. Around the image there have to be zeros, as
    many on both sides.
    """
    return (
        isinstance(module, nn.Conv2d)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and (module.padding != "same" or not any(reach % 2 for reach in _reach(module)))
    )


def _reach(module: nn.Conv2d) -> tuple[int, ...]:
    """Positions of a kernel beyond its first, along height and width."""
    return tuple(
        step * (size - 1) for step, size in zip(module.dilation, module.kernel_size, strict=True)
    )


def _padding(module: nn.Conv2d) -> tuple[int, ...]:
    """Zeros on each side, along height and width."""
    if module.padding == "same":
        return tuple(reach // 2 for reach in _reach(module))
    return (0, 0) if isinstance(module.padding, str) else module.padding


def matrix_of(module: nn.Linear | nn.Conv2d | nn.Embedding) -> Tensor:
    """The weight as a matrix, ``(out_features, in_features)``."""
    return module.weight.detach().flatten(1)


def read_features(module: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """Yield the inputs of a linear, ``(..., in_features)``: of patches, an image at a time.

    Args:
        module: linear, or convolution.
        x: input of the module.
    """
    if not is_convolution(module):
        yield x
        return
    for image in x.split(1):
        patches = functional.unfold(
            image, module.kernel_size, module.dilation, _padding(module), module.stride
        )
        yield patches.mT  # (1, positions, in_features)


def features_last(module: nn.Module, y: Tensor) -> Tensor:
    """Bring an output, or its gradient, to ``(..., out_features)``."""
    return y.flatten(2).mT if is_convolution(module) else y


def first_product(module: nn.Module, x: Tensor, down: Tensor) -> Tensor:
    """Multiply the inputs of a linear with ``down (in_features, rank)``, ``(..., rank)``."""
    if not is_convolution(module):
        return x @ down
    return features_last(module, convolved(module, x, down))


def convolved(module: nn.Conv2d, x: Tensor, down: Tensor) -> Tensor:
    """Run the first of two convolutions, ``(images, rank, height, width)``."""
    kernel = down.T.unflatten(1, (module.in_channels, *module.kernel_size))
    return functional.conv2d(x, kernel, None, module.stride, _padding(module), module.dilation)


def fold_normalizations(module: nn.Module, example: dict[str, Tensor]) -> None:
    """Fold every normalization by fixed statistics into the convolution before it, in place.

    Tracing folds them into the graph: torch has to compute with the same weights.

    Args:
        module: module in evaluation mode.
        example: arguments of a forward pass, to see which normalization follows which convolution.
    """
    made: list[tuple[Tensor, str]] = []  # holds the tensors, so that no address is reused
    pairs: dict[str, str] = {}

    def note(name: str, each: nn.Module, x: Tensor, y: Tensor) -> None:
        if isinstance(each, nn.Conv2d):
            made.append((y, name))
        else:
            pairs.update((name, conv) for output, conv in made if output is x)

    handles = [
        each.register_forward_hook(lambda m, args, y, name=name: note(name, m, args[0], y))
        for name, each in module.named_modules()
        if isinstance(each, (nn.Conv2d, nn.BatchNorm2d))
    ]
    try:
        with torch.no_grad():
            module(**example)
    finally:
        for handle in handles:
            handle.remove()
    for name, conv_name in pairs.items():
        conv, norm = module.get_submodule(conv_name), module.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        fused = fuse_conv_bn_eval(conv, norm)
        conv.weight, conv.bias = fused.weight, fused.bias
        module.set_submodule(name, nn.Identity().eval())
