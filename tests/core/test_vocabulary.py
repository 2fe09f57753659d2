"""Words: tables of words have one entry for each, and no other."""

from __future__ import annotations

from typing import get_args

from edgelr.core.vocabulary import (
    ALTERNATIVES,
    LAYOUTS,
    PRECISION_BYTES,
    SHARING,
    AskedPrecision,
    Grouping,
    GroupKind,
    Precision,
    WeightPrecision,
)


def test_every_precision_has_bytes_or_bits() -> None:
    assert set(PRECISION_BYTES) == set(get_args(Precision))
    assert not set(PRECISION_BYTES) & set(LAYOUTS)
    assert set(PRECISION_BYTES) | set(LAYOUTS) == set(get_args(WeightPrecision))
    assert set(get_args(AskedPrecision)) == {*get_args(WeightPrecision), "auto"}


def test_a_block_is_a_whole_number_of_bytes() -> None:
    assert all(each.block_size * each.bits % 8 == 0 for each in LAYOUTS.values())


def test_groupings_are_divided_by_what_they_share() -> None:
    groupings = set(get_args(Grouping))
    assert {*ALTERNATIVES, *SHARING} < groupings
    assert set(SHARING) - set(ALTERNATIVES) <= set(get_args(GroupKind))
    assert "one" not in {*ALTERNATIVES, *SHARING}
