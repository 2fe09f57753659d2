"""Whisper (arXiv:2212.04356): BART's blocks, pre-norm, behind two convolutions of a spectrogram."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgelr.model.exporter import EXPORTERS

from .bart import BART
from .tracing.inputs import sound_and_target_batch

if TYPE_CHECKING:
    from transformers import WhisperConfig


def tiny_whisper() -> WhisperConfig:
    """Configure one encoder block, two decoder blocks and sounds of 50 positions."""
    from transformers import WhisperConfig

    return WhisperConfig(
        vocab_size=160,
        num_mel_bins=20,
        d_model=48,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=6,
        decoder_attention_heads=6,
        encoder_ffn_dim=80,
        decoder_ffn_dim=80,
        max_source_positions=50,
        max_target_positions=72,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=[5, 9],
        begin_suppress_tokens=[7, 2],
        init_std=0.1,
    )


def longest_transcript(config: Any) -> int:
    """Return the number of the decoder's positions, tokens."""
    return int(config.max_target_positions)


WHISPER = replace(
    BART,
    model_types=("whisper",),
    tasks=("automatic-speech-recognition",),
    example_inputs=sound_and_target_batch,
    tiny_config=tiny_whisper,
    keep_dense=("proj_out",),
    longest_text=longest_transcript,
)
EXPORTERS.register("whisper")(WHISPER)
