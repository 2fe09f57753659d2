"""Progress: on standard error, quiet where that was asked for, in lines without a terminal."""

from __future__ import annotations

import sys

import pytest

from edgelr.report.live import LiveListener
from tests.helpers.reports import make_report


def work(quiet: bool) -> None:
    report = make_report()
    with LiveListener(quiet) as listener:
        for done in range(3):
            listener.progress("statistics", done, 2)
        listener.note("[bold]a note[/bold]")
        listener.planned(report.plan, report.budget)


def test_a_stage_is_a_line_where_no_bar_can_be_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    work(quiet=False)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("statistics ...") == 1
    assert "[bold]a note[/bold]" in printed.err
    for said in ("Plan: default, lagrangian", "key/value cache of 2,048 tokens"):
        assert said in printed.err


def test_a_quiet_one_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    work(quiet=True)
    assert capsys.readouterr() == ("", "")


def test_a_bar_is_taken_away_also_after_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    listener = LiveListener(quiet=False)

    def interrupted() -> None:
        with listener:
            listener.progress("statistics", 1, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    drawn = capsys.readouterr().err
    assert "statistics" in drawn
    assert "1/2" in drawn
    assert drawn.rstrip("\n").endswith("\x1b[?25h")  # the cursor is shown again
