"""Pairs of texts: of files, made of a plain text, and what is done to their scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgelr.core.errors import InputError
from edgelr.data.pairs import (
    activation_of,
    as_lines,
    from_lines,
    pairs_in,
    pairs_of_text,
    read_pairs,
)

IDENTITY = "torch.nn.modules.linear.Identity"
TEXT = " ".join(f"Sentence number {n} tells of boat {n} on the river." for n in range(12))


@pytest.mark.parametrize(
    "keys", [("text", "text_pair"), ("query", "passage"), ("query", "document")]
)
def test_lines_of_json_hold_pairs(tmp_path: Path, keys: tuple[str, str]) -> None:
    path = tmp_path / "pairs.jsonl"
    lines = [{keys[0]: "who?", keys[1]: f"me {n}", "label": 1} for n in range(3)]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert pairs_in(path) == read_pairs(path) == [("who?", f"me {n}") for n in range(3)]
    assert read_pairs(path, 2) == [("who?", "me 0"), ("who?", "me 1")]


@pytest.mark.parametrize("head", ["", "query\tpassage\tscore\n"])
def test_the_first_columns_of_a_table_are_pairs(tmp_path: Path, head: str) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text(f"{head}who?\tme\t0.5\nwhere?\there\n")
    assert pairs_in(path) == [("who?", "me"), ("where?", "here")]


def test_a_line_without_a_pair_is_told_where_others_have_one(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"query": "a", "passage": "b"}\n{"query": "a"}\n')
    with pytest.raises(InputError, match="line 2 holds no pair of texts"):
        pairs_in(path)


def test_texts_alone_are_paired_by_their_sentences(tmp_path: Path) -> None:
    """The beginning of a sentence with all of it, with the next, and with one from far away."""
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    assert pairs_in(path) is None
    begins, following, far, *_ = found = read_pairs(path)
    assert found == pairs_of_text(TEXT)
    assert begins == (
        "Sentence number 0 tells of boat",
        "Sentence number 0 tells of boat 0 on the river.",
    )
    assert [text.split()[2] for text in following] == ["1", "2"]
    assert [text.split()[2] for text in far] == ["2", "8"]
    assert read_pairs(None, 5) == read_pairs(None, 5)
    assert len(read_pairs(None, 5)) == 5
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": TEXT}))
    assert pairs_in(tmp_path / "text.jsonl") is None


def test_pairs_are_written_and_read_again() -> None:
    pairs = [("a\tb", "c\nd"), ("“e”", "f")]
    assert from_lines(as_lines(pairs)) == pairs


@pytest.mark.parametrize(
    ("config", "other", "found"),
    [
        ({}, {}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": IDENTITY}}, {}, "identity"),
        ({"sbert_ce_default_activation_function": IDENTITY}, {}, "identity"),
        ({}, {"activation_fn": "torch.nn.modules.activation.Sigmoid"}, "sigmoid"),
        ({}, {"activation_fn": IDENTITY}, "identity"),
    ],
)  # fmt: skip
def test_the_activation_is_the_one_that_sentence_transformers_names(
    tmp_path: Path, config: dict[str, object], other: dict[str, object], found: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(other))
    assert activation_of(tmp_path) == found


def test_another_activation_is_refused(tmp_path: Path) -> None:
    told = {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Softplus"}}
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match="Softplus on its scores; expected Identity or Sigmoid"):
        activation_of(tmp_path)
