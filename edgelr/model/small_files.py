"""Small files of a model folder, read without torch: configurations and vocabularies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgelr.core.errors import InputError

CONFIG = "config.json"
FAST = "tokenizer.json"
# Files that a tokenizer can be made of; tokenizer_config.json alone gives an empty vocabulary.
VOCABULARIES = (FAST, "vocab.txt", "vocab.json", "*.model", "*.spm", "*.tiktoken")
_SHOWN = 5  # tokens that a message names


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        InputError: it holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is no JSON, or cannot be read ({error}); expected an object. Copy or download "
            f"it again."
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds a {type(found).__name__}; expected a JSON object.")
    return found


def matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """List the files of a folder that match one of the patterns, sorted."""
    return sorted({path for each in patterns for path in folder.glob(each) if path.is_file()})


def require_tokenizer(folder: Path, source: str, rows: int, made: bool = True) -> None:
    """Refuse a model of texts without a tokenizer, and a tokenizer with ids beyond the model's.

    Args:
        folder: folder of the model.
        source: name of the model, for messages.
        rows: number of rows in its table of embeddings.
        made: whether ``tokenizer.json`` has been made of other files, where there are any.

    Raises:
        InputError: there is no tokenizer, or one of its ids has no row in the table of embeddings.
    """
    if not (folder / FAST).is_file():
        if not made and matching(folder, VOCABULARIES):
            return
        raise InputError(
            f"{source} reads or writes texts, and {folder} has no tokenizer; expected {FAST}, or "
            f"files that it can be made of ({', '.join(VOCABULARIES[1:])}). Save one there with "
            f"AutoTokenizer.from_pretrained(...).save_pretrained(folder)."
        )
    beyond = {token: index for token, index in token_ids(folder / FAST).items() if index >= rows}
    if beyond:
        named = [f"{token!r} ({index})" for token, index in list(beyond.items())[:_SHOWN]]
        one = len(beyond) == 1
        raise InputError(
            f"The tokenizer of {source} has {'a token' if one else f'{len(beyond):,} tokens'} "
            f"without a row in the model's table of embeddings: {', '.join(named)}"
            f"{', ...' if len(beyond) > _SHOWN else ''}. Expected ids below {rows:,}, its rows. "
            f"Give the model rows for them (model.resize_token_embeddings(len(tokenizer))), or "
            f"remove them from {FAST}."
        )


def token_ids(path: Path) -> dict[str, int]:
    """Read the id of every token in ``tokenizer.json``, added ones too; the largest come last."""
    found = read_json(path)
    vocabulary = found.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, list):  # Unigram: pairs of a token and its score
        vocabulary = {token: index for index, (token, _) in enumerate(vocabulary)}
    added = {each["content"]: each["id"] for each in found.get("added_tokens", [])}
    return dict(sorted({**vocabulary, **added}.items(), key=lambda pair: pair[1]))


def read_architecture(path: Path) -> str | None:
    """Read the architecture of a GGUF file from its first metadata, where all writers put it.

    Returns:
        None where it does not come first.

    Raises:
        InputError: it is no GGUF file.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] != b"GGUF":
        raise InputError(
            f"{path} does not begin like a GGUF file; expected a whole one. Copy the file again."
        )
    place, texts = 24, []  # magic, version, counts of tensors and of metadata
    for skipped in (4, 0):  # the type of the value stands between key and text
        length = int.from_bytes(head[place : place + 8], "little")
        texts.append(head[place + 8 : place + 8 + length])
        place += 8 + length + skipped
    key, value = texts
    return value.decode(errors="replace") if key == b"general.architecture" else None
