"""Which text is used for what: calibrated on, planned on, judged on. They never overlap."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgelr.text import DEFAULT_TEXT, read_text

SELF = "self"


@dataclass(frozen=True)
class Texts:
    """Disjoint parts of the texts of a run.

    Attributes:
        evaluation: what the accuracy figures and the gate are about.
        selection: what the search for the smallest plan measures.
        calibration: ``(description, text)`` of every calibration text; ``self`` has none.
        evaluation_name: for the report.
    """

    evaluation: str
    selection: str
    calibration: tuple[tuple[str, str | None], ...]
    evaluation_name: str


def choose_texts(calibration: tuple[str, ...], evaluation: str | None, can_generate: bool) -> Texts:
    """Read the texts of a run.

    Without a calibration text, a model that generates is calibrated on text sampled from itself,
    and any other on a part of the default text that the evaluation does not see.

    Args:
        calibration: files, and ``self``.
        evaluation: a file; None takes the text that ships with Python.
        can_generate: whether ``self`` is possible.

    Raises:
        InputError: a text cannot be read, or is empty.
    """
    judged = read_text(Path(evaluation) if evaluation else None)
    name = evaluation or DEFAULT_TEXT
    if calibration:
        named = tuple(
            (source, None if source == SELF else read_text(Path(source))) for source in calibration
        )
    elif can_generate:
        named = ((SELF, None),)
    else:
        whole = read_text(None)
        middle = len(whole) // 2
        named = ((f"{DEFAULT_TEXT}, second half", whole[middle:]),)
        judged = whole[:middle] if evaluation is None else judged
    middle = len(judged) // 2
    return Texts(judged[:middle], judged[middle:], named, name)
