"""Libraries are silent inside the block, and as loud as before behind it."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

from edgelr.core.quiet import quiet


def speak() -> None:
    print("printed")
    warnings.warn("warned", UserWarning, stacklevel=1)
    logging.getLogger("library").warning("logged")


def test_nothing_is_heard_inside(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(record=True) as heard, quiet():
        speak()
    assert (heard, caplog.messages, capsys.readouterr().out) == ([], [], "")


def test_errors_are_logged_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    with quiet():
        logging.getLogger("library").error("broken")
    assert caplog.messages == ["broken"]


def test_everything_is_heard_again_also_after_an_error(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    stream = sys.stdout
    with pytest.raises(KeyboardInterrupt), quiet():
        raise KeyboardInterrupt
    assert sys.stdout is stream
    with pytest.warns(UserWarning, match="warned"):
        speak()
    assert (caplog.messages, capsys.readouterr().out) == (["logged"], "printed\n")


def test_what_was_switched_off_before_stays_off(caplog: pytest.LogCaptureFixture) -> None:
    logging.disable(logging.ERROR)
    try:
        with quiet():
            pass
        logging.getLogger("library").error("broken")
        assert caplog.messages == []
    finally:
        logging.disable(logging.NOTSET)
