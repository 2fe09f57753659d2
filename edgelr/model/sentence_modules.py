"""What a folder of sentence-transformers puts behind its encoder: pooling, and nothing else.

Files of old and new versions name the pooling differently; what is not understood is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgelr.core.errors import InputError
from edgelr.core.vocabulary import Pooling
from edgelr.model.architecture import MODULES

POOLINGS: Mapping[str, Pooling] = {
    "cls": "cls",
    "cls_token": "cls",
    "mean": "mean",
    "mean_tokens": "mean",
    "max": "max",
    "max_tokens": "max",
    "mean_sqrt_len": "mean_sqrt_len",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "weightedmean_tokens": "weighted_mean",
    "lasttoken": "last_token",
}
KNOWN = ("Transformer", "Pooling", "Normalize")  # embeddings always have length 1
FLAG = "pooling_mode_"  # of older files: one for every rule


def pooling_of(folder: Path) -> Pooling:
    """Read how a sentence encoder pools its tokens; ``mean`` where nothing says.

    Raises:
        InputError: there are modules, or a pooling, that edgelr does not know.
    """
    configs = [folder / "1_Pooling" / "config.json"]
    if (folder / MODULES).exists():
        configs = [folder / path / "config.json" for path in _pooling_paths(folder)]
    _require_plain_texts(folder)
    if not configs or not configs[0].exists():
        return "mean"
    return _read_pooling(configs[0])


def _pooling_paths(folder: Path) -> list[str]:
    """List the folders of the poolings in modules.json."""
    path = folder / MODULES
    modules = json.loads(path.read_text(encoding="utf-8"))
    kinds = [str(each["type"]).rpartition(".")[2] for each in modules]
    unknown = [kind for kind in kinds if kind not in KNOWN]
    if unknown or kinds[:1] != ["Transformer"] or kinds.count("Pooling") > 1:
        raise InputError(
            f"{path} names the modules {', '.join(kinds)}. Expected Transformer, then Pooling and "
            f"Normalize: a bundle without {', '.join(unknown) or 'the others'} would give other "
            f"embeddings. Delete {MODULES} to compress the Transformer alone."
        )
    if modules[0]["path"]:
        raise InputError(
            f"{path} has its Transformer in {modules[0]['path']}; expected it in the folder "
            f"itself. Copy the files of {folder / modules[0]['path']} to {folder}, and set the "
            f"path of the Transformer in {MODULES} to an empty text."
        )
    return [
        str(each["path"]) for each, kind in zip(modules, kinds, strict=True) if kind == "Pooling"
    ]


def _read_pooling(path: Path) -> Pooling:
    """Read the one rule of a pooling's configuration."""
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    told = config.get("pooling_mode")
    modes = [told] if isinstance(told, str) else list(told or ())
    modes += [
        key.removeprefix(FLAG) for key, value in config.items() if key.startswith(FLAG) and value
    ]
    if len(modes) == 1 and modes[0] in POOLINGS and config.get("include_prompt", True):
        return POOLINGS[modes[0]]
    if not modes:
        return "mean"
    leaves = "" if config.get("include_prompt", True) else ", which leaves prompts out"
    raise InputError(
        f"{path} asks for the pooling {' and '.join(map(str, modes))}{leaves}; expected one of "
        f"{', '.join(dict.fromkeys(POOLINGS.values()))}, over all tokens of a text. edgelr would "
        f"give other embeddings."
    )


def _require_plain_texts(folder: Path) -> None:
    """Refuse texts that sentence-transformers changes before they are tokenized."""
    path = folder / "sentence_bert_config.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")).get("do_lower_case"):
        raise InputError(
            f"{path} lets texts be lower-cased before they are tokenized; expected a tokenizer "
            f"that does so itself. Add a lower-casing normalizer to tokenizer.json, and set "
            f"do_lower_case to false."
        )


def prompts_of(folder: Path) -> dict[str, str]:
    """Read the texts that sentence-transformers puts before what is embedded, by their names.

    The one that is put before every text is named ``""``.
    """
    path = folder / "config_sentence_transformers.json"
    if not path.exists():
        return {}
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    prompts = {name: text for name, text in (config.get("prompts") or {}).items() if text}
    usual = prompts.get(config.get("default_prompt_name") or "")
    return {**prompts, **({"": usual} if usual else {})}
