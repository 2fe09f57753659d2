"""What a folder of sentence-transformers puts behind its encoder: pooling, and Dense layers.

Files of old and new versions name the pooling differently; what is not understood is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
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
KNOWN = ("Transformer", "Pooling", "Dense", "Normalize")  # embeddings always have length 1
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU")  # of a Dense layer
FLAG = "pooling_mode_"  # of older files: one for every rule


@dataclass(frozen=True)
class DenseLayer:
    """A linear and an activation function behind the pooling.

    Attributes:
        weights: file with ``linear.weight (out_features, in_features)`` and maybe ``linear.bias``.
        activation: name of a class of ``torch.nn``, one of ``ACTIVATIONS``.
    """

    weights: Path
    activation: str


def transformer_folder(folder: Path) -> Path:
    """Find the folder with the configuration and the weights: itself, or one inside."""
    path = folder / MODULES
    if not path.exists() or (folder / "config.json").exists():
        return folder
    modules = json.loads(path.read_text(encoding="utf-8"))
    return folder / str(modules[0]["path"]) if modules else folder


def dense_layers_of(folder: Path) -> tuple[DenseLayer, ...]:
    """Read the Dense layers behind the pooling, in their order.

    Raises:
        InputError: one has an activation that edgelr does not know, reads something else than the
            pooled embedding, or has no weights that are safe to open.
    """
    if not (folder / MODULES).exists():
        return ()
    return tuple(_read_dense(folder / path) for path in _paths(folder, "Dense"))


def _read_dense(folder: Path) -> DenseLayer:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    told = str(config.get("activation_function", "Tanh"))
    reads = config.get("module_input_name", "sentence_embedding")
    name, weights = told.rpartition(".")[2], folder / "model.safetensors"
    if name not in ACTIVATIONS or reads != "sentence_embedding":
        raise InputError(
            f"{folder} is a Dense layer of {reads} with the activation {told}; expected one of "
            f"sentence_embedding with {', '.join(ACTIVATIONS)}. edgelr would give other embeddings."
        )
    if not weights.exists():
        raise InputError(
            f"{folder} holds no model.safetensors; expected the weights of a Dense layer there. "
            f"Opening a pickle can run code: where you trust it, save the model again by "
            f"SentenceTransformer(...).save(folder)."
        )
    return DenseLayer(weights, name)


def pooling_of(folder: Path) -> Pooling:
    """Read how a sentence encoder pools its tokens; ``mean`` where nothing says.

    Raises:
        InputError: there are modules, or a pooling, that edgelr does not know.
    """
    configs = [folder / "1_Pooling" / "config.json"]
    if (folder / MODULES).exists():
        configs = [folder / path / "config.json" for path in _paths(folder, "Pooling")]
    _require_plain_texts(folder)
    if not configs or not configs[0].exists():
        return "mean"
    return _read_pooling(configs[0])


def _paths(folder: Path, kind: str) -> list[str]:
    """List the folders of the modules of a kind in modules.json."""
    path = folder / MODULES
    modules = json.loads(path.read_text(encoding="utf-8"))
    kinds = [str(each["type"]).rpartition(".")[2] for each in modules]
    unknown = [each for each in kinds if each not in KNOWN]
    ordered = unknown or kinds == sorted(kinds, key=KNOWN.index)
    alone = kinds[:1] == ["Transformer"] and max(map(kinds.count, KNOWN[:2])) == 1
    if unknown or not (ordered and alone):
        raise InputError(
            f"{path} names the modules {', '.join(kinds)}. Expected Transformer, then Pooling, "
            f"Dense and Normalize: a bundle without {', '.join(unknown) or 'the others'} would "
            f"give other embeddings. Delete {MODULES} to compress the Transformer alone."
        )
    return [str(each["path"]) for each, name in zip(modules, kinds, strict=True) if name == kind]


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
