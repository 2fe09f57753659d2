"""CLIP: a causal transformer of texts and a vision transformer, trained to agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgelr.model.exporter import EXPORTERS, Exporter

from .bert import tiny_sizes
from .tracing.routes import fuse_with_transformers
from .tracing.towers import (
    images_and_prompts,
    trace_towers_with_transformers,
    vision_sizes,
)
from .vit import tiny_image_sizes

if TYPE_CHECKING:
    from transformers import CLIPConfig


def tiny_towers(**text_changes: Any) -> dict[str, dict[str, Any]]:
    """Return sizes of two blocks in each tower, distinct on every axis."""
    texts = {"hidden_size": 56, "intermediate_size": 88, "num_attention_heads": 7}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    sizes = {**texts, **special, "max_position_embeddings": 30, **text_changes}
    return {"text_config": tiny_sizes(**sizes), "vision_config": tiny_image_sizes()}


def tiny_clip() -> CLIPConfig:
    """Configure embeddings of a third size, beside those of the two towers."""
    from transformers import CLIPConfig

    sizes: dict[str, Any] = tiny_towers()
    return CLIPConfig(**sizes, projection_dim=40)


CLIP = Exporter(
    model_types=("clip",),
    tasks=("zero-shot-image-classification",),
    trace=trace_towers_with_transformers("text_embeds", "image_embeds"),
    fuse=fuse_with_transformers,
    example_inputs=images_and_prompts,
    tiny_config=tiny_clip,
    keep_dense=("text_projection", "visual_projection"),
    tied_pairs=(("mlp.fc1", "mlp.fc2"),),
    shape=vision_sizes,
)
EXPORTERS.register("clip")(CLIP)
