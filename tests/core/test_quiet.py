"""Libraries work without a word, unless everything was asked for."""

from __future__ import annotations

import logging
import warnings

import pytest

from edgelr.core.quiet import is_verbose, quiet, verbose

LIBRARY = logging.getLogger("a.library")


def chatter() -> None:
    """Say something in each of the ways that libraries have."""
    print("printed")
    LIBRARY.warning("logged")
    warnings.warn("warned", stacklevel=1)


def test_a_quiet_library_says_nothing(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with quiet():
        chatter()
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == []


def test_a_verbose_command_shows_what_libraries_say_on_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with verbose(), quiet(), warnings.catch_warnings(record=True) as warned:
        assert is_verbose()
        chatter()
        LIBRARY.info("told")
    assert [str(each.message) for each in warned] == ["warned"]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.split() == ["printed", "logged", "told"]


def test_nothing_of_it_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(logging.getLogger().handlers), logging.getLogger().level
    with verbose():
        pass
    assert (logging.getLogger().handlers, logging.getLogger().level) == before
    assert not is_verbose()
