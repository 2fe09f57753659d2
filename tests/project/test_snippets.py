"""The model card's examples run as they are, on tiny graphs whose answers are known."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, save
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.helpers.paths import SNIPPETS

VOCABULARY = {"[PAD]": 0, "red": 1, "green": 2, "blue": 3}
COLOURS = np.array([[9, 9, 9], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)


def model(
    nodes: list[tuple[Any, ...]],
    inputs: list[tuple[Any, ...]],
    outputs: list[tuple[Any, ...]],
    constants: dict[str, Any],
) -> ModelProto:
    """Make a model from ``(operator, inputs, output, attributes)`` and ``(name, type, shape)``."""
    graph = helper.make_graph(
        [helper.make_node(op, ins, [out], **attributes) for op, ins, out, attributes in nodes],
        "tiny",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def counting_decoder(element_type: int) -> ModelProto:
    """Make a decoder that answers ``10 + tokens in its cache``, so that a lost cache shows.

    New tokens are written behind the others, into a cache that has room for all from the start::

        present = 1 where total - tokens <= position < total, else past
    """
    shape = ["batch", 3, "capacity", "head_size"]
    kinds = ("key", "value")
    dtype = helper.tensor_dtype_to_np_dtype(element_type)
    joins = [
        ("Where", ["is_new", "one", f"past_key_values.0.{kind}"], f"present.0.{kind}", {})
        for kind in kinds
    ]
    return model(
        [
            ("Shape", ["attention_mask"], "total", {"start": 1}),
            ("Shape", ["input_ids"], "tokens", {"start": 1}),
            ("Sub", ["total", "tokens"], "first", {}),
            ("Shape", ["past_key_values.0.key"], "room", {"start": 2, "end": 3}),
            ("Squeeze", ["room"], "capacity", {}),
            ("Range", ["zero", "capacity", "step"], "positions", {}),
            ("GreaterOrEqual", ["positions", "first"], "behind", {}),
            ("Less", ["positions", "total"], "inside", {}),
            ("And", ["behind", "inside"], "new_positions", {}),
            ("Unsqueeze", ["new_positions", "axes"], "is_new", {}),
            *joins,
            ("Cast", ["present.0.key"], "keys", {"to": TensorProto.FLOAT}),
            ("ReduceSum", ["keys"], "sum", {"keepdims": 0}),
            ("Div", ["sum", "entries"], "filled", {}),
            ("Cast", ["filled"], "count", {"to": TensorProto.INT64}),
            ("Gather", ["table", "count"], "row", {}),
            ("Unsqueeze", ["row", "leading"], "logits", {}),
        ],
        [
            ("input_ids", TensorProto.INT64, ["batch", "tokens"]),
            ("attention_mask", TensorProto.INT64, ["batch", "total"]),
            *((f"past_key_values.0.{kind}", element_type, shape) for kind in kinds),
        ],
        [
            ("logits", TensorProto.FLOAT, [1, 1, 24]),
            *((f"present.0.{kind}", element_type, shape) for kind in kinds),
        ],
        {
            "one": np.ones((), dtype),
            "table": np.eye(24, k=10, dtype=np.float32),
            "entries": np.array(15, np.float32),  # 3 heads of 5
            "zero": np.array(0),
            "step": np.array(1),
            "axes": np.array([0, 1, 3]),
            "leading": np.array([0, 1]),
        },
    )


def colour_encoder() -> ModelProto:
    """Make an encoder whose hidden states are the colours of its words."""
    return model(
        [("Gather", ["colours", "input_ids"], "last_hidden_state", {})],
        [("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", 3])],
        {"colours": COLOURS},
    )


def write_bundle(folder: Path, graph: ModelProto, config: dict[str, Any], pooling: str) -> None:
    """Write what the examples read, and no more."""
    for name in ("onnx", "edgelr"):
        (folder / name).mkdir()
    save(graph, folder / "onnx" / "tiny.onnx")
    manifest = {"model_file": "onnx/tiny.onnx", "pooling": pooling, "context_tokens": 16}
    (folder / "edgelr" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("element_type", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_generation_feeds_its_cache_and_stops_at_the_end(tmp_path: Path, element_type: int) -> None:
    config = {"head_dim": 5, "eos_token_id": 17}
    write_bundle(tmp_path, counting_decoder(element_type), config, "mean")
    generate = runpy.run_path(str(SNIPPETS / "generate.py"))["generate"]
    assert generate(tmp_path, [1, 2, 3], new_tokens=9) == [13, 14, 15, 16]
    assert generate(tmp_path, [1, 2, 3], new_tokens=2) == [13, 14]


@pytest.mark.parametrize(("pooling", "second"), [("mean", [3, 0, 1]), ("cls", [1, 0, 0])])
def test_embedding_leaves_padding_out(tmp_path: Path, pooling: str, second: list[int]) -> None:
    write_bundle(tmp_path, colour_encoder(), {}, pooling)
    embed = runpy.run_path(str(SNIPPETS / "embed.py"))["embed"]
    vectors = embed(tmp_path, ["green", "red red blue red"])
    expected = np.array([[0, 1, 0], second]) / np.array([[1], [np.linalg.norm(second)]])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
