"""HunYuan decoders, the dense ones: Llama with norms on queries and keys, after the rotation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelr.model.exporter import EXPORTERS

from .llama import LLAMA, tiny_sizes

if TYPE_CHECKING:
    from transformers import HunYuanDenseV1Config


def tiny_hunyuan() -> HunYuanDenseV1Config:
    """Configure the sizes that all decoders share."""
    from transformers import HunYuanDenseV1Config

    return HunYuanDenseV1Config(**tiny_sizes())


HUNYUAN = replace(LLAMA, model_types=("hunyuan_v1_dense",), tiny_config=tiny_hunyuan)
EXPORTERS.register("hunyuan")(HUNYUAN)
