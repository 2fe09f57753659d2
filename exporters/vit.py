"""Vision transformers: patches, learned positions and pre-norm blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgelr.model.exporter import EXPORTERS, Exporter

from .tracing.inputs import pixel_batch
from .tracing.routes import fuse_with_transformers, trace_images_with_transformers

if TYPE_CHECKING:
    from transformers import ViTConfig


def tiny_image_sizes(**changes: Any) -> dict[str, Any]:
    """Return sizes of two blocks and 25 patches, distinct on every axis."""
    return {
        "image_size": 20,
        "patch_size": 4,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        **changes,
    }


def tiny_vit() -> ViTConfig:
    """Configure the sizes that all image models share."""
    from transformers import ViTConfig

    return ViTConfig(**tiny_image_sizes())


VIT = Exporter(
    model_types=("vit",),
    tasks=("feature-extraction", "image-classification"),
    trace=trace_images_with_transformers,
    fuse=fuse_with_transformers,
    example_inputs=pixel_batch,
    tiny_config=tiny_vit,
    keep_dense=("classifier",),
    tied_pairs=(("mlp.fc1", "mlp.fc2"),),
    # The embedding is the first token's hidden state, without the pooler.
    load_options=(("add_pooling_layer", False),),
)
EXPORTERS.register("vit")(VIT)
