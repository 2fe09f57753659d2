"""Tokenizers of model folders: ``tokenizer.json`` made of older files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import transformers

from edgelr.core.cache import Cache, digest, file_digest
from edgelr.core.errors import EnvironmentProblem, InputError
from edgelr.model.checkpoints.folders import (
    carried_files,
    carry,
    link,
    quiet_transformers,
    read_config,
)
from edgelr.model.small_files import FAST, VOCABULARIES, matching, read_json, token_ids

_LIBRARIES = {
    "sentencepiece": "sentencepiece protobuf",
    "tiktoken": "tiktoken",
    "google": "protobuf",
}


def with_fast_tokenizer(folder: Path, cache: Cache) -> Path:
    """Give a folder with ``tokenizer.json`` for one that has other files of a tokenizer.

    Args:
        folder: Hugging Face folder; one with the file, or without a tokenizer, is returned as it
            is.
        cache: cache that keeps the folder with the file; its weights are links.

    Raises:
        InputError: transformers cannot read the tokenizer, or has none of that file for it.
        EnvironmentProblem: a library that reads it is missing.
    """
    if (folder / FAST).is_file() or not read_config(folder) or not matching(folder, VOCABULARIES):
        return folder
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.index.json")]
    files = carried_files(folder)
    changes = [(path.name, path.stat().st_mtime_ns) for path in sorted(weights)]
    names = [path.relative_to(folder).as_posix() for path in files]
    key = digest("tokenizer", str(folder.resolve()), names, file_digest(files), changes)

    def build(out: Path) -> None:
        _save_fast(folder, out)
        carry(folder, out)
        for path in weights:
            link(path, out)

    return cache.stage("model", key, build)[0]


def _save_fast(folder: Path, out: Path) -> None:
    """Let transformers read a tokenizer, and write it as one file."""
    for path in matching(folder, ("vocab.json", "tokenizer_config.json")):
        read_json(path)  # of broken ones tokenizers raises a bare Exception
    try:
        with quiet_transformers():
            found: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            found.save_pretrained(out)
    except (ImportError, OSError, ValueError, LookupError, TypeError) as error:
        raise _unreadable(folder, error) from error
    if not (out / FAST).is_file():
        raise InputError(
            f"{folder} has a tokenizer of the class {type(found).__name__}, which transformers "
            f"{transformers.__version__} cannot write as {FAST}; expected one that it can. Give "
            f"the model with a {FAST}."
        )
    known, named = token_ids(out / FAST), _named_tokens(folder)
    lost = [token for token in named if token not in known]
    if lost:
        raise InputError(
            f"{folder} names {len(named):,} tokens, of which {type(found).__name__}, as "
            f"transformers makes it of these files, lacks {len(lost):,} ({lost[0]!r} first). "
            f"Expected all of them: the class may be another's. Give the model with a {FAST}."
        )


def _named_tokens(folder: Path) -> list[str]:
    """List the tokens of the vocabularies that are texts."""
    words = folder / "vocab.txt"
    named = words.read_text(encoding="utf-8").splitlines() if words.is_file() else []
    pairs = folder / "vocab.json"
    return [*filter(None, named), *(read_json(pairs) if pairs.is_file() else ())]


def _unreadable(folder: Path, error: Exception) -> EnvironmentProblem | InputError:
    """Tell a library that is missing from a tokenizer that is broken."""
    told = str(error).lower()
    binary = bool(matching(folder, ("*.model", "*.spm", "*.tiktoken")))
    for library, packages in _LIBRARIES.items():
        if binary and library in f"sentencepiece {told}" and find_spec(library) is None:
            return EnvironmentProblem(
                f"{folder} has a tokenizer that {library} reads, which is not installed. Install "
                f"it (pip install {packages}), or give the model with a {FAST}."
            )
    return InputError(
        f"{folder} has no {FAST}, and its other tokenizer files cannot be read by transformers "
        f"{transformers.__version__} ({error}). Expected a whole tokenizer. Save it where it "
        f"loads: AutoTokenizer.from_pretrained(...).save_pretrained(folder)."
    )
