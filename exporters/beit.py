"""BEiT: vision transformers with relative positions, whose labels are read from all patches."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .vit import VIT, tiny_image_sizes

if TYPE_CHECKING:
    from transformers import BeitConfig


def tiny_beit() -> BeitConfig:
    """Configure the options of the published models."""
    from transformers import BeitConfig

    return BeitConfig(
        **tiny_image_sizes(
            use_absolute_position_embeddings=False,
            use_relative_position_bias=True,
        )
    )


BEIT = replace(
    VIT,
    model_types=("beit",),
    tasks=("image-classification",),  # nobody has said how its tokens make an embedding
    tiny_config=tiny_beit,
    load_options=(),
)
EXPORTERS.register("beit")(BEIT)
