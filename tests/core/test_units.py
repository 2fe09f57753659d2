"""Sizes, shares and times with their units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgelr.core.errors import InputError
from edgelr.core.units import drop, milliseconds, parse_size, read_option, share, size_text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("60000000", 60_000_000),
        ("60MB", 60_000_000),
        ("60M", 60_000_000),
        ("60 mb", 60_000_000),
        ("60MiB", 60 * 2**20),
        ("60 Mi", 60 * 2**20),
        (" 1.5GiB ", 3 * 2**29),
        ("1.5GB", 1_500_000_000),
        ("2KiB", 2048),
        ("0.5 kB", 500),
        ("7B", 7),
    ],
)
def test_sizes_have_units_of_a_thousand_or_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert size_text(text) == text


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1.2.3MB", ".", "60 parsecs", "60%", "1,5GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size; expected for instance 60MB"):
        parse_size(text)


@pytest.mark.parametrize("given", ["60", "99999", 60, 400.0])
def test_a_size_without_its_unit_is_asked_for_it(given: Any) -> None:
    with pytest.raises(ValueError, match=r"bytes\? Write \d+MB"):
        parse_size(given)


@pytest.mark.parametrize(
    ("read", "given", "value"),
    [
        (share, "0.8", 0.8),
        (share, ".8", 0.8),
        (share, 1, 1.0),
        (share, "80%", 0.8),
        (share, "0.5 %", 0.005),
        (drop, "0.05", 0.05),
        (drop, "5%", 0.05),
        (drop, "500%", 5.0),
        (milliseconds, "15", 15.0),
        (milliseconds, "15ms", 15.0),
        (milliseconds, "0.015 s", 15.0),
        (milliseconds, "250us", 0.25),
        (milliseconds, 1e-6, 1e-6),
        (milliseconds, "1e-06", 1e-6),
    ],
)
def test_shares_and_times_are_read_with_and_without_units(
    read: Callable[[Any], float], given: Any, value: float
) -> None:
    assert read(given) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("read", "given", "told"),
    [
        (share, "80", "did you mean 0.8, which is 80%"),
        (share, 1.01, "at most 1"),
        (share, "0", "above 0"),
        (share, "0.8MB", "at most 1"),
        (share, float("nan"), "above 0"),
        (share, "101%", "at most 1"),
        (drop, 5, "is 500 %; did you mean 0.05, which is 5%"),
        (drop, "-0.1", "above 0"),
        (drop, "1000%", "above 0"),
        (milliseconds, "0", "expected for instance 15ms"),
        (milliseconds, "15 minutes", "expected for instance 15ms"),
        (milliseconds, "fast", "expected for instance 15ms"),
    ],
)
def test_what_cannot_be_meant_is_told(read: Callable[[Any], float], given: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read(given)


def test_the_option_is_named_where_its_value_cannot_be_read() -> None:
    with pytest.raises(InputError, match=r"^--max-drop: 5 is .* \(found 5\)\.$"):
        read_option("--max-drop", drop, "5")
    assert read_option("--max-drop", drop, "5%") == 0.05
