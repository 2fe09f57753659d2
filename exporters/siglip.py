"""SigLIP: like CLIP, but every text has one length, and attention pools the patches of an image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgelr.model.exporter import EXPORTERS

from .clip import CLIP, tiny_towers
from .tracing.towers import images_and_prompts, trace_towers_with_transformers

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import SiglipConfig


def tiny_siglip() -> SiglipConfig:
    """Configure text embeddings of the vision tower's size."""
    from transformers import SiglipConfig

    sizes: dict[str, Any] = tiny_towers(projection_size=48)
    return SiglipConfig(**sizes)


def without_padding(config: Any, batch: int, side: int) -> dict[str, Tensor]:
    """Make pixels and prompts without a mask: padding is read like any other token."""
    inputs = images_and_prompts(config, batch, side)
    del inputs["attention_mask"]
    return inputs


SIGLIP = replace(
    CLIP,
    model_types=("siglip",),
    trace=trace_towers_with_transformers("pooler_output", "pooler_output"),
    example_inputs=without_padding,
    tiny_config=tiny_siglip,
    keep_dense=("head",),
    pads_texts=True,
)
EXPORTERS.register("siglip")(SIGLIP)
