"""Tokenizers of GGUF files, as transformers makes them, and what it leaves away or adds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from tokenizers import pre_tokenizers
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from edgelr.core.errors import InputError
from edgelr.model.checkpoints.folders import quiet_transformers
from edgelr.model.checkpoints.gguf_files import readable
from edgelr.model.checkpoints.gguf_metadata import GgufModel
from edgelr.model.small_files import read_json

FAST = "tokenizer.json"
_TOKENS = "tokenizer.ggml.tokens"
_SPLIT = "tokenizer.ggml.pre"
_AS_GPT2 = ("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "roberta-bpe")
_EACH_DIGIT = ("smollm", "starcoder", "refact", "command-r", "codeshell")  # and else as GPT-2


def read_tokenizer(first: Path, model: GgufModel) -> Any:
    """Read the tokenizer of a GGUF file.

    Args:
        first: file that has the metadata.
        model: model of the file.

    Raises:
        InputError: texts are split in a way that is not understood, or the tokenizer is broken.
    """
    split = model.values.get(_SPLIT)
    byte_level = model.values.get("tokenizer.ggml.model") == "gpt2"
    known = (*GGUF_PRE_TOKENIZER_SPLITS, *_AS_GPT2, *_EACH_DIGIT)
    if byte_level and split is not None and split not in known:
        raise InputError(
            f"{model.path} has {_SPLIT} = {split!r}, which says how texts are cut before they are "
            f"tokens; expected one of {', '.join(sorted(known))}. Give the original model."
        )
    with readable(model.path), quiet_transformers():
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
            first.parent, gguf_file=first.name, local_files_only=True
        )
    if byte_level and split in _EACH_DIGIT:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    return tokenizer


def remove_further_tokens(folder: Path, model: GgufModel) -> None:
    """Remove the tokens that transformers adds to those of the file, such as an end of its own."""
    saved = read_json(folder / FAST)
    count = len(model.values.get(_TOKENS) or ())
    saved["added_tokens"] = [each for each in saved["added_tokens"] if each["id"] < count]
    (folder / FAST).write_text(json.dumps(saved, ensure_ascii=False, indent=1), encoding="utf-8")
