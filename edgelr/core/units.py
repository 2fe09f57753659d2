"""Sizes, shares and times as people write them, with their units."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

from edgelr.core.errors import InputError

T = TypeVar("T")

_SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_MILLISECONDS = {"": 1.0, "US": 1e-3, "MS": 1.0, "S": 1e3}
_FEWEST_BYTES = 10**5  # without a unit: less is a number of megabytes


def parse_size(given: Any) -> int:
    """Read a size in bytes: ``60MB`` and ``60M`` are 60,000,000, ``60MiB`` are 60 × 1,048,576.

    Raises:
        ValueError: it is none, or so small a number without a unit that one was forgotten.
    """
    number, unit = _split(given)
    unit = f"{unit}B" if unit in ("K", "M", "G", "KI", "MI", "GI") else unit
    if math.isnan(number) or (unit and unit not in _SIZES):
        raise ValueError(f"{str(given)!r} is no size; expected for instance 60MB or 1.5GiB")
    if not unit and number < _FEWEST_BYTES:
        raise ValueError(f"{number:g} bytes? Write {number:g}MB for megabytes, or {number:g}B")
    return int(number * _SIZES[unit or "B"])


def size_text(given: Any) -> str:
    """Check a size, and give it as it was written."""
    parse_size(given)
    return str(given)


def share(given: Any) -> float:
    """Read a share of a whole: ``0.8`` or ``80%``.

    Raises:
        ValueError: it is none, or not above 0 and at most 1.
    """
    number, unit = _split(given)
    if unit == "%":
        number /= 100
    elif 2 <= number <= 100:
        raise ValueError(f"{number:g} is more than the whole; did you mean {number / 100:g}, "
                         f"which is {number:g}%?")  # fmt: skip
    if unit not in ("", "%") or not 0 < number <= 1:
        raise ValueError("expected a share above 0 and at most 1, such as 0.8 or 80%")
    return number


def drop(given: Any) -> float:
    """Read a loss of accuracy: ``0.05`` or ``5%``. A perplexity may grow by more than the whole.

    Raises:
        ValueError: it is none, not above 0, or a number that was meant as percent.
    """
    number, unit = _split(given)
    if unit == "%":
        number /= 100
    elif number >= 1:
        raise ValueError(f"{number:g} is {100 * number:g} %; did you mean {number / 100:g}, which "
                         f"is {number:g}%? Write {100 * number:g}% if not")  # fmt: skip
    if unit not in ("", "%") or not 0 < number < 10:
        raise ValueError("expected a share above 0, such as 0.05 or 5%")
    return number


def milliseconds(given: Any) -> float:
    """Read a time in milliseconds: ``15``, ``15ms`` or ``0.015s``.

    Raises:
        ValueError: it is none, or not above 0.
    """
    number, unit = _split(given)
    if unit not in _MILLISECONDS or not 0 < number < math.inf:
        raise ValueError(f"{str(given)!r} is no time; expected for instance 15ms or 0.1s")
    return number * _MILLISECONDS[unit]


def read_option(option: str, read: Callable[[Any], T], given: Any) -> T:
    """Read the value of an option.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return read(given)
    except ValueError as error:
        raise InputError(f"{option}: {error} (found {given}).") from error


def _split(given: Any) -> tuple[float, str]:
    """Separate a number from its unit, in capitals; NaN where there is none."""
    if isinstance(given, (int, float)):
        return float(given), ""
    pattern = r"\s*(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-z]*|%)\s*"
    match = re.fullmatch(pattern, str(given), re.IGNORECASE)
    return (float(match[1]), match[2].upper()) if match else (math.nan, "")
