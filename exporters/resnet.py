"""ResNet: convolutions in residual blocks, in stages that halve height and width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgelr.model.exporter import EXPORTERS, Exporter

from .tracing.inputs import pixel_batch
from .tracing.routes import trace_pixels_with_transformers

if TYPE_CHECKING:
    from transformers import ResNetConfig


def tiny_resnet() -> ResNetConfig:
    """Configure two stages of bottlenecks: kernels of 7, 3 and 1, some of them with strides."""
    from transformers import ResNetConfig

    return ResNetConfig(
        embedding_size=24,
        hidden_sizes=[64, 96],
        depths=[2, 1],
        layer_type="bottleneck",
    )


def first_stage(config: Any) -> dict[str, Any]:
    """Return the sizes of the first stage, which has most positions; later ones have a quarter."""
    return {
        "layers": sum(config.depths),
        "hidden_size": config.hidden_sizes[0],
        "intermediate_size": config.embedding_size,
        "attention_heads": 0,
        "head_size": 0,
        "positions_per_token": 4.0 ** (len(config.depths) - 1),
    }


RESNET = Exporter(
    model_types=("resnet",),
    tasks=("image-classification",),
    trace=trace_pixels_with_transformers,
    example_inputs=pixel_batch,
    tiny_config=tiny_resnet,
    shape=first_stage,
    convolutions=True,
)
EXPORTERS.register("resnet")(RESNET)
