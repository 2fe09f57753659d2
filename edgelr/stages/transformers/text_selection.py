"""Which texts, images or sounds calibrate, plan and judge a run. They never overlap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgelr.core.errors import InputError
from edgelr.data.file_lists import Kind, halves, listed
from edgelr.data.text import DEFAULT_TEXT, Texts, join_lines, read_file, read_text

SELF = "self"
FEWEST_FILES = 4  # in every part


def judged_line_by_line(texts: Texts, path: Path) -> Texts:
    """Judge on every second line of an evaluation file, whose lines say what is true."""
    lines = [line for line in read_file(path).splitlines() if line.strip()]
    ours, others = ("\n".join(part) for part in (lines[::2], lines[1::2]))
    return replace(
        texts,
        evaluation=join_lines(path, ours),
        selection=join_lines(path, others),
        evaluation_part="every second line",
        records=ours,
    )


def choose_texts(calibration: tuple[str, ...], evaluation: str | None, can_generate: bool) -> Texts:
    """Read the texts of a run.

    Without a calibration text, a model that generates is calibrated on text sampled from itself,
    and any other on a part of the default text that the evaluation does not see.

    Args:
        calibration: files, and ``self``.
        evaluation: file; None takes the text that ships with Python.
        can_generate: True where ``self`` is possible.

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


def choose_files(
    kind: Kind,
    list_them: Callable[[Path], str],
    calibration: tuple[str, ...],
    evaluation: str | None,
) -> Texts:
    """List the images or sounds of a run; see ``file_lists.list_files``.

    Where one option is left away, half of what the other one names takes its part.

    Args:
        kind: kind of the files.
        list_them: function that lists the files of one source.
        calibration: folders, or files that list others.
        evaluation: another folder or file.

    Raises:
        InputError: there are none, too few, or they cannot be listed.
    """
    named = [(source, list_them(Path(source))) for source in calibration if source != SELF]
    judged = list_them(Path(evaluation)) if evaluation else ""
    name = evaluation or ", ".join(source for source, _ in named)
    if SELF in calibration or not (named or judged):
        raise InputError(
            f"A model that reads {kind.name}s was given "
            f"{'--calibration self' if calibration else 'none'}; expected a folder of them, of the "
            f"kind that it will be given: edgelr brings none. Give --calibration FOLDER: one half "
            f"calibrates, the other judges; or --evaluation as well."
        )
    part = "one half" if judged and named else "one quarter"
    named, judged = _divided(named, judged, evaluation)
    first, second = halves(judged)
    fewest = min(len(listed(files)) for files in (first, second, *(each for _, each in named)))
    if fewest < FEWEST_FILES:
        raise InputError(
            f"{name}: only {fewest} {kind.name}s are left for a part of the run; expected at "
            f"least {FEWEST_FILES} to calibrate, to plan and to judge on each. Give more."
        )
    return Texts(first, second, tuple(named), name, part)


def _divided(
    named: list[tuple[str, str]], judged: str, evaluation: str | None
) -> tuple[list[tuple[str, str]], str]:
    """Divide the files of one option in two where the other one names none."""
    if not judged:
        divided = [(source, *halves(files)) for source, files in named]
        ours = [(f"{source}, every second", files) for source, files, _ in divided]
        return ours, "\n".join(others for *_, others in divided)
    if not named:
        files, judged = halves(judged)
        return [(f"{evaluation}, every second", files)], judged
    return named, judged
