"""Places of models: the Hub, a folder, a GGUF file, or code of the user's own.

What is no Hugging Face folder becomes one, in float32.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from edgelr.core.cache import Cache, digest, file_digest
from edgelr.core.errors import InputError
from edgelr.core.quiet import is_verbose
from edgelr.model.torch_modules import call_factory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def folder_of(source: str, cache: Cache, revision: str | None) -> Path:
    """Find the Hugging Face folder of a source, or make it.

    Args:
        source: name of the model, see ``load.load``.
        cache: cache that keeps a GGUF file or a factory's model.
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
        return _from_gguf(_existing(path), cache)
    if path.is_dir():
        return path
    if ":" in source and not path.exists():
        return _from_factory(source, cache)
    if path.exists() or source.startswith((".", "/", "~")):
        raise InputError(
            f"{source} is {'a file' if path.exists() else 'missing'}; expected a model folder, a "
            f".gguf file, package.module:factory or a Hub id. Give the folder of config.json."
        )
    return _from_hub(source, revision)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a .gguf file.")
    return path


def _from_gguf(path: Path, cache: Cache) -> Path:
    """Keep a GGUF file's weights, dequantized to float32, as a Hugging Face folder."""

    def build(folder: Path) -> None:
        try:
            model, tokenizer, found = _read_gguf(path)
        except (OSError, ValueError, LookupError, struct.error) as error:
            raise InputError(
                f"{path} cannot be read by transformers {transformers.__version__} ({error}); "
                f"expected a whole GGUF file of an architecture that it knows. Copy the file "
                f"again, or give the original model."
            ) from error
        require_complete(found, str(path))
        _save(model, tokenizer, folder)

    return cache.stage("model", file_digest([path]), build)[0]


def _read_gguf(path: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Read model, tokenizer, and which weights were found."""
    auto_class: Any = transformers.AutoModelForCausalLM
    with quiet_transformers():
        model, found = auto_class.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are named
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            path.parent, gguf_file=path.name, local_files_only=True
        )
    return model, tokenizer, found


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
    return cache.stage("model", key, lambda folder: _save(model, tokenizer, folder))[0]


def _from_hub(source: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.py", "*/config.json"]
    patterns.append("README.md")  # names the license
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"{source!r} is no local folder or file, and the Hub gave no model of that name "
            f"({type(error).__name__}). Check the spelling, the network and your access, or give a "
            f"local folder or .gguf file."
        ) from error


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> None:
    """Write a plain float32 Hugging Face folder, without the marks of a quantized origin."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    if getattr(model, "hf_quantizer", None) is not None:
        model.hf_quantizer = None  # type: ignore[assignment]
        model.is_quantized = False  # type: ignore[assignment]
    with quiet_transformers():
        model.float().save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)


def require_complete(found: dict[str, Any], source: str, has_head: bool = False) -> None:
    """Refuse a checkpoint whose gaps transformers would fill with random numbers."""
    way_out = ", or give --task feature-extraction to leave the head away" if has_head else ""
    missing = sorted({*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])})
    if missing:
        raise InputError(
            f"{source} lacks {len(missing):,} weights of its own architecture, or has them in "
            f"another shape: {', '.join(missing[:3])}. Expected all that its configuration asks "
            f"for. Check that the two belong together, and that every file is there{way_out}."
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence progress bars that would break ours, and reports of weights that nobody asked for."""
    if is_verbose():
        yield
        return
    logging = transformers.utils.logging
    before = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with redirect_stderr(StringIO()):  # the GGUF reader draws a bar of its own
            yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()
