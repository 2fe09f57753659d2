"""Which texts, images or sounds calibrate, plan and judge a run. They never overlap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelr.core.errors import InputError
from edgelr.data.audio import list_sounds, transcripts
from edgelr.data.file_lists import IMAGES, SOUNDS, Kind, halves, listed
from edgelr.data.images import list_images
from edgelr.data.labels import label_ids, read_records, require_scores
from edgelr.data.text import DEFAULT_TEXT, join_lines, read_file, read_text

if TYPE_CHECKING:
    from edgelr.core.settings import Settings
    from edgelr.model.loaded import LoadedModel

SELF = "self"
FEWEST_FILES = 4  # in every part


@dataclass(frozen=True)
class Texts:
    """Disjoint parts of the texts of a run; for images and sounds a text is a list of files.

    Attributes:
        evaluation: what the accuracy figures and the gate are about.
        selection: what the search for the smallest plan measures.
        calibration: ``(description, text)`` of every calibration text; ``self`` has none.
        evaluation_name: for the report.
        evaluation_part: which part of what has that name is judged on.
        records: lines of ``evaluation`` with what is true of each; empty where nothing tells.
    """

    evaluation: str
    selection: str
    calibration: tuple[tuple[str, str | None], ...]
    evaluation_name: str
    evaluation_part: str = "first half"
    records: str = ""

    @property
    def judged_on(self) -> str:
        """Say what the accuracy figures are about."""
        return f"{self.evaluation_name}, {self.evaluation_part}"

    def write_judged(self, folder: Path) -> Path:
        """Write what is judged on into a folder."""
        path = folder / ("evaluation.jsonl" if self.records else "evaluation.txt")
        path.write_text(self.records or self.evaluation, encoding="utf-8")
        return path


def choose(model: LoadedModel, settings: Settings) -> Texts:
    """Read the texts, or list the files, that a run of this model is about.

    Raises:
        InputError: they cannot be read, or the model cannot write the one that it should.
    """
    if model.image is not None:
        return choose_files(IMAGES, list_images, settings.calibration, settings.evaluation)
    if model.sound is not None:
        texts = choose_files(SOUNDS, list_sounds, settings.calibration, settings.evaluation)
        transcripts(texts.evaluation)  # what counts their errors should be missed before the work
        return texts
    can_generate = model.task == "text-generation"
    if SELF in settings.calibration and not can_generate:
        raise InputError(
            f"--calibration self needs a model that generates text; {model.source} is for "
            f"{model.task}. Give a text file."
        )
    texts = choose_texts(settings.calibration, settings.evaluation, can_generate)
    return _with_truths(texts, model, Path(settings.evaluation)) if settings.evaluation else texts


def _with_truths(texts: Texts, model: LoadedModel, path: Path) -> Texts:
    """Keep what the lines of an evaluation file say is true; every second of them judges.

    Raises:
        InputError: the model has no such labels.
        EnvironmentProblem: what scores answers is not installed.
    """
    records = read_records(path, model.task)
    if records is None:
        return texts
    if model.task == "text2text-generation":
        require_scores()
    else:
        config: Any = model.module.config
        label_ids(records, config.to_dict(), str(path))
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


def choose_files(
    kind: Kind,
    list_them: Callable[[Path], str],
    calibration: tuple[str, ...],
    evaluation: str | None,
) -> Texts:
    """List the images or sounds of a run; see ``listings.list_files``.

    Where one option is left away, half of what the other one names takes its part.

    Args:
        kind: of what the model reads.
        list_them: lists what one of the sources holds.
        calibration: folders, or files that list others.
        evaluation: another one.

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
    if not judged:
        divided = [(source, *halves(files)) for source, files in named]
        named = [(f"{source}, every second", ours) for source, ours, _ in divided]
        judged = "\n".join(others for *_, others in divided)
    elif not named:
        ours, judged = halves(judged)
        named = [(f"{evaluation}, every second", ours)]
    first, second = halves(judged)
    fewest = min(len(listed(files)) for files in (first, second, *(each for _, each in named)))
    if fewest < FEWEST_FILES:
        raise InputError(
            f"{name}: only {fewest} {kind.name}s are left for a part of the run; expected at "
            f"least {FEWEST_FILES} to calibrate, to plan and to judge on each. Give more."
        )
    return Texts(first, second, tuple(named), name, part)
