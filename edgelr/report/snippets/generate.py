"""Greedy generation with plain onnxruntime: python generate.py FOLDER PROMPT [NEW_TOKENS]."""

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


def open_session(folder: Path) -> ort.InferenceSession:
    """Load the graph that the manifest names, on a GPU where onnxruntime has one."""
    providers = [name for name in PROVIDERS if name in ort.get_available_providers()]
    model_file = read(folder / "edgelr" / "manifest.json")["model_file"]
    options = ort.SessionOptions()
    options.enable_mem_pattern = False  # as fast, in less memory
    return ort.InferenceSession(str(folder / model_file), options, providers=providers)


def make_cache(
    session: ort.InferenceSession, config: dict[str, Any], tokens: int
) -> dict[str, ort.OrtValue]:
    """Make room for keys and values, with the head count and the precision of the graph."""
    device = "cuda" if session.get_providers()[0].startswith("CUDA") else "cpu"
    cache = {}
    for item in session.get_inputs():
        if item.name.startswith("past_key_values."):
            _, heads, _, size = item.shape
            shape = (1, heads, tokens, size if isinstance(size, int) else config["head_dim"])
            room = np.zeros(shape, NUMPY_TYPES[item.type])
            cache[item.name] = ort.OrtValue.ortvalue_from_numpy(room, device)
    return cache


def end_tokens(folder: Path) -> set[int]:
    """Collect the ids that end a text; generation_config.json may know more than config.json."""
    files = (folder / "config.json", folder / "generation_config.json")
    ends = [read(file).get("eos_token_id", []) for file in files]
    return {token for end in ends for token in (end if isinstance(end, list) else [end])}


def generate(folder: Path, prompt_ids: list[int], new_tokens: int) -> list[int]:
    """Append the likeliest token until the text ends or ``new_tokens`` are there.

    The graph writes new keys and values into the cache in place: it is there once, and not copied.
    """
    session, ends = open_session(folder), end_tokens(folder)
    cache = make_cache(session, read(folder / "config.json"), len(prompt_ids) + new_tokens)
    inputs = {item.name for item in session.get_inputs()}
    generated: list[int] = []
    step, past = prompt_ids, 0  # the tokens to read now; how many the cache holds
    while len(generated) < new_tokens:
        total = past + len(step)
        feed = {
            "input_ids": np.array([step], np.int64),
            "attention_mask": np.ones((1, total), np.int64),
            "position_ids": np.arange(past, total, dtype=np.int64)[None],
        }
        binding = session.io_binding()
        for name in feed.keys() & inputs:
            binding.bind_cpu_input(name, feed[name])
        binding.bind_output("logits", "cpu")
        for name, room in cache.items():
            binding.bind_ortvalue_input(name, room)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), room)
        session.run_with_iobinding(binding)
        token = int(binding.get_outputs()[0].numpy()[0, -1].argmax())
        if token in ends:
            break
        generated.append(token)
        step, past = [token], total
    return generated


if __name__ == "__main__":
    bundle, prompt = Path(sys.argv[1]), sys.argv[2]
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    limit = int(sys.argv[3]) if len(sys.argv) > 3 else 64
    print(prompt + tokenizer.decode(generate(bundle, tokenizer.encode(prompt).ids, limit)))
