"""Text from text with plain onnxruntime, greedily: python answer.py FOLDER TEXT [NEW_TOKENS]."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def read(path: Path) -> dict[str, Any]:
    """Read a JSON file; one that is not there says nothing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def open_sessions(folder: Path) -> tuple[ort.InferenceSession, ort.InferenceSession]:
    """Load the encoder and the decoder, on a GPU where onnxruntime has one."""
    providers = [name for name in PROVIDERS if name in ort.get_available_providers()]
    manifest = read(folder / "edgelr" / "manifest.json")
    files = (manifest["encoder_file"], manifest["model_file"])
    encoder, decoder = (
        ort.InferenceSession(str(folder / file), providers=providers) for file in files
    )
    return encoder, decoder


def empty_past(decoder: ort.InferenceSession) -> dict[str, np.ndarray]:
    """Make keys and values of no token, in the precision of the graph."""
    return {
        item.name: np.zeros((1, item.shape[1], 0, item.shape[3]), NUMPY_TYPES[item.type])
        for item in decoder.get_inputs()
        if ".decoder." in item.name
    }


def numbers(value: int | list[int] | None) -> list[int]:
    """Make a list of one id, of several, or of none."""
    return [] if value is None else value if isinstance(value, list) else [value]


def answer(folder: Path, source_ids: list[int], new_tokens: int) -> list[int]:
    """Append the likeliest token until the text ends or ``new_tokens`` are there.

    The encoder reads the source once, and also gives the keys and values of cross attention.
    """
    encoder, decoder = open_sessions(folder)
    known = read(folder / "config.json") | read(folder / "generation_config.json")
    never = [word[0] for word in known.get("bad_words_ids") or [] if len(word) == 1]
    mask = np.ones((1, len(source_ids)), np.int64)
    cross = [item.name for item in encoder.get_outputs() if item.name.startswith("present.")]
    source = {"input_ids": np.array([source_ids], np.int64), "attention_mask": mask}
    feed = {"encoder_attention_mask": mask, **empty_past(decoder)}
    for name, value in zip(cross, encoder.run(cross, source), strict=True):
        feed[name.replace("present", "past_key_values")] = value
    names = [item.name for item in decoder.get_outputs()]
    step = [known["decoder_start_token_id"], *numbers(known.get("forced_bos_token_id"))]
    generated: list[int] = []
    while len(generated) < new_tokens:
        outputs = decoder.run(names, feed | {"input_ids": np.array([step], np.int64)})
        for name, value in zip(names[1:], outputs[1:], strict=True):
            feed[name.replace("present", "past_key_values")] = value
        logits = outputs[0][0, -1].copy()
        logits[never] = -np.inf
        token = int(logits.argmax())
        if token in numbers(known.get("eos_token_id")):
            break
        generated.append(token)
        step = [token]
    return generated


if __name__ == "__main__":
    bundle, text = Path(sys.argv[1]), sys.argv[2]
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    limit = int(sys.argv[3]) if len(sys.argv) > 3 else 128
    print(tokenizer.decode(answer(bundle, tokenizer.encode(text).ids, limit)))
