"""Compare the perplexity of exported decoders, with onnxruntime and tokenizers only.

    python benchmarks/perplexity.py TEXT FOLDER... --chunks 16 --length 1024

Each chunk is read in one pass, without context from the chunk before and without a start token;
every token but a chunk's first counts once. TEXT is read as it is.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
ROWS = 256  # logits at a time in float64: the whole chunk would take gigabytes


def model_file(folder: Path) -> Path:
    """Find the graph: the one that the bundle's manifest names, or ``onnx/model.onnx``."""
    manifest = folder / "edgelr" / "manifest.json"
    if manifest.exists():
        named: str = json.loads(manifest.read_text(encoding="utf-8"))["model_file"]
        return folder / named
    return folder / "onnx" / "model.onnx"


def token_chunks(folder: Path, text: str, chunks: int, length: int, skip: int) -> NDArray[np.int64]:
    """Cut the text's first tokens after ``skip`` into chunks, ``(chunks, length)``."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    ids = tokenizer.encode(text, add_special_tokens=False).ids[skip : skip + chunks * length]
    if len(ids) < chunks * length:
        raise SystemExit(
            f"The text has {len(ids):,} tokens after the first {skip:,}; {chunks} chunks of "
            f"{length:,} need {chunks * length:,}. Ask for fewer, or give a longer text."
        )
    return np.array(ids, np.int64).reshape(chunks, length)


def inputs(session: Any, row: NDArray[np.int64], head_size: int) -> dict[str, Any]:
    """Make the inputs for one pass over ``row`` with an empty cache."""
    values = {
        "input_ids": row[None],
        "attention_mask": np.ones((1, len(row))),
        "position_ids": np.arange(len(row))[None],
    }
    feed = {}
    for item in session.get_inputs():
        value = values.get(item.name)
        if value is None:  # past_key_values.N.key or .value: (batch, heads, 0, head size)
            size = item.shape[3] if isinstance(item.shape[3], int) else head_size
            value = np.empty((1, item.shape[1], 0, size))
        feed[item.name] = value.astype(NUMPY_TYPES[item.type])
    return feed


def negative_log_likelihood(logits: NDArray[Any], targets: NDArray[np.int64]) -> float:
    """Sum ``-log p(target)``; ``logits`` is (tokens, vocabulary), ``targets`` (tokens,)."""
    total = 0.0
    for start in range(0, len(targets), ROWS):
        rows = logits[start : start + ROWS].astype(np.float64)
        rows -= rows.max(axis=-1, keepdims=True)
        picked = np.take_along_axis(rows, targets[start : start + ROWS, None], axis=-1)[:, 0]
        total += float((np.log(np.exp(rows).sum(axis=-1)) - picked).sum())
    return total


def perplexity(folder: Path, rows: NDArray[np.int64]) -> float:
    """Measure the perplexity of the model in ``folder`` on ``rows``, ``(chunks, length)``."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    session = ort.InferenceSession(str(model_file(folder)), providers=["CPUExecutionProvider"])
    total = sum(
        negative_log_likelihood(
            session.run(["logits"], inputs(session, row, head_size))[0][0, :-1], row[1:]
        )
        for row in rows
    )
    return math.exp(total / (rows.size - len(rows)))


def megabytes(folder: Path) -> float:
    """Size of the graph and its weights, in units of 10**6 bytes."""
    graph = model_file(folder)
    return sum(path.stat().st_size for path in graph.parent.glob(f"{graph.name}*")) / 1e6


def main() -> None:
    """Print one row per folder; ``ratio`` is to the first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--length", type=int, default=1024, help="tokens in a chunk")
    parser.add_argument("--skip", type=int, default=0, help="tokens to leave out first")
    options = parser.parse_args()
    text = options.text.read_text(encoding="utf-8")
    width = max(len(str(folder)) for folder in (*options.folders, "folder"))
    print(f"{'folder':{width}}  {'MB':>8}  {'perplexity':>10}  {'ratio':>6}")
    first = 0.0
    for folder in options.folders:
        rows = token_chunks(folder, text, options.chunks, options.length, options.skip)
        found = perplexity(folder, rows)
        first = first or found
        size = megabytes(folder)
        print(f"{folder!s:{width}}  {size:8.1f}  {found:10.3f}  {found / first:6.3f}")


if __name__ == "__main__":
    main()
