"""Words that settings, plans and manifests use, types that every room uses, sizes of precisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

Form = Literal["dense", "low_rank", "pivoted", "tied", "kronecker"]
GroupKind = Literal["one", "input", "blocks", "tied", "table", "tied_table"]
Grouping = Literal["one", "input", "blocks", "any", "tied"]
Coefficients = Literal["stacked", "fitted"]
Refinement = Literal["basis", "refit", "scale"]
HealedSites = Literal["all", "low_rank"]
Importance = Literal["surgery", "soco"]
Adapter = Literal["lora", "loha", "lokr"]
Precision = Literal["float32", "float16"]
WeightPrecision = Literal[
    "float32", "float16", "int8", "int8_b128", "int4", "int4_b64", "int4_b128", "int2_b64"
]
AskedPrecision = Literal[WeightPrecision, "auto"]
Task: TypeAlias = str
"""Name of a task in ``core.tasks.TASKS``, as the Hub calls it."""
Axis = Literal["rows", "columns"]
Phase = Literal["prefill", "decode", "forward", "text"]
Pooling = Literal["mean", "cls", "max", "last_token", "weighted_mean", "mean_sqrt_len"]
ALTERNATIVES: tuple[Grouping, ...] = ("any", "tied")  # groupings that offer a site several groups
SHARING: tuple[Grouping, ...] = ("input", "blocks", "any")  # groupings in which a basis is shared
PRECISION_BYTES: dict[str, int] = {"float32": 4, "float16": 2}
MIB = 2**20  # bytes
Array: TypeAlias = "NDArray[Any]"
Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with (what, done, total) as the work goes on."""


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """How a quantized matrix is stored: ``bits`` of an integer, and how many share a scale.

    Blocks are of ``block_size`` neighbouring inputs of one output.
    """

    bits: int
    block_size: int

    def blocks(self, inputs: int) -> int:
        """Count the blocks of an output of so many inputs; the last one is filled up."""
        return -(-inputs // self.block_size)


LAYOUTS: dict[WeightPrecision, BlockLayout] = {
    "int8": BlockLayout(8, 32),
    "int8_b128": BlockLayout(8, 128),
    "int4": BlockLayout(4, 32),
    "int4_b64": BlockLayout(4, 64),
    "int4_b128": BlockLayout(4, 128),
    "int2_b64": BlockLayout(2, 64),
}
"""Quantized precisions of weights; without a suffix, blocks are of 32 inputs."""
