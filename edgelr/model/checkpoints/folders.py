"""Hugging Face folders as transformers reads and writes them, in float32."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers

from edgelr.core.errors import InputError
from edgelr.core.quiet import is_verbose
from edgelr.model.small_files import CONFIG, VOCABULARIES, matching, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENIZER = (
    *VOCABULARIES,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
)
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.gguf", "*.onnx*")
_NOT_CARRIED = (*WEIGHTS, "*.index.json", "adapter_*")


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json``; empty where there is none.

    Raises:
        InputError: it is no JSON.
    """
    return read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}


def carried_files(folder: Path) -> list[Path]:
    """List what a plain copy takes over: all but the weights, an adapter and hidden files.

    Of folders inside, those of sentence-transformers' modules, which have a ``config.json``.
    """
    left = set(matching(folder, _NOT_CARRIED))
    modules = [path.parent for path in folder.glob("*/config.json")]
    inside = [path for each in modules for path in each.glob("*") if ".onnx" not in path.name]
    files = [path for path in (*folder.glob("*"), *inside) if path.is_file()]
    return sorted(path for path in files if path not in left and path.name[0] != ".")


def carry(source: Path, folder: Path, left: Collection[Path] = ()) -> None:
    """Copy into ``folder`` what lies beside the weights of ``source``, if it is not there yet."""
    for path in carried_files(source):
        target = folder / path.relative_to(source)
        if path not in left and not target.exists():
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)


def link(path: Path, folder: Path) -> None:
    """Give a file another place without its bytes, or copy it where links are not allowed."""
    try:
        (folder / path.name).symlink_to(path.resolve())
    except OSError:
        shutil.copyfile(path, folder / path.name)


def save_plain(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path
) -> None:
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
