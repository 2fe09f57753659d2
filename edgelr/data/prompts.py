"""Prompts that images are compared with: labels, each in a sentence, and their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgelr.core.errors import InputError
from edgelr.core.inputs import Matching, Prompts
from edgelr.data.file_lists import listed
from edgelr.data.text import read_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from edgelr.core.settings import Settings
    from edgelr.data.text import Texts

PLACE = "{}"  # of the label in a template
FEWEST = 2


def choose_prompts(settings: Settings, texts: Texts) -> tuple[str, ...]:
    """Put every label of a run into the template: those of a file, or names of sub-folders.

    Raises:
        InputError: there are fewer than two labels, or the template has no place for them.
    """
    template = settings.label_template
    if PLACE not in template:
        raise InputError(
            f"--label-template {template!r} has no {PLACE}; expected the place of the label, as in "
            f"'a photo of a {PLACE}'. Give '{PLACE}' alone where labels are whole sentences."
        )
    if settings.labels is None:
        labels, found = _sub_folders(settings, texts), "sub-folders with images"
    else:
        lines = read_text(Path(settings.labels)).splitlines()
        labels = list(dict.fromkeys(filter(None, map(str.strip, lines))))
        found = f"labels in {settings.labels}"
    if len(labels) < FEWEST:
        raise InputError(
            f"The model chooses one of several labels for an image, and there are {len(labels)} "
            f"{found}; expected at least {FEWEST}. Put the images of every label into a sub-folder "
            f"of its name, or give --labels FILE with one label a line."
        )
    return tuple(template.replace(PLACE, label) for label in labels)


def _sub_folders(settings: Settings, texts: Texts) -> list[str]:
    """Name the folders that images lie in, other than those that were named; words by spaces."""
    given = (*settings.calibration, *filter(None, [settings.evaluation]))
    roots = {Path(each).resolve() for each in given}
    parts = (texts.evaluation, texts.selection, *(text or "" for _, text in texts.calibration))
    folders = {path.parent for part in parts for path in listed(part)} - roots
    return sorted({folder.name.replace("_", " ") for folder in folders})


def tokenized(prompts: Sequence[str], tokenizer: Tokenizer, matching: Matching) -> Prompts:
    """Read texts as a model does that compares them with images; the longest are cut."""
    tokenizer.enable_truncation(matching.tokens)
    length = matching.tokens if matching.padded else None
    tokenizer.enable_padding(pad_id=matching.pad_token, length=length)
    encodings = tokenizer.encode_batch(list(prompts))
    ids = np.array([encoding.ids for encoding in encodings], np.int64)
    if matching.padded:
        return Prompts(ids, np.ones_like(ids))
    return Prompts(ids, np.array([encoding.attention_mask for encoding in encodings], np.int64))
