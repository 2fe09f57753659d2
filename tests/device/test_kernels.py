"""Quantized precisions that are multiplied fast, and those that no one should be given."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from edgelr.core.vocabulary import LAYOUTS
from edgelr.device.kernels import fast_precisions, measured_as
from edgelr.device.profile import load_profile, profile_names


@dataclass(frozen=True)
class Provided:
    provider: str
    accuracy_level: int


@pytest.mark.parametrize(
    ("provider", "level", "bits"),
    [("cpu", 4, {2, 4, 8}), ("cpu", 1, {4}), ("cuda", 4, {4, 8}), ("cuda", 1, {4, 8})],
)
def test_bits_without_a_fast_kernel_are_left_out(provider: str, level: int, bits: set[int]) -> None:
    found = fast_precisions(Provided(provider, level))  # type: ignore[arg-type]
    assert {LAYOUTS[each].bits for each in found} == bits
    assert len(found) == sum(each.bits in bits for each in LAYOUTS.values())


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_has_fast_precisions(name: str) -> None:
    assert {"int8", "int4"} <= set(fast_precisions(load_profile(name)))


@pytest.mark.parametrize(
    ("precision", "like"),
    [("float32", "float32"), ("int8_b128", "int8"), ("int2_b64", "int4"), ("int4_b64", "int4_b64")],
)
def test_what_was_not_measured_is_timed_as_what_is_most_like_it(precision: str, like: str) -> None:
    assert measured_as(precision, {"int8", "int4", "int4_b64"}) == like  # type: ignore[arg-type]
