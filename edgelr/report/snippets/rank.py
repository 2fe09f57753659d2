"""Passages sorted for a query, with plain onnxruntime: python rank.py FOLDER QUERY PASSAGE..."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def read(path: Path) -> Any:
    """Read a JSON file; one that is not there says nothing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def activation(folder: Path) -> str:
    """Read which function a CrossEncoder applies to its scores: the sigmoid, if nothing is told."""
    config = read(folder / "config.json")
    told = (config.get("sentence_transformers") or {}).get("activation_fn")
    told = told or config.get("sbert_ce_default_activation_function")
    return told or read(folder / "config_sentence_transformers.json").get("activation_fn") or ""


def rank(folder: Path, query: str, passages: list[str]) -> list[tuple[float, str]]:
    """Return ``(score, passage)``, the best first."""
    manifest, config = read(folder / "edgelr" / "manifest.json"), read(folder / "config.json")
    providers = [name for name in PROVIDERS if name in ort.get_available_providers()]
    options = ort.SessionOptions()
    options.enable_mem_pattern = False  # as fast, in less memory
    session = ort.InferenceSession(
        str(folder / manifest["model_file"]), options, providers=providers
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(manifest["context_tokens"])
    tokenizer.enable_padding(pad_id=max(0, config.get("pad_token_id") or 0))
    items = tokenizer.encode_batch([(query, passage) for passage in passages])
    feed = {
        "input_ids": np.array([item.ids for item in items], np.int64),
        "attention_mask": np.array([item.attention_mask for item in items], np.int64),
        "token_type_ids": np.array([item.type_ids for item in items], np.int64),  # which text
    }
    inputs = {each.name for each in session.get_inputs()}
    logits = session.run(None, {name: feed[name] for name in feed if name in inputs})[0][:, 0]
    best = np.argsort(-logits, kind="stable")
    scores = logits.astype(np.float64)
    if not activation(folder).endswith(".Identity"):
        scores = 1 / (1 + np.exp(-scores))
    return [(float(scores[place]), passages[place]) for place in best]


if __name__ == "__main__":
    for score, passage in rank(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]):
        print(f"{score:9.5f}  {passage}")
