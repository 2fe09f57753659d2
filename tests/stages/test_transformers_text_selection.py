"""Which text is used for what; what is judged on was never calibrated or planned on."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgelr.core.errors import InputError
from edgelr.data.text import DEFAULT_TEXT, read_text
from edgelr.stages.transformers.text_selection import SELF, choose_texts


@pytest.fixture
def given(tmp_path: Path) -> tuple[str, str]:
    """A calibration and an evaluation file."""
    for name in ("calibration", "evaluation"):
        (tmp_path / f"{name}.txt").write_text(f"This is the {name} text. " * 10)
    return str(tmp_path / "calibration.txt"), str(tmp_path / "evaluation.txt")


def test_a_model_that_generates_is_calibrated_on_itself() -> None:
    texts = choose_texts((), None, can_generate=True)
    assert texts.calibration == ((SELF, None),)
    assert texts.evaluation + texts.selection == read_text(None)
    assert texts.evaluation_name == DEFAULT_TEXT


def test_any_other_is_calibrated_on_what_it_is_not_judged_on() -> None:
    texts = choose_texts((), None, can_generate=False)
    ((name, calibrated),) = texts.calibration
    assert calibrated is not None
    assert DEFAULT_TEXT in name
    assert texts.evaluation + texts.selection + calibrated == read_text(None)


def test_an_evaluation_file_leaves_the_default_text_for_calibration(
    given: tuple[str, str],
) -> None:
    _, evaluation = given
    texts = choose_texts((), evaluation, can_generate=False)
    assert texts.evaluation + texts.selection == Path(evaluation).read_text()
    assert texts.calibration[0][1] is not None
    assert texts.calibration[0][1] in read_text(None)
    assert texts.evaluation_name == evaluation


@pytest.mark.parametrize("can_generate", [False, True])
def test_files_are_read_in_the_given_order(given: tuple[str, str], can_generate: bool) -> None:
    calibration, evaluation = given
    texts = choose_texts((SELF, calibration), evaluation, can_generate)
    assert texts.calibration == ((SELF, None), (calibration, Path(calibration).read_text()))


@pytest.mark.parametrize("can_generate", [False, True])
@pytest.mark.parametrize("with_file", [False, True])
def test_the_parts_are_never_empty(
    given: tuple[str, str], can_generate: bool, with_file: bool
) -> None:
    texts = choose_texts((), given[1] if with_file else None, can_generate)
    parts = [texts.evaluation, texts.selection, *(text for _, text in texts.calibration)]
    assert all(part is None or len(part) > 50 for part in parts)


def test_a_missing_text_is_refused(given: tuple[str, str], tmp_path: Path) -> None:
    missing = str(tmp_path / "none.txt")
    with pytest.raises(InputError, match=r"none\.txt"):
        choose_texts((missing,), None, can_generate=True)
    with pytest.raises(InputError, match=r"none\.txt"):
        choose_texts((given[0],), missing, can_generate=True)
