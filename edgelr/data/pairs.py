"""Pairs of texts, as a reranker reads them: read from files, or made of a plain text."""

from __future__ import annotations

import json
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, TypeAlias

from edgelr.core.errors import InputError
from edgelr.data.text import PAIR_KEYS, read_file, read_text, split_sentences

Pair: TypeAlias = tuple[str, str]
Activation: TypeAlias = Literal["identity", "sigmoid"]

MADE = "pairs of its sentences"  # for reports
FEWEST = 4  # in every part of a run: fewer have no order to speak of
_FILES = (".jsonl", ".tsv")
_QUERY_WORDS = 6  # of a query that is the beginning of its passage
_ACTIVATIONS: dict[str, Activation] = {"Identity": "identity", "Sigmoid": "sigmoid"}


def read_pairs(path: Path | None, count: int | None = None) -> list[Pair]:
    """Read the pairs of a file, or make some of a plain text.

    Args:
        path: file; None takes the text that ships with Python.
        count: number of pairs, at most; None takes all.

    Raises:
        InputError: it cannot be read, or holds no pairs.
    """
    found = pairs_in(path)
    return pairs_of_text(read_text(path), count) if found is None else found[:count]


def pairs_in(path: Path | None) -> list[Pair] | None:
    """Read the pairs of a ``.jsonl`` or ``.tsv`` file; None where a file holds none.

    A line of JSON has two of the keys in ``PAIR_KEYS``; of the columns of a ``.tsv``, the first two
    count, and a line that names them is left out.

    Raises:
        InputError: some lines hold pairs, and others do not.
    """
    if path is None or path.suffix not in _FILES:
        return None
    lines = [(n, line) for n, line in enumerate(read_file(path).splitlines(), 1) if line.strip()]
    if path.suffix == ".tsv" and tuple(lines[0][1].split("\t")[:2]) in PAIR_KEYS:
        lines = lines[1:]
    parse = _of_columns if path.suffix == ".tsv" else _of_object
    found = [(number, parse(line)) for number, line in lines]
    if all(pair is None for _, pair in found):
        return None
    for number, pair in found:
        if pair is None:
            raise InputError(
                f"{path}, line {number} holds no pair of texts, as others do. Expected a query and "
                f'a passage: {{"query": …, "passage": …}}, or two columns of a .tsv. Mend that '
                f"line."
            )
    return [pair for _, pair in found if pair is not None]


def pairs_of_text(text: str, count: int | None = None) -> list[Pair]:
    """Make queries and passages of the sentences of a text, so that their scores differ widely.

    In turns, a passage is a sentence that begins with the query, the sentence behind it, or one
    from far away.

    Raises:
        InputError: the text holds too few sentences.
    """
    sentences = split_sentences(text, len(text) if count is None else 2 * count)
    far, pairs = len(sentences) // 2, []
    kinds = cycle(("begins", "next", "far"))
    for place, kind in zip(range(len(sentences) - 1), kinds, strict=False):
        query = sentences[place]
        passage = {"next": place + 1, "far": (place + far) % len(sentences)}.get(kind, place)
        if kind == "begins":
            query = " ".join(query.split()[:_QUERY_WORDS])
        pairs.append((query, sentences[passage]))
    return pairs[:count]


def as_lines(pairs: list[Pair]) -> str:
    """Write pairs as lines of JSON."""
    return "\n".join(json.dumps(dict(zip(PAIR_KEYS[0], pair, strict=True))) for pair in pairs)


def from_lines(text: str) -> list[Pair]:
    """Read what ``as_lines`` wrote."""
    pairs = (_of_object(line) for line in text.splitlines())
    return [pair for pair in pairs if pair is not None]


def activation_of(folder: Path) -> Activation:
    """Read which function sentence-transformers applies to the score of a CrossEncoder.

    Without a word of it, that is the sigmoid. Neither changes an order.

    Raises:
        InputError: it is another.
    """
    config = _read(folder / "config.json")
    told = (config.get("sentence_transformers") or {}).get("activation_fn")
    told = told or config.get("sbert_ce_default_activation_function")
    told = told or _read(folder / "config_sentence_transformers.json").get("activation_fn")
    name = str(told or "Sigmoid").rpartition(".")[2]
    if name not in _ACTIVATIONS:
        raise InputError(
            f"{folder} asks for the activation function {told} on its scores; expected "
            f"{' or '.join(_ACTIVATIONS)}. Name one of these in config.json "
            f"(sentence_transformers: activation_fn)."
        )
    return _ACTIVATIONS[name]


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _of_columns(line: str) -> Pair | None:
    query, _, rest = line.partition("\t")
    passage = rest.partition("\t")[0]
    return (query, passage) if query.strip() and passage.strip() else None


def _of_object(line: str) -> Pair | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    for keys in PAIR_KEYS:
        first, second = (value.get(key) for key in keys) if isinstance(value, dict) else (None,) * 2
        if isinstance(first, str) and isinstance(second, str) and first and second:
            return first, second
    return None
