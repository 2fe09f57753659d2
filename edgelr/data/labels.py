"""Ground truth of the samples that are judged on: labels and targets, of a file or of folders.

``{"text": ..., "label": ...}`` labels a text, ``{"tokens": [...], "labels": [...]}`` its words, and
``{"source": ..., "target": ...}`` answers it: one object in every line of a JSONL file. Of images,
the folder of a file names its label.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelr.core.errors import EnvironmentProblem, InputError
from edgelr.core.results import Metric
from edgelr.core.tasks import decides_each_label
from edgelr.core.vocabulary import Task
from edgelr.data.text import read_file

if TYPE_CHECKING:
    from tokenizers import Encoding


@dataclass(frozen=True, slots=True)
class RecordFormat:
    """Format of the lines that tell the truth for one task.

    Attributes:
        given: key of the input.
        truth: key of what is true of it.
        expected: noun for both, for messages.
        fits: function that tells whether two values have the right types.
    """

    given: str
    truth: str
    expected: str
    fits: Callable[[Any, Any], bool]


def _is_text_and(*types: type) -> Callable[[Any, Any], bool]:
    """Accept a text that is not empty, and a truth of one of the types."""
    return lambda given, truth: isinstance(given, str) and bool(given) and isinstance(truth, types)


def _are_lists(given: Any, truth: Any) -> bool:
    """Accept lists of one length, which is not zero."""
    lists = isinstance(given, list) and isinstance(truth, list)
    return lists and len(given) == len(truth) > 0


RECORDS: dict[Task, RecordFormat] = {
    "text-classification": RecordFormat("text", "label", "a text and both", _is_text_and(str, int)),
    "token-classification": RecordFormat(
        "tokens", "labels", "a list of words and as many labels", _are_lists
    ),
    "text2text-generation": RecordFormat("source", "target", "a text and both", _is_text_and(str)),
}
ACCURACY = "top1_accuracy"
NO_FOLDERS = (
    "Accuracy on true labels was not measured: that takes images in folders that are named like "
    "the model's labels (id2label in config.json), or like their numbers."
)
_SHOWN = 8  # labels in a message


@dataclass(frozen=True, slots=True)
class Record:
    """One line: an input of the model, and its true answer."""

    line: int
    given: Any  # str, or a list of words
    truth: Any


def read_records(path: Path | None, task: Task) -> list[Record] | None:
    """Read the lines of a ``.jsonl`` file with true answers; None where it has none.

    Raises:
        InputError: only some lines do, one has other types, or the file cannot be read.
    """
    if path is None or path.suffix != ".jsonl" or task not in RECORDS:
        return None
    lines, kind = read_file(path).splitlines(), RECORDS[task]
    values = [(number, _parsed(line)) for number, line in enumerate(lines, 1) if line.strip()]
    if not any(kind.truth in value for _, value in values):
        return None
    for number, value in values:
        if not kind.fits(value.get(kind.given), value.get(kind.truth)):
            raise InputError(
                f"{path}, line {number} has no {kind.given!r} with its {kind.truth!r}, as others "
                f"have. Expected {kind.expected} in every line. Mend that line, or leave "
                f"{kind.truth!r} out of all."
            )
    return [Record(number, value[kind.given], value[kind.truth]) for number, value in values]


def label_ids(records: Sequence[Record], config: Mapping[str, Any], source: str) -> list[Any]:
    """Resolve the labels of records by a model's configuration: an id each, or one for each word.

    Raises:
        InputError: the model has no such label, or its labels do not exclude each other.
    """
    names = label_names(config)
    if not names:
        raise InputError(
            f"{source} has labels, and those of the model do not exclude each other; expected a "
            f"model that gives one. Leave the labels out: agreement is judged without."
        )
    found: list[Any] = []
    for record in records:
        several = isinstance(record.truth, list)
        ids = [find_label(label, names) for label in (record.truth if several else [record.truth])]
        if None in ids:
            wrong = record.truth[ids.index(None)] if several else record.truth
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            raise InputError(
                f"{source}, line {record.line}: the model has no label {wrong!r}. Expected one of "
                f"its {len(names)} labels ({shown}), or its number from 0 on. Mend that line."
            )
        found.append(ids if several else ids[0])
    return found


def token_labels(encoding: Encoding, words: Sequence[str], labels: Sequence[int]) -> list[int]:
    """Give the first token of every word its label, and -1 to all others.

    Args:
        encoding: tokens of the words, joined by spaces.
        words: words, as many as ``labels``.
        labels: label id of each word.
    """
    text, before = " ".join(words), -1
    found: list[int] = []
    starts = list(accumulate((len(word) + 1 for word in words), initial=0))
    for start, end in encoding.offsets:
        if start == end:  # a mark that is no part of the text
            found.append(-1)
            continue
        first = end - len(text[start:end].lstrip(" "))  # a space belongs to what follows it
        word = bisect_right(starts, first) - 1
        found.append(-1 if word == before else labels[word])
        before = word
    return found


def folder_labels(images: Sequence[Path], config: Mapping[str, Any]) -> list[int] | None:
    """Read the label of every image off its folder's name; None where one names no label."""
    names = label_names(config)
    found = [find_label(path.parent.name, names) for path in images]
    return None if None in found else [each for each in found if each is not None]


def label_names(config: Mapping[str, Any]) -> list[str]:
    """List the labels of a model by their ids; none where they do not exclude each other."""
    given = {int(number): str(name) for number, name in config.get("id2label", {}).items()}
    if decides_each_label(config.get("problem_type"), len(given)):
        return []
    return [given[number] for number in sorted(given)]


def find_label(label: object, names: Sequence[str]) -> int | None:
    """Find the id of a label by its name, or by the id itself; None where there is none."""
    if label in names:
        return names.index(str(label))
    text = str(label)
    return int(text) if text.isdecimal() and int(text) < len(names) else None


def require_scores() -> None:
    """Make sure that answers can be scored.

    Raises:
        EnvironmentProblem: sacrebleu is not installed.
    """
    if find_spec("sacrebleu") is None:
        raise EnvironmentProblem(
            "BLEU and chrF of true targets are computed by sacrebleu, which is not installed. "
            "Install it (pip install 'edgelr[metrics]'), or leave 'target' out of the lines."
        )


def truth_notes(task: Task, metrics: Sequence[Metric]) -> tuple[str, ...]:
    """Say why labels of images were not compared with true ones, where they were not."""
    judged = any(metric.name == ACCURACY for metric in metrics)
    return (NO_FOLDERS,) if task == "image-classification" and not judged else ()


def _parsed(line: str) -> dict[str, Any]:
    """Read an object; any other line has no keys, and an error names it."""
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
