"""Rows of tokens of different lengths become one array and a mask."""

from __future__ import annotations

from edgelr.data.padding import left_padded, right_padded


def test_right_padding_masks_what_is_no_token() -> None:
    ids, mask = right_padded([[3], [4, 5]])
    assert ids.tolist() == [[3, 0], [4, 5]]
    assert mask.tolist() == [[1, 0], [1, 1]]


def test_left_padding_has_the_token_that_is_asked_for() -> None:
    ids, mask = left_padded([[3], [4, 5]], pad_id=9)
    assert ids.tolist() == [[9, 3], [4, 5]]
    assert mask.tolist() == [[0, 1], [1, 1]]
