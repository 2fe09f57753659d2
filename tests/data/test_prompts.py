"""Prompts: labels in sentences, and the tokens that a model reads of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from edgelr.core.errors import InputError
from edgelr.core.inputs import Matching
from edgelr.core.settings import Settings, make_settings
from edgelr.data.prompts import choose_prompts, tokenized
from edgelr.data.text import Texts
from tests.conftest import make_tokenizer

LABELS = ("grey boat", "sea", "the river that runs from the hills to the sea")
MATCHING = Matching(scale=10.0, bias=0.0, tokens=12, pad_token=3, padded=False)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_tokenizer(160, ends=True)


def listing(*paths: Path) -> str:
    return "\n".join(f"{path}\t1\t1" for path in paths)


def run(folder: Path, **options: object) -> tuple[Settings, Texts]:
    """A run that is calibrated on one part of a folder's images, and judged on the others."""
    images = [folder / name for name in ("grey_boat/0.png", "sea/0.png", "sea/1.png", "top.png")]
    texts = Texts(
        evaluation=listing(images[0], images[3]),
        selection=listing(images[1]),
        calibration=((str(folder), listing(images[2])), ("self", None)),
        evaluation_name=str(folder),
    )
    return make_settings(model="m", calibration=(str(folder),), **options), texts


# --- labels --------------------------------------------------------------------------------------


def test_sub_folders_are_labels_but_not_the_folder_that_was_given(tmp_path: Path) -> None:
    assert choose_prompts(*run(tmp_path)) == ("a photo of a grey boat", "a photo of a sea")


def test_lines_of_a_file_are_labels_in_their_order_once_each(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("sea\n\n  grey boat \nsea\n")
    found = choose_prompts(*run(tmp_path, labels=str(path), label_template="{} or {}"))
    assert found == ("sea or sea", "grey boat or grey boat")


def test_one_label_is_no_choice(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("sea\nsea\n")
    with pytest.raises(InputError, match=r"there are 1 labels in .*labels\.txt; expected at least"):
        choose_prompts(*run(tmp_path, labels=str(path)))
    settings, texts = run(tmp_path)
    alone = replace(texts, selection="", calibration=())
    with pytest.raises(InputError, match="there are 1 sub-folders with images"):
        choose_prompts(settings, alone)


def test_a_template_without_a_place_is_refused_before_any_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'a photo' has no \{\}"):
        choose_prompts(*run(tmp_path, labels="missing.txt", label_template="a photo"))


# --- tokens --------------------------------------------------------------------------------------


def test_a_mask_covers_what_was_read_and_the_longest_is_cut(tokenizer: Tokenizer) -> None:
    found = tokenized(LABELS, tokenizer, MATCHING)
    assert found.ids.shape == found.mask.shape == (3, MATCHING.tokens)
    assert set(found.ids[found.mask == 0]) == {MATCHING.pad_token}
    tokenizer.no_padding()
    for label, ids, mask in zip(LABELS, found.ids, found.mask, strict=True):
        assert ids[mask == 1].tolist() == tokenizer.encode(label).ids
    assert found.ids[2, -1] == 2  # the end of the text stays


def test_short_prompts_have_the_length_of_the_longest_unless_all_are_padded(
    tokenizer: Tokenizer,
) -> None:
    short = tokenized(LABELS[:2], tokenizer, MATCHING)
    assert short.ids.shape[1] < MATCHING.tokens
    assert short.mask.all(1).tolist() == [True, False]
    padded = tokenized(LABELS[:2], tokenizer, replace(MATCHING, padded=True))
    assert padded.ids.shape == (2, MATCHING.tokens)
    assert padded.mask.all()  # padding is read like any other token
