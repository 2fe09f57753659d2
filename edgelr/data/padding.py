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

    Returns:
        Token ids and attention mask, both ``(rows, longest)`` int64.
    """
    return _padded(rows, pad_id, left=False)


def _padded(rows: TokenRows, pad_id: int, *, left: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    longest = max(len(row) for row in rows)
    input_ids = np.full((len(rows), longest), pad_id, np.int64)
    mask = np.zeros_like(input_ids)
    for index, row in enumerate(rows):
        real = slice(longest - len(row), longest) if left else slice(len(row))
        input_ids[index, real] = row
        mask[index, real] = 1
    return input_ids, mask
