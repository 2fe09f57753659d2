"""DeiT: vision transformers with a second token, trained by distillation from a teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .vit import VIT, tiny_image_sizes

if TYPE_CHECKING:
    from transformers import DeiTConfig


def tiny_deit() -> DeiTConfig:
    """Configure the sizes that all image models share."""
    from transformers import DeiTConfig

    return DeiTConfig(**tiny_image_sizes())


DEIT = replace(
    VIT,
    model_types=("deit",),
    tiny_config=tiny_deit,
    keep_dense=("classifier", "cls_classifier", "distillation_classifier"),
)
EXPORTERS.register("deit")(DEIT)
