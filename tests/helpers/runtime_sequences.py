"""Tiny encoder-decoders of texts and of sounds: random weights, and their answers in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto

from edgelr.core.inputs import SoundInput
from tests.helpers.audio import RATE
from tests.helpers.runtime_graphs import (
    FEATURES,
    HEAD_SIZE,
    HEADS,
    SUM_CONSTANTS,
    VOCABULARY,
    embedding_table,
    head_weight,
    joined,
    make_model,
    running_sums,
)

SOUND = SoundInput(
    rate=RATE, samples=1600, window=400, hop=160, mel_bins=8, highest_hz=8000.0, tokens=10
)


def encoder_decoder_models(seed: int = 0) -> tuple[ModelProto, ModelProto]:
    """Make an encoder, and a decoder whose logits depend on all tokens of the source and so far.

    ids ── Gather ── by head ── present.0.encoder.key ── sum of all positions ──┐
    ids ── Gather ── by head ── CumSum, and the sum that the cache holds ────── Add ── MatMul
    """
    constants = {"table": embedding_table(seed), **SUM_CONSTANTS}
    nodes = [
        ("Gather", ["table", "input_ids"], ["embedded"], {}),
        ("Unsqueeze", ["attention_mask", "from_last"], ["wide_mask"], {}),
        ("Cast", ["wide_mask"], ["real"], {"to": TensorProto.FLOAT}),
        ("Mul", ["embedded", "real"], ["masked"], {}),
        *_cross("masked"),
    ]
    source = ["batch", "source"]
    inputs = [(name, TensorProto.INT64, source) for name in ("input_ids", "attention_mask")]
    return make_model(nodes, inputs, _cross_ports("present"), constants), _cross_decoder(seed)


def speech_models(seed: int = 0) -> tuple[ModelProto, ModelProto]:
    """Make an encoder of sounds, and the decoder of ``encoder_decoder_models``."""
    constants = {"weight": speech_weight(seed), **SUM_CONSTANTS}
    nodes = [
        ("Transpose", ["input_features"], ["by_frame"], {"perm": [0, 2, 1]}),
        ("MatMul", ["by_frame", "weight"], ["embedded"], {}),
        *_cross("embedded"),
    ]
    features = ["batch", SOUND.mel_bins, SOUND.frames]
    inputs = [("input_features", TensorProto.FLOAT, features)]
    return make_model(nodes, inputs, _cross_ports("present"), constants), _cross_decoder(seed)


def speech_weight(seed: int = 0) -> np.ndarray:
    shape = (SOUND.mel_bins, FEATURES)
    return 0.1 * np.random.default_rng(seed + 200).standard_normal(shape).astype(np.float32)


def target_logits(source: np.ndarray, target: list[int], seed: int = 0) -> np.ndarray:
    """Compute what the decoder answers behind embedded sources ``(positions, FEATURES)``."""
    return (source.sum(0) + embedding_table(seed)[target].cumsum(0)) @ head_weight(seed)


def _cross(embedded: str) -> list[Any]:
    """Give the decoder what it attends to: the embeddings by head, twice."""
    return [
        ("Reshape", [embedded, "split"], ["by_token"], {}),
        ("Transpose", ["by_token"], ["present.0.encoder.key"], {"perm": [0, 2, 1, 3]}),
        ("Identity", ["present.0.encoder.key"], ["present.0.encoder.value"], {}),
    ]


def _cross_ports(prefix: str) -> list[Any]:
    shape = ["batch", HEADS, "source", HEAD_SIZE]
    parts = ("key", "value")
    return [(f"{prefix}.0.encoder.{part}", TensorProto.FLOAT, shape) for part in parts]


def _cross_decoder(seed: int) -> ModelProto:
    constants = {"table": embedding_table(seed), "head": head_weight(seed), **SUM_CONSTANTS}
    past, present = "past_key_values.0.decoder", "present.0.decoder"
    nodes = [
        ("Gather", ["table", "input_ids"], ["embedded"], {}),
        *running_sums("embedded", past, present),
        ("ReduceSum", ["past_key_values.0.encoder.key", "tokens_axis"], ["read"], {}),
        ("Add", ["new_keys", "read"], ["both"], {}),
        *joined("both", "state"),
        ("MatMul", ["state", "head"], ["logits"], {}),
    ]
    parts = ("key", "value")
    cache, longer = (["batch", HEADS, tokens, HEAD_SIZE] for tokens in ("past", "total"))
    inputs = [
        ("input_ids", TensorProto.INT64, ["batch", "tokens"]),
        *_cross_ports("past_key_values"),
        *((f"{past}.{part}", TensorProto.FLOAT, cache) for part in parts),
    ]
    outputs = [
        ("logits", TensorProto.FLOAT, ["batch", "tokens", VOCABULARY]),
        *((f"{present}.{part}", TensorProto.FLOAT, longer) for part in parts),
    ]
    return make_model(nodes, inputs, outputs, constants)
