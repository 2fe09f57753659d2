"""DINOv2, with or without registers: embeddings of images that were learned without labels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgelr.model.exporter import EXPORTERS

from .vit import VIT, tiny_image_sizes

if TYPE_CHECKING:
    from transformers import Dinov2Config


def tiny_dinov2() -> Dinov2Config:
    """Configure positions of more patches than an image has, so that they are interpolated."""
    from transformers import Dinov2Config

    sizes = tiny_image_sizes(mlp_ratio=2, image_size=28)
    del sizes["intermediate_size"]
    return Dinov2Config(**sizes)


def feed_forward_width(config: Any) -> int:
    """Compute the feed-forward width; that of SwiGLU is two thirds, as a multiple of 8."""
    width = int(config.hidden_size * config.mlp_ratio)
    return (int(width * 2 / 3) + 7) // 8 * 8 if config.use_swiglu_ffn else width


DINOV2 = replace(
    VIT,
    model_types=("dinov2", "dinov2_with_registers"),
    tiny_config=tiny_dinov2,
    intermediate_size=feed_forward_width,
    load_options=(),  # its pooler has no weights
)
EXPORTERS.register("dinov2")(DINOV2)
