"""Places of models: the Hub, a folder, a GGUF file, or code of the user's own.

What is no Hugging Face folder becomes one, in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from edgelr.core.cache import Cache, digest
from edgelr.core.errors import InputError
from edgelr.model.checkpoints.adapters import merged
from edgelr.model.checkpoints.folders import save_plain
from edgelr.model.checkpoints.gguf_model import from_gguf
from edgelr.model.checkpoints.quantized import dequantized
from edgelr.model.checkpoints.sentence_folders import with_transformer
from edgelr.model.checkpoints.tokenizer_files import with_fast_tokenizer
from edgelr.model.torch_modules import call_factory


def folder_of(source: str, cache: Cache, revision: str | None) -> Path:
    """Find the Hugging Face folder of a source, or make it.

    Args:
        source: name of the model, see ``load.load``.
        cache: cache that keeps what is made of a GGUF file, a factory's model, an adapter, or
            quantized weights.
        revision: branch, tag or commit of a Hub id.

    Raises:
        InputError: the source is none of these, or cannot be read.
    """
    path = Path(source)
    if source.endswith(".onnx"):
        raise InputError(
            f"{source} is an ONNX graph, which only export and plan take. This command needs more "
            f"than its nodes. Give the model that the graph was exported from."
        )
    if path.suffix == ".gguf":
        return from_gguf(path, cache)
    if path.is_dir():
        return _plain(path, cache)
    if ":" in source and not path.exists():
        return _from_factory(source, cache)
    if path.exists() or source.startswith((".", "/", "~")):
        raise InputError(
            f"{source} is {'a file' if path.exists() else 'missing'}; expected a model folder, a "
            f".gguf file, package.module:factory or a Hub id. Give the folder of config.json."
        )
    return _plain(_from_hub(source, revision), cache)


def _plain(folder: Path, cache: Cache) -> Path:
    """Give a folder of float weights with a ``tokenizer.json``: itself, where it is one."""
    folder = with_transformer(folder, cache)
    whole = merged(folder, cache, lambda base, revision: folder_of(base, cache, revision))
    return with_fast_tokenizer(dequantized(whole, cache), cache)


def _from_factory(source: str, cache: Cache) -> Path:
    """Keep the model that ``package.module:factory`` returns as a Hugging Face folder."""
    return keep_pair(call_factory(source), f"{source}()", cache)


def keep_pair(made: Any, source: str, cache: Cache) -> Path:
    """Keep a model in memory and its tokenizer or processor as a Hugging Face folder.

    Args:
        made: ``(model, tokenizer)`` or ``(model, processor)`` of transformers.
        source: name of the two, for messages.
        cache: cache that keeps the folder.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(made, tuple) or not isinstance(made[0], transformers.PreTrainedModel):
        raise InputError(
            f"{source} is {type(made).__name__}; expected (model, tokenizer) of transformers, or "
            f"(model, image processor): give both, from a factory too. Any other torch module is "
            f"taken from a factory with --task tensors: see docs/models.md."
        )
    model, tokenizer = made
    state = {name: tensor.sum().item() for name, tensor in model.state_dict().items()}
    key = digest(source, model.config.to_json_string(), state)
    return cache.stage("model", key, lambda folder: save_plain(model, tokenizer, folder))[0]


def _from_hub(source: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*.spm", "*.jinja", "*.py"]
    patterns += ["*/config.json", "README.md"]  # the last names the license
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"{source!r} is no local folder or file, and the Hub gave no model of that name "
            f"({type(error).__name__}). Check the spelling, the network and your access, or give a "
            f"local folder or .gguf file."
        ) from error
