"""Free axes get sizes that fit together."""

from __future__ import annotations

import pytest

from edgelr.data.sizes import choose_sizes

Shape = tuple[int | str | None, ...]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(1, 3, "height", "width")], [(1, 3, 32, 32)]),
        ([("batch", "tokens"), ("tokens", "batch")], [(1, 32), (32, 1)]),
        ([(None, 4, None), (0, -1)], [(1, 4, 32), (1, 32)]),
        ([("batch", "past + tokens"), ("batch", "past"), ("batch", "tokens")],
         [(1, 64), (1, 32), (1, 32)]),
        ([("batch", "past + 1"), ("batch", 4, "past", 16)], [(1, 33), (1, 4, 32, 16)]),
        ([("batch * heads", "2*tokens - 1"), ("batch", "heads", "tokens")],
         [(32, 63), (1, 32, 32)]),
        ([("batch", "samples // 160"), ("batch", "samples")], [(1, 1), (1, 256)]),
        ([("batch", "tokens - 100"), ("batch", "tokens")], [(1, 28), (1, 128)]),
        ([("batch", "whole - part"), ("batch", "whole"), ("batch", "part")],
         [(1, 32), (1, 64), (1, 32)]),
        ([("batch", "tokens + 1"), ("batch", "(tokens + 2) * 2")], [(1, 33), (1, 68)]),
        ([("batch-size", "seq-len"), ("batch-size", 2)], [(1, 32), (1, 2)]),
        ([("unk__0", "a b"), ("floor(h/2)", "Max(1, s0)")], [(1, 32), (1, 32)]),
    ],
)  # fmt: skip
def test_free_axes_get_sizes_that_fit(shapes: list[Shape], expected: list[tuple[int, ...]]) -> None:
    assert choose_sizes(shapes) == expected
