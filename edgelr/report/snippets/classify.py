"""Labels of texts, or of their tokens, with plain onnxruntime: python classify.py FOLDER TEXT..."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def probabilities(logits: Any, config: Any) -> Any:
    """Turn logits ``(..., labels)`` into probabilities: of one label, or of each of several."""
    logits = logits.astype(np.float64)
    several = config.get("problem_type") == "multi_label_classification"
    if several or logits.shape[-1] == 1:
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def classify(folder: Path, texts: list[str]) -> list[list[tuple[str, str, float]]]:
    """Return ``(part of the text, label, probability)`` of every text, or of all of its tokens."""
    manifest = json.loads((folder / "edgelr" / "manifest.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    providers = [name for name in PROVIDERS if name in ort.get_available_providers()]
    options = ort.SessionOptions()
    options.enable_mem_pattern = False  # as fast, in less memory
    session = ort.InferenceSession(
        str(folder / manifest["model_file"]), options, providers=providers
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(manifest["context_tokens"])
    tokenizer.no_padding()
    found = []
    for text in texts:
        item = tokenizer.encode(text)
        feed = {
            "input_ids": np.array([item.ids], np.int64),
            "attention_mask": np.array([item.attention_mask], np.int64),
            "token_type_ids": np.array([item.type_ids], np.int64),
        }
        inputs = {each.name for each in session.get_inputs()}
        logits = session.run(None, {name: feed[name] for name in feed if name in inputs})[0][0]
        rows = probabilities(logits, config).reshape(-1, logits.shape[-1])
        parts = [text] if logits.ndim == 1 else [text[slice(*span)] for span in item.offsets]
        best = rows.argmax(axis=-1)
        found.append(
            [
                (part, config["id2label"][str(label)], float(row[label]))
                for part, label, row in zip(parts, best, rows, strict=True)
                if part
            ]
        )
    return found


if __name__ == "__main__":
    for labelled in classify(Path(sys.argv[1]), sys.argv[2:]):
        for part, label, probability in labelled:
            print(f"{probability:7.2%}  {label}  {part}")
