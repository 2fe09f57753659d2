"""The sizes of a model that decide about memory and time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes that decide about memory. Encoders keep no cache: their ``kv_heads`` is 0.

    ``vocab_size`` is that of the logits, and 0 for models that answer no tokens. Where stages see
    an image at several resolutions, the sizes are those of the first stage, which takes most; it
    has ``positions_per_token`` positions for each token of the last one, and every position
    attends to those of its ``window`` only. With an encoder and a decoder, sizes are the decoder's,
    which also keeps keys and values of ``source_tokens``.
    """

    layers: int
    hidden_size: int
    intermediate_size: int
    attention_heads: int
    kv_heads: int
    head_size: int
    vocab_size: int
    positions_per_token: float = 1.0
    window: int | None = None
    source_tokens: int = 0
