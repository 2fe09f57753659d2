"""A chat in the terminal with plain onnxruntime: python chat.py FOLDER [NEW_TOKENS].

Models with a chat template need jinja2, which renders it. An empty line ends the chat.
"""

import json
import sys
from collections.abc import Iterator
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


class Model:
    """A decoder and its cache, which is filled once and keeps what a conversation repeats."""

    def __init__(self, folder: Path) -> None:
        manifest, config = read(folder / "edgelr" / "manifest.json"), read(folder / "config.json")
        providers = [name for name in PROVIDERS if name in ort.get_available_providers()]
        options = ort.SessionOptions()
        options.enable_mem_pattern = False  # as fast, in less memory
        path = str(folder / manifest["model_file"])
        self._session = ort.InferenceSession(path, options, providers=providers)
        self.room = manifest["context_tokens"]
        self.ends = _ids(config.get("eos_token_id")) | _ids(
            read(folder / "generation_config.json").get("eos_token_id")
        )
        self._cache = self._make_cache(config)
        self._cached: list[int] = []  # tokens whose keys and values the cache holds

    def next_token(self, ids: list[int]) -> int:
        """Read those of ``ids`` that the cache does not hold; return the likeliest next one."""
        same = [ours == theirs for ours, theirs in zip(self._cached, ids[:-1], strict=False)]
        past = same.index(False) if False in same else len(same)
        total, inputs = len(ids), {item.name for item in self._session.get_inputs()}
        feed = {
            "input_ids": np.array([ids[past:]], np.int64),
            "attention_mask": np.ones((1, total), np.int64),
            "position_ids": np.arange(past, total, dtype=np.int64)[None],
        }
        binding = self._session.io_binding()
        for name in feed.keys() & inputs:
            binding.bind_cpu_input(name, feed[name])
        binding.bind_output("logits", "cpu")
        for name, room in self._cache.items():  # the graph writes into the cache in place
            binding.bind_ortvalue_input(name, room)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), room)
        self._session.run_with_iobinding(binding)
        self._cached = list(ids)
        return int(binding.get_outputs()[0].numpy()[0, -1].argmax())

    def answer(self, ids: list[int], new_tokens: int) -> Iterator[int]:
        """Yield tokens until the text ends, enough are there, or the cache is full."""
        ids = list(ids)
        for _ in range(min(new_tokens, self.room - len(ids))):
            token = self.next_token(ids)
            if token in self.ends:
                return
            yield token
            ids.append(token)

    def _make_cache(self, config: dict[str, Any]) -> dict[str, ort.OrtValue]:
        head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        device = "cuda" if self._session.get_providers()[0].startswith("CUDA") else "cpu"
        cache = {}
        for item in self._session.get_inputs():
            if item.name.startswith("past_key_values."):
                _, heads, _, size = item.shape
                shape = (1, heads, self.room, size if isinstance(size, int) else head_size)
                room = np.zeros(shape, NUMPY_TYPES[item.type])
                cache[item.name] = ort.OrtValue.ortvalue_from_numpy(room, device)
        return cache


def _ids(value: int | list[int] | None) -> set[int]:
    return set(value) if isinstance(value, list) else set() if value is None else {value}


def render(folder: Path, messages: list[dict[str, str]]) -> str:
    """Write a conversation as the model expects it; without a template, one line per message."""
    settings = read(folder / "tokenizer_config.json")
    path = folder / "chat_template.jinja"
    template = path.read_text(encoding="utf-8") if path.exists() else settings.get("chat_template")
    if not template:
        return "".join(f"{message['content']}\n" for message in messages)
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    names = ("bos_token", "eos_token")
    tokens = {name: _text(settings.get(name)) for name in names}
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    drawn = environment.from_string(template)
    return drawn.render(messages=messages, add_generation_prompt=True, **tokens)


def _text(token: str | dict[str, Any] | None) -> str:
    return token.get("content", "") if isinstance(token, dict) else token or ""


def main(folder: Path, new_tokens: int) -> None:
    """Answer line after line, each with all that was said before."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model, messages = Model(folder), []
    while line := input("> "):
        messages.append({"role": "user", "content": line})
        ids = tokenizer.encode(render(folder, messages), add_special_tokens=False).ids
        if len(ids) >= model.room:
            sys.exit(f"The conversation has {len(ids)} tokens, and the cache {model.room}.")
        made: list[int] = []
        shown = ""
        for token in model.answer(ids, new_tokens):
            made.append(token)
            text = tokenizer.decode(made)
            print(text[len(shown) :], end="", flush=True)
            shown = text
        print()
        messages.append({"role": "assistant", "content": shown})


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 256)
    except (EOFError, KeyboardInterrupt):
        print()
