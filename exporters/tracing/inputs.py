"""Example inputs, from optimum's dummy-input generators and normalized configurations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def token_batch(config: Any, batch: int, tokens: int) -> dict[str, Tensor]:
    """Random token ids ``(batch, tokens)`` with a full mask, for decoders."""
    import torch

    ids = _token_ids(config, "text-generation", batch, tokens)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def padded_text_batch(config: Any, batch: int, tokens: int) -> dict[str, Tensor]:
    """Random token ids ``(batch, tokens)`` whose first row is padded on the right.

    A mask of ones only would be traced away. Models with one type of tokens get no types.
    """
    import torch

    ids = _token_ids(config, "feature-extraction", batch, tokens)
    mask = torch.ones_like(ids)
    mask[0, tokens // 2 :] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if getattr(config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = torch.zeros_like(ids)
    return inputs


def source_and_target_batch(config: Any, batch: int, tokens: int) -> dict[str, Tensor]:
    """A padded batch for an encoder, and shorter rows ``(batch, tokens // 2 + 1)`` for a decoder.

    The two lengths differ, which tells what reads the one and what the other.
    """
    target = _token_ids(config, "feature-extraction", batch, tokens // 2 + 1)
    inputs = padded_text_batch(config, batch, tokens)
    return {**inputs, "decoder_input_ids": target}


def sound_and_target_batch(config: Any, batch: int, tokens: int) -> dict[str, Tensor]:
    """Random sounds ``(batch, mel_bins, frames)``, all of one length, and rows for a decoder.

    The rows have ``tokens // 2 + 1`` tokens.
    """
    import torch

    frames = 2 * config.max_source_positions  # the second convolution takes every other one
    target = _token_ids(config, "feature-extraction", batch, tokens // 2 + 1)
    sounds = torch.randn(batch, config.num_mel_bins, frames)
    return {"input_features": sounds, "decoder_input_ids": target}


def pixel_batch(config: Any, batch: int, side: int) -> dict[str, Tensor]:
    """Random pixels ``(batch, channels, side, side)`` of images that are prepared already."""
    import torch

    return {"pixel_values": torch.randn(batch, config.num_channels, side, side)}


def _token_ids(config: Any, task: str, batch: int, tokens: int) -> Tensor:
    from optimum.utils import DummyTextInputGenerator, NormalizedTextConfig

    sizes = NormalizedTextConfig(config)  # of which only the vocabulary is read
    generator = DummyTextInputGenerator(task, sizes, batch_size=batch, sequence_length=tokens)
    ids: Tensor = generator.generate("input_ids", framework="pt")
    return ids
