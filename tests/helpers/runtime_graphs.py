"""Tiny graphs of every modality: random weights, and their answers in numpy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, save
from tokenizers import Tokenizer, models, pre_tokenizers

from edgelr.core.bundle import ExportBundle, Manifest, describe_files, write_manifest
from edgelr.core.inputs import ImageInput, Matching

VOCABULARY = 11
FEATURES = 6
HEADS = 3
HEAD_SIZE = FEATURES // HEADS
CONTEXT = 64
WORDS = ("[UNK]", "red", "green", "blue", "one", "two", "three", "sea", "sky", "sun", "moon")
IMAGE = ImageInput(
    side=4,
    tokens=5,
    resized=(4, 4),
    resample="bicubic",
    cropped=False,
    scale=1 / 255,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.3, 0.1),
)
MATCHING = Matching(
    scale=5.0, bias=0.0, tokens=7, pad_token=0, padded=False, prompts=("red sea", "blue sky", "sun")
)


def embedding_table(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((VOCABULARY, FEATURES)).astype(np.float32)


def head_weight(seed: int = 0) -> np.ndarray:
    shape = (FEATURES, VOCABULARY)
    return np.random.default_rng(seed + 100).standard_normal(shape).astype(np.float32)


def decoder_model(seed: int = 0, uniform: bool = False) -> ModelProto:
    """Make a decoder whose logits depend on the sum of all embeddings so far.

    ids ── Gather ── Reshape ── CumSum ── Add ── present ── Reshape ── MatMul ── logits
                                           └── sum kept by the cache (its last token)

    The key cache holds running sums, the value cache is a copy. The attention mask counts: sums
    are of real tokens only, so that padding on the left is handled inside the graph.
    """
    head = np.zeros((FEATURES, VOCABULARY), np.float32) if uniform else head_weight(seed)
    constants = {
        "table": embedding_table(seed),
        "head": head,
        "mask_axis": np.array([1], np.int64),
        **SUM_CONSTANTS,
    }
    nodes = [
        ("Gather", ["table", "input_ids"], ["embedded"], {}),
        # the last `tokens` columns of the mask belong to the new tokens
        ("Shape", ["input_ids"], ["tokens"], {"start": 1, "end": 2}),
        ("Neg", ["tokens"], ["first_new"], {}),
        ("Slice", ["attention_mask", "first_new", "to_end", "mask_axis"], ["new_mask"], {}),
        ("Unsqueeze", ["new_mask", "from_last"], ["wide_mask"], {}),
        ("Cast", ["wide_mask"], ["real"], {"to": TensorProto.FLOAT}),
        ("Mul", ["embedded", "real"], ["masked"], {}),
        *running_sums("masked", "past_key_values.0", "present.0"),
        *joined("new_keys", "state"),
        ("MatMul", ["state", "head"], ["logits"], {}),
    ]
    cache = ["batch", HEADS, "past", "head_size"]
    inputs = [
        ("input_ids", TensorProto.INT64, ["batch", "tokens"]),
        ("attention_mask", TensorProto.INT64, ["batch", "total"]),
        ("past_key_values.0.key", TensorProto.FLOAT, cache),
        ("past_key_values.0.value", TensorProto.FLOAT, cache),
    ]
    present = ["batch", HEADS, "total", "head_size"]
    outputs = [
        ("logits", TensorProto.FLOAT, ["batch", "tokens", VOCABULARY]),
        ("present.0.key", TensorProto.FLOAT, present),
        ("present.0.value", TensorProto.FLOAT, present),
    ]
    return make_model(nodes, inputs, outputs, constants)


def decoder_logits(ids: list[int], seed: int = 0) -> np.ndarray:
    """Compute in numpy what ``decoder_model`` answers, ``(tokens, vocabulary)``."""
    return embedding_table(seed)[ids].cumsum(0) @ head_weight(seed)


def encoder_model(seed: int = 0) -> ModelProto:
    """Make an encoder that only looks up embeddings; padding cannot reach other tokens."""
    constants = {"table": embedding_table(seed)}
    nodes = [("Gather", ["table", "input_ids"], ["last_hidden_state"], {})]
    tokens = ["batch", "tokens"]
    names = ("input_ids", "token_type_ids", "attention_mask")
    inputs = [(name, TensorProto.INT64, tokens) for name in names]
    outputs = [("last_hidden_state", TensorProto.FLOAT, [*tokens, FEATURES])]
    return make_model(nodes, inputs, outputs, constants)


def pair_model(seed: int = 0) -> ModelProto:
    """Make a reranker that adds the scores of tokens; those of the second text count double."""
    constants = {
        "table": embedding_table(seed)[:, 0],
        "one": np.array(1, np.int64),
        "axis": np.array([1], np.int64),
    }
    nodes = [
        ("Gather", ["table", "input_ids"], ["scores"], {}),
        ("Add", ["token_type_ids", "one"], ["place"], {}),
        ("Mul", ["place", "attention_mask"], ["counts"], {}),
        ("Cast", ["counts"], ["weights"], {"to": TensorProto.FLOAT}),
        ("Mul", ["scores", "weights"], ["weighted"], {}),
        ("ReduceSum", ["weighted", "axis"], ["logits"], {"keepdims": 1}),
    ]
    names = ("input_ids", "token_type_ids", "attention_mask")
    inputs = [(name, TensorProto.INT64, ["batch", "tokens"]) for name in names]
    return make_model(nodes, inputs, [("logits", TensorProto.FLOAT, ["batch", 1])], constants)


def image_model(seed: int = 0, output: str = "logits") -> ModelProto:
    """Make a model of the mean color of an image."""
    constants = {"weight": image_weight(seed), "axes": np.array([2, 3], np.int64)}
    nodes = [
        ("ReduceMean", ["pixel_values", "axes"], ["color"], {"keepdims": 0}),
        ("MatMul", ["color", "weight"], [output], {}),
    ]
    inputs = [("pixel_values", TensorProto.FLOAT, ["batch", 3, IMAGE.side, IMAGE.side])]
    return make_model(nodes, inputs, [(output, TensorProto.FLOAT, ["batch", FEATURES])], constants)


def image_weight(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + 300).standard_normal((3, FEATURES)).astype(np.float32)


def text_model(seed: int = 0) -> ModelProto:
    """Make a model that embeds a text by the sum of its tokens."""
    constants = {
        "table": embedding_table(seed),
        "last": np.array([-1], np.int64),
        "axis": np.array([1], np.int64),
    }
    nodes = [
        ("Gather", ["table", "input_ids"], ["embedded"], {}),
        ("Unsqueeze", ["attention_mask", "last"], ["wide"], {}),
        ("Cast", ["wide"], ["real"], {"to": TensorProto.FLOAT}),
        ("Mul", ["embedded", "real"], ["masked"], {}),
        ("ReduceSum", ["masked", "axis"], ["text_embeds"], {"keepdims": 0}),
    ]
    tokens = ["batch", "tokens"]
    inputs = [(name, TensorProto.INT64, tokens) for name in ("input_ids", "attention_mask")]
    outputs = [("text_embeds", TensorProto.FLOAT, ["batch", FEATURES])]
    return make_model(nodes, inputs, outputs, constants)


def tensors_model(seed: int = 0) -> ModelProto:
    """Make a graph with two outputs; one is minus infinity where an input is not positive."""
    nodes = [
        ("MatMul", ["x", "weight"], ["y"], {}),
        ("Relu", ["x"], ["positive"], {}),
        ("Log", ["positive"], ["z"], {}),
    ]
    outputs = [("y", TensorProto.FLOAT, [1, FEATURES]), ("z", TensorProto.FLOAT, [1, 3])]
    inputs = [("x", TensorProto.FLOAT, [1, 3])]
    return make_model(nodes, inputs, outputs, {"weight": image_weight(seed)})


def write_bundle(
    folder: Path, model: ModelProto, beside: ModelProto | None = None, **changes: Any
) -> ExportBundle:
    """Write a complete bundle around a model, and the one beside it."""
    (folder / "onnx").mkdir(parents=True)
    save(model, folder / "onnx" / "model.onnx")
    names = ["onnx/model.onnx", "config.json", "tokenizer.json"]
    if beside is not None:
        save(beside, folder / "onnx" / "beside.onnx")
        names.append("onnx/beside.onnx")
    config = {
        "vocab_size": VOCABULARY,
        "hidden_size": FEATURES,
        "num_attention_heads": HEADS,
        "decoder_start_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "id2label": {str(label): f"label {label}" for label in range(FEATURES)},
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    decodes = any(output.name == "logits" for output in model.graph.output)
    fields: dict[str, Any] = {
        "task": "text-generation" if decodes else "feature-extraction",
        "modality": "decoder" if decodes else "text_encoder",
        "precision": "float32",
        "model_file": "onnx/model.onnx",
        "encoder_file": None if beside is None else "onnx/beside.onnx",
        "source": "tiny",
        "revision": None,
        "digest": "0" * 16,
        "opset": 18,
        "ir_version": 8,
        "context_tokens": CONTEXT,
        "pooling": None if decodes else "mean",
        "files": describe_files(folder, names),
    }
    manifest = Manifest(**{**fields, **changes})
    write_manifest(folder, manifest)
    return ExportBundle(folder, manifest)


SUM_CONSTANTS = {
    "split": np.array([0, 0, HEADS, HEAD_SIZE], np.int64),
    "joined": np.array([0, 0, FEATURES], np.int64),
    "axis": np.array(2, np.int64),
    "zero": np.zeros((1, HEADS, 1, HEAD_SIZE), np.float32),
    "from_last": np.array([-1], np.int64),
    "to_end": np.array([2**31], np.int64),
    "tokens_axis": np.array([2], np.int64),
    "one_only": np.array([1], np.int64),
}


def running_sums(embedded: str, past: str, present: str) -> list[Any]:
    """Sum embeddings over the tokens, and those that the cache has summed: ``new_keys``."""
    return [
        ("Reshape", [embedded, "split"], ["by_token"], {}),
        ("Transpose", ["by_token"], ["by_head"], {"perm": [0, 2, 1, 3]}),
        ("CumSum", ["by_head", "axis"], ["sums"], {}),
        # one column of zeros before the cache, so that an empty cache has a last column too
        ("Shape", ["input_ids"], ["batch"], {"start": 0, "end": 1}),
        ("Concat", ["batch", "one_only", "one_only", "one_only"], ["repeats"], {"axis": 0}),
        ("Tile", ["zero", "repeats"], ["zeros"], {}),
        ("Concat", ["zeros", f"{past}.key"], ["padded"], {"axis": 2}),
        ("Slice", ["padded", "from_last", "to_end", "tokens_axis"], ["last"], {}),
        ("Add", ["sums", "last"], ["new_keys"], {}),
        ("Concat", [f"{past}.key", "new_keys"], [f"{present}.key"], {"axis": 2}),
        ("Concat", [f"{past}.value", "new_keys"], [f"{present}.value"], {"axis": 2}),
    ]


def joined(by_head: str, state: str) -> list[Any]:
    return [
        ("Transpose", [by_head], ["by_token_again"], {"perm": [0, 2, 1, 3]}),
        ("Reshape", ["by_token_again", "joined"], [state], {}),
    ]


def make_model(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, np.ndarray]
) -> ModelProto:
    graph = helper.make_graph(
        [helper.make_node(op, ins, outs, **attributes) for op, ins, outs, attributes in nodes],
        "tiny",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
