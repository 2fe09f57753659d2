"""MobileNetV2: inverted residual blocks, whose pointwise convolutions hold most of the weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgelr.model.exporter import EXPORTERS

from .resnet import RESNET

if TYPE_CHECKING:
    from transformers import MobileNetV2Config


def tiny_mobilenet_v2() -> MobileNetV2Config:
    """Configure a quarter of the channels, and dilated last blocks: a small image keeps 9 cells."""
    from transformers import MobileNetV2Config

    return MobileNetV2Config(depth_multiplier=0.25, output_stride=8, finegrained_output=False)


def second_block(config: Any) -> dict[str, Any]:
    """Return the sizes of the largest activation: the first expansion, at half resolution."""
    width = max(config.min_depth, round(16 * config.depth_multiplier))
    return {
        "layers": 17,
        "hidden_size": width,
        "intermediate_size": round(config.expand_ratio * width),
        "attention_heads": 0,
        "head_size": 0,
        "positions_per_token": (config.output_stride / 2) ** 2,
    }


MOBILENET_V2 = replace(
    RESNET,
    model_types=("mobilenet_v2",),
    tiny_config=tiny_mobilenet_v2,
    shape=second_block,
)
EXPORTERS.register("mobilenet_v2")(MOBILENET_V2)
