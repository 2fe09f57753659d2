"""Swin: vision transformers in stages, with attention inside windows that shift."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgelr.model.exporter import EXPORTERS

from .vit import VIT

if TYPE_CHECKING:
    from transformers import SwinConfig


def tiny_swin() -> SwinConfig:
    """Configure two stages; windows shift in the first, and do not divide its height and width."""
    from transformers import SwinConfig

    return SwinConfig(
        image_size=20,
        patch_size=2,
        embed_dim=24,
        depths=[2, 2],
        num_heads=[2, 3],
        window_size=4,
        mlp_ratio=1.5,
    )


def first_stage(config: Any) -> dict[str, Any]:
    """Return the sizes of the first stage, which has most positions; later ones have a quarter."""
    width, heads = config.embed_dim, config.num_heads[0]
    return {
        "layers": sum(config.depths),
        "hidden_size": width,
        "intermediate_size": int(config.mlp_ratio * width),
        "attention_heads": heads,
        "head_size": width // heads,
        "positions_per_token": 4.0 ** (len(config.depths) - 1),
        "window": config.window_size**2,
    }


SWIN = replace(
    VIT,
    model_types=("swin",),
    tiny_config=tiny_swin,
    shape=first_stage,
    pooling="mean",
    load_options=(("add_pooling_layer", False),),
)
EXPORTERS.register("swin")(SWIN)
