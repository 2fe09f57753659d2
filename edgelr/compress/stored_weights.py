"""Quantized weights on disk: what the prediction looked at is what the graph gets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgelr.compress.block_quantized import Blocks, QuantizedLoss
from edgelr.core.vocabulary import LAYOUTS, WeightPrecision

_ARRAYS = ("packed", "scales", "zero_points")


def write_group(
    folder: Path,
    group: str,
    stored: Mapping[str, Mapping[WeightPrecision, Blocks]],
    losses: Mapping[WeightPrecision, QuantizedLoss],
) -> None:
    """Write the weights of one group in every precision, and what each is predicted to lose.

    Args:
        folder: folder that receives ``<group>.npz`` and ``<group>.losses.npz``.
        group: name of the group.
        stored: stored weights by site and precision.
        losses: predicted losses of the group by precision.
    """
    arrays: dict[str, np.ndarray] = {}
    for site, by_precision in stored.items():
        for precision, blocks in by_precision.items():
            key = f"{site}/{precision}"
            arrays |= {f"{key}/{name}": getattr(blocks, name) for name in _ARRAYS}
            arrays[f"{key}/in_features"] = np.array(blocks.in_features)
    np.savez(folder / f"{group}.npz", allow_pickle=False, **arrays)
    told = {f"{name}/product": each.product for name, each in losses.items()}
    told |= {f"{name}/dense": np.array(each.dense) for name, each in losses.items()}
    np.savez(folder / f"{group}.losses.npz", allow_pickle=False, **told)


def read_losses(folder: Path, group: str) -> dict[WeightPrecision, QuantizedLoss]:
    """Read what a group is predicted to lose, by precision."""
    with np.load(folder / f"{group}.losses.npz", allow_pickle=False) as arrays:
        return {
            name: QuantizedLoss(float(arrays[f"{name}/dense"]), arrays[f"{name}/product"])
            for name in LAYOUTS
            if f"{name}/dense" in arrays
        }


def read_blocks(folder: Path, group: str, site: str, precision: WeightPrecision) -> Blocks:
    """Read the stored weight of a site."""
    with np.load(folder / f"{group}.npz", allow_pickle=False) as arrays:
        key = f"{site}/{precision}"
        packed, scales, zero_points = (arrays[f"{key}/{name}"] for name in _ARRAYS)
        inputs = int(arrays[f"{key}/in_features"])
    return Blocks(packed, scales, zero_points, inputs, LAYOUTS[precision])
