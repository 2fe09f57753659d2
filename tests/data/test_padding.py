"""Padding: every real token stays in its row and in its order, and nothing else counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgelr.data.padding import left_padded, right_padded

ROWS = [[7, 8, 9], [5], [0, 6]]  # a token may have the id of the padding
PAD = 3

both_sides = pytest.mark.parametrize("pad", [left_padded, right_padded])


@both_sides
def test_the_mask_finds_every_row_again(pad: Callable[..., tuple[np.ndarray, np.ndarray]]) -> None:
    ids, mask = pad(ROWS, PAD)
    assert ids.shape == mask.shape == (3, 3)
    assert ids.dtype == mask.dtype == np.int64
    assert [row[kept == 1].tolist() for row, kept in zip(ids, mask, strict=True)] == ROWS
    assert set(ids[mask == 0]) == {PAD}
    assert set(mask.ravel()) == {0, 1}


@both_sides
def test_rows_of_one_length_stay_as_they_are(
    pad: Callable[..., tuple[np.ndarray, np.ndarray]],
) -> None:
    rows = np.arange(12).reshape(3, 4)
    ids, mask = pad(list(rows), PAD)
    np.testing.assert_array_equal(ids, rows)
    assert mask.all()


def test_sides_are_where_padding_ends_and_begins() -> None:
    left, right = left_padded(ROWS, PAD)[1], right_padded(ROWS)[1]
    assert left[:, -1].all()
    assert right[:, 0].all()
    np.testing.assert_array_equal(left[:, ::-1], right)
