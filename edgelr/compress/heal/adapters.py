"""Updates of matrices through peft: LoRA, LoHa and LoKr. The only module that imports peft."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edgelr.core.errors import EnvironmentProblem
from edgelr.core.vocabulary import Adapter

RANK = 8  # peft's own default; the factors that are updated have ranks of some hundreds
NAME = "healing"


def adapted(
    factors: list[Tensor], adapter: Adapter, seed: int
) -> tuple[dict[str, nn.Parameter], Callable[[], list[Tensor]]]:
    """Give every factor ``(inputs, outputs)`` an update of few parameters, zero at first.

    Each factor is the weight of an ``nn.Linear`` without bias, and each update peft's of that
    layer: LoRA (arXiv:2106.09685), LoHa (arXiv:2108.06098) or LoKr (arXiv:2309.14859).

    Returns:
        What can be trained, by name, and a function that merges the updates, differentiably.

    Raises:
        EnvironmentProblem: peft is not installed.
    """
    layers = nn.ModuleList(_linear(factor) for factor in factors)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _inject(layers, adapter)
    parameters = {name: each for name, each in layers.named_parameters() if each.requires_grad}
    return parameters, lambda: [_merged(layer) for layer in layers]


def _linear(factor: Tensor) -> nn.Linear:
    """Make a linear that computes with ``factor``; no copy is made."""
    inputs, outputs = factor.shape
    linear = nn.Linear(inputs, outputs, bias=False, device="meta")
    linear.weight = nn.Parameter(factor.T, requires_grad=False)
    return linear


def _merged(layer: Any) -> Tensor:
    """Add the update to the factor, ``(inputs, outputs)``."""
    weight: Tensor = layer.get_base_layer().weight + layer.get_delta_weight(NAME)
    return weight.T


def _inject(layers: nn.ModuleList, adapter: Adapter) -> None:
    """Let peft wrap every layer in place."""
    try:
        import peft
    except ImportError as error:
        raise EnvironmentProblem(
            f"The adapter {adapter!r} is trained through peft, which cannot be imported ({error}). "
            f"Install it with pip install 'edgelr[heal]', or heal without an adapter."
        ) from error
    # A pattern, because peft rewrites long lists of names. LoRA has a word of its own for alpha.
    config = {"lora": peft.LoraConfig, "loha": peft.LoHaConfig, "lokr": peft.LoKrConfig}[adapter]
    alpha = {"lora_alpha" if adapter == "lora" else "alpha": 2 * RANK}
    peft.inject_adapter_in_model(config(r=RANK, target_modules=r"\d+", **alpha), layers, NAME)
