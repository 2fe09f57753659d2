"""Let a library do its work without a word, or with all of them."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO

_LOGGER = logging.getLogger("edgelr")


@contextmanager
def quiet() -> Iterator[None]:
    """Swallow what tracing prints, logs and warns about its own experimental state."""
    if is_verbose():
        with redirect_stdout(sys.stderr):  # standard output is for results
            yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def verbose() -> Iterator[None]:
    """Print on standard error what libraries log and what ``quiet`` would swallow."""
    root, handler = logging.getLogger(), logging.StreamHandler()
    levels = root.level, _LOGGER.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    _LOGGER.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(levels[0])
        _LOGGER.setLevel(levels[1])


def is_verbose() -> bool:
    """Tell whether a command was asked for everything."""
    return _LOGGER.isEnabledFor(logging.DEBUG)
