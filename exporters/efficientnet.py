"""EfficientNet: inverted residual blocks that weigh their channels by squeeze and excitation.

The layers that compute the weights run once for an image, and stay dense.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgelr.model.exporter import EXPORTERS

from .resnet import RESNET

if TYPE_CHECKING:
    from transformers import EfficientNetConfig


def tiny_efficientnet() -> EfficientNetConfig:
    """Configure four blocks with a quarter of the channels, kernels of 3 and 5, and two strides."""
    from transformers import EfficientNetConfig

    return EfficientNetConfig(
        image_size=20,
        width_coefficient=0.25,
        depth_coefficient=1.0,
        kernel_sizes=[3, 5, 3],
        in_channels=[32, 64, 96],
        out_channels=[64, 96, 160],
        strides=[1, 2, 1],
        num_block_repeats=[1, 2, 1],
        expand_ratios=[1, 3, 4],
        hidden_dim=320,
    )


def widest_block(config: Any) -> dict[str, Any]:
    """Return the sizes of the largest activation: a stage's expansion, before its stride."""
    from transformers.models.efficientnet.modeling_efficientnet import round_filters

    widths = [round_filters(config, channels) for channels in config.in_channels]
    ahead = [math.prod(config.strides[stage:]) ** 2 for stage in range(len(widths))]
    expanded = [width * each for width, each in zip(widths, config.expand_ratios, strict=True)]
    widest = max(range(len(widths)), key=lambda stage: expanded[stage] * ahead[stage])
    repeats = (config.depth_coefficient * each for each in config.num_block_repeats)
    return {
        "layers": sum(map(math.ceil, repeats)),
        "hidden_size": widths[widest],
        "intermediate_size": expanded[widest],
        "attention_heads": 0,
        "head_size": 0,
        "positions_per_token": float(ahead[widest]),
    }


EFFICIENTNET = replace(
    RESNET,
    model_types=("efficientnet",),
    tiny_config=tiny_efficientnet,
    shape=widest_block,
)
EXPORTERS.register("efficientnet")(EFFICIENTNET)
