"""Sentence embeddings with plain onnxruntime: python embed.py FOLDER TEXT..."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def tokenize(folder: Path, texts: list[str], max_tokens: int) -> dict[str, Any]:
    """Turn the texts into one padded batch of ids and masks, ``(texts, tokens)``."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    padding = tokenizer.padding or {"pad_id": 0, "pad_token": "[PAD]"}
    tokenizer.enable_padding(pad_id=padding["pad_id"], pad_token=padding["pad_token"])
    tokenizer.enable_truncation(max_tokens)
    encodings = tokenizer.encode_batch(texts)
    return {
        "input_ids": np.array([item.ids for item in encodings], np.int64),
        "attention_mask": np.array([item.attention_mask for item in encodings], np.int64),
        "token_type_ids": np.array([item.type_ids for item in encodings], np.int64),
    }


def pool(hidden: Any, mask: Any, pooling: str) -> Any:
    """Make one vector of the tokens that are not padding, as the model was trained to.

    A graph with layers behind its pooling gives one already.
    """
    if hidden.ndim == 2:
        return hidden
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "max":
        return np.where(mask[..., None] == 1, hidden, -np.inf).max(axis=1)
    places = np.cumsum(mask, axis=-1) * mask  # 1 for the first token
    if pooling == "last_token":
        mask = (places == places.max(axis=-1, keepdims=True)).astype(mask.dtype)
    elif pooling == "weighted_mean":
        mask = places
    return (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)


def embed(folder: Path, texts: list[str]) -> Any:
    """Return one vector of length 1 per text, so that a dot product is a cosine similarity."""
    manifest = json.loads((folder / "edgelr" / "manifest.json").read_text(encoding="utf-8"))
    providers = [name for name in PROVIDERS if name in ort.get_available_providers()]
    options = ort.SessionOptions()
    options.enable_mem_pattern = False  # as fast, in less memory
    session = ort.InferenceSession(
        str(folder / manifest["model_file"]), options, providers=providers
    )
    inputs = {item.name for item in session.get_inputs()}
    feed = tokenize(folder, texts, manifest["context_tokens"])
    hidden = session.run(None, {name: feed[name] for name in feed if name in inputs})[0]
    pooled = pool(hidden.astype(np.float32), feed["attention_mask"], manifest["pooling"])
    return pooled / np.linalg.norm(pooled, axis=-1, keepdims=True)


if __name__ == "__main__":
    vectors = embed(Path(sys.argv[1]), sys.argv[2:])
    print(f"{len(vectors)} vectors of {vectors.shape[1]} numbers; cosine similarities:")
    print(np.round(vectors @ vectors.T, 4))
