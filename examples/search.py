"""Search text files by meaning with plain onnxruntime: python search.py FOLDER PLACE QUERY [HITS].

PLACE is a file, or a folder whose .txt, .md, .rst and .py files are read. What is found are
paragraphs: lines without an empty one between them.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
ENDINGS = (".txt", ".md", ".rst", ".py")
BATCH = 16
LONGEST = 256  # tokens of a paragraph that are read


class Encoder:
    """A sentence encoder: texts become vectors of length 1."""

    def __init__(self, folder: Path) -> None:
        path = folder / "edgelr" / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        providers = [name for name in PROVIDERS if name in ort.get_available_providers()]
        model_path = str(folder / manifest["model_file"])
        self._session = ort.InferenceSession(model_path, providers=providers)
        self._inputs = {item.name for item in self._session.get_inputs()}
        self._pooling = manifest["pooling"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        padding = self._tokenizer.padding or {"pad_id": 0, "pad_token": "[PAD]"}
        self._tokenizer.enable_padding(pad_id=padding["pad_id"], pad_token=padding["pad_token"])
        self._tokenizer.enable_truncation(min(LONGEST, manifest["context_tokens"]))

    def vectors(self, texts: list[str]) -> Any:
        """Embed texts, a few at a time: ``(texts, width)``."""
        starts = range(0, len(texts), BATCH)
        return np.concatenate([self._embed(texts[start : start + BATCH]) for start in starts])

    def _embed(self, texts: list[str]) -> Any:
        encoded = self._tokenizer.encode_batch(texts)
        feed = {
            "input_ids": np.array([item.ids for item in encoded], np.int64),
            "attention_mask": np.array([item.attention_mask for item in encoded], np.int64),
            "token_type_ids": np.array([item.type_ids for item in encoded], np.int64),
        }
        given = {name: feed[name] for name in feed if name in self._inputs}
        hidden = self._session.run(None, given)[0].astype(np.float32)
        mask = feed["attention_mask"][..., None]
        mean = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
        pooled = hidden[:, 0] if self._pooling == "cls" else mean
        return pooled / np.linalg.norm(pooled, axis=-1, keepdims=True)


def paragraphs(place: Path) -> Iterator[tuple[str, str]]:
    """Yield ``(file:line, text)`` of every paragraph."""
    files = [place] if place.is_file() else sorted(place.rglob("*"))
    for path in files:
        if path.is_file() and path.suffix in ENDINGS:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            start = 0
            for end in [i for i, line in enumerate(lines) if not line.strip()] + [len(lines)]:
                text = " ".join(" ".join(lines[start:end]).split())
                if text:
                    yield f"{path}:{start + 1}", text
                start = end + 1


def search(folder: Path, place: Path, query: str, hits: int) -> list[tuple[float, str, str]]:
    """Return ``(cosine, file:line, text)`` of the paragraphs nearest to the query."""
    known = list(paragraphs(place))
    if not known:
        sys.exit(f"{place} has no text; expected files that end in {', '.join(ENDINGS)}.")
    encoder = Encoder(folder)
    cosines = encoder.vectors([text for _, text in known]) @ encoder.vectors([query])[0]
    return [(float(cosines[i]), *known[i]) for i in np.argsort(-cosines)[:hits]]


if __name__ == "__main__":
    count = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    for cosine, where, text in search(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], count):
        print(f"{cosine:.3f}  {where}\n       {text[:200]}")
