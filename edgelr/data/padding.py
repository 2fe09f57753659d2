"""Token rows of different lengths as one array, and which of its tokens are real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    TokenRows = Sequence[Sequence[int] | NDArray[np.int64]]


def left_padded(rows: TokenRows, pad_id: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pad prompts on the left to one length.

    Returns:
        Token ids and attention mask, both ``(rows, longest)`` int64.
    """
    return _padded(rows, pad_id, left=True)


def right_padded(rows: TokenRows, pad_id: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pad token rows on the right to one length; pads are never read.

    Rows may be ``(2, length)``: token ids, and which of two texts each is of.

    Returns:
        Token ids ``(rows, longest)``, or ``(rows, 2, longest)``, and attention mask
        ``(rows, longest)``, int64.
    """
    return _padded(rows, pad_id, left=False)


def padding_token(told: int | None) -> int:
    """Choose the token of padding, which a configuration tells by its id, or by none or -1."""
    return max(0, told or 0)


def _padded(rows: TokenRows, pad_id: int, *, left: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    arrays = [np.asarray(row, np.int64) for row in rows]
    longest = max(row.shape[-1] for row in arrays)
    input_ids = np.full((len(rows), *arrays[0].shape[:-1], longest), pad_id, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(arrays):
        length = row.shape[-1]
        real = slice(longest - length, longest) if left else slice(length)
        input_ids[index, ..., real] = row
        mask[index, real] = 1
    return input_ids, mask
