"""Errors that a user can mend. Everything else is a bug and keeps its traceback.

A message has three parts: what was found (with numbers), what was expected, what to do now.
"""

from __future__ import annotations

from collections.abc import Iterable


class EdgelrError(Exception):
    """Base of every error that the command line prints without a traceback.

    Its exit code is that of an input: the code 1 is for bugs alone.
    """

    exit_code = 2


class InputError(EdgelrError):
    """A model, text, option or file that cannot be used as it is."""

    exit_code = 2


class GateError(EdgelrError):
    """The accuracy gate failed: the bundle is kept, and marked as failed."""

    exit_code = 3


class BudgetError(EdgelrError):
    """No plan fits the budget; the message names the nearest feasible point."""

    exit_code = 4


class ProviderError(EdgelrError):
    """The execution provider that was asked for is not the one that would run."""

    exit_code = 5


class EnvironmentProblem(EdgelrError):
    """The machine lacks something: a package, disk space, memory."""

    exit_code = 6


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Ask, behind a message, for the known words that are close to a wrong one."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=2, cutoff=0.5)
    return f" Did you mean {' or '.join(close)}?" if close else ""
