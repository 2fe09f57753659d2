"""The route of models that compare texts with images: one graph for each.

An application embeds its texts once, and then only images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelr.core.quiet import quiet

from .encoder_decoder import export_as, varying
from .inputs import padded_text_batch, pixel_batch
from .routes import without_mask

if TYPE_CHECKING:
    from torch import Tensor

TEXTS, IMAGES = "text_model", "vision_model"  # optimum's names
EXAMPLE_TOKENS = 7


def trace_towers_with_transformers(
    text_output: str, image_output: str
) -> Callable[[Any, Path, Path, dict[str, Any]], None]:
    """Make the route of a family, from the names of its two embeddings.

    The model runs with another ``forward``, and not inside another module: scopes keep its names.
    """

    def trace(module: Any, folder: Path, out: Path, example: dict[str, Any]) -> None:
        del folder

        def read(**inputs: Tensor) -> dict[str, Tensor]:
            return {text_output: module.get_text_features(**inputs).pooler_output}

        def see(pixel_values: Tensor) -> dict[str, Tensor]:
            return {image_output: module.get_image_features(pixel_values).pooler_output}

        texts = {name: value for name, value in example.items() if name != "pixel_values"}
        pixels = {"pixel_values": example["pixel_values"]}
        with quiet():
            export_as(module, read, texts, dict.fromkeys(texts, varying(0, 1)), out / TEXTS)
            with without_mask(module):
                export_as(module, see, pixels, {"pixel_values": varying(0)}, out / IMAGES)

    return trace


def images_and_prompts(config: Any, batch: int, side: int) -> dict[str, Tensor]:
    """Pixels ``(batch, channels, side, side)``, and one prompt more than images, padded.

    The two numbers differ, which tells what reads the one and what the other.
    """
    prompts = padded_text_batch(config.text_config, batch + 1, EXAMPLE_TOKENS)
    return {**prompts, **pixel_batch(config.vision_config, batch, side)}


def vision_sizes(config: Any) -> dict[str, Any]:
    """Return the sizes of the vision tower: texts are embedded once, before."""
    sizes = config.vision_config
    return {
        "layers": sizes.num_hidden_layers,
        "hidden_size": sizes.hidden_size,
        "intermediate_size": sizes.intermediate_size,
        "attention_heads": sizes.num_attention_heads,
        "head_size": sizes.hidden_size // sizes.num_attention_heads,
    }
