"""Masked tokens of texts, with plain onnxruntime: python fill_mask.py FOLDER TEXT..."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def fill(folder: Path, texts: list[str], best: int = 3) -> list[list[list[tuple[str, float]]]]:
    """Return the likeliest ``(token, probability)`` for every mask of every text."""
    manifest = json.loads((folder / "edgelr" / "manifest.json").read_text(encoding="utf-8"))
    providers = [name for name in PROVIDERS if name in ort.get_available_providers()]
    options = ort.SessionOptions()
    options.enable_mem_pattern = False  # as fast, in less memory
    session = ort.InferenceSession(
        str(folder / manifest["model_file"]), options, providers=providers
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(manifest["context_tokens"])
    tokenizer.no_padding()
    inputs = {each.name for each in session.get_inputs()}
    found = []
    for text in texts:
        item = tokenizer.encode(text)
        feed = {
            "input_ids": np.array([item.ids], np.int64),
            "attention_mask": np.array([item.attention_mask], np.int64),
            "token_type_ids": np.array([item.type_ids], np.int64),
        }
        logits = session.run(None, {name: feed[name] for name in feed if name in inputs})[0][0]
        rows = logits[feed["input_ids"][0] == manifest["mask_token"]].astype(np.float64)
        powers = np.exp(rows - rows.max(axis=-1, keepdims=True))
        chances = powers / powers.sum(axis=-1, keepdims=True)
        order = chances.argsort(axis=-1)[:, ::-1][:, :best]
        found.append(
            [
                [(tokenizer.decode([token]), float(row[token])) for token in tokens]
                for tokens, row in zip(order, chances, strict=True)
            ]
        )
    return found


if __name__ == "__main__":
    for given, masks in zip(sys.argv[2:], fill(Path(sys.argv[1]), sys.argv[2:]), strict=True):
        print(given)
        for tokens in masks:
            print("  ", *(f"{probability:7.2%} {token}" for token, probability in tokens))
