"""Decompositions and factors on disk; losses are in memory, factors read when they are needed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open

from edgelr.compress.block_quantized import Blocks, QuantizedLoss
from edgelr.compress.factors import (
    Decomposed,
    Decomposition,
    Dense,
    Factors,
    FactorSet,
    Fits,
    Kronecker,
    KroneckerTerms,
    LowRank,
    Pivoted,
    Reweighted,
    SharedBasis,
    Tied,
    TiedFit,
)
from edgelr.compress.stored_weights import read_blocks, read_losses
from edgelr.core.sites import LinearSite
from edgelr.core.vocabulary import WeightPrecision

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class SpectrumTable:
    """Predicted loss of every group at every rank; the factors stay on disk until they are read.

    Attributes:
        folder: one ``<group>.safetensors`` per group: factors (float32) and ``loss`` (float64).
        loss: predicted loss of every group, ``{group: (k + 1,)}``, float64; infinite where the
            method made no factors.
        quantized: predicted losses in quantized precisions, where these were asked for.
        stored: folder of the quantized weights of every group; see ``stored_weights``.
    """

    folder: Path
    loss: dict[str, NDArray[np.float64]]
    quantized: Mapping[str, Mapping[WeightPrecision, QuantizedLoss]] = field(default_factory=dict)
    stored: Mapping[str, Path] = field(default_factory=dict)

    def decomposition(self, group: str) -> Decomposed:
        """Read the factors of one group."""
        with safe_open(_file(self.folder, group), framework="pt") as file:
            return _value({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118

    def weight(self, group: str, site: str, precision: WeightPrecision) -> Blocks:
        """Read the quantized weight of a site."""
        return read_blocks(self.stored[group], group, site, precision)

    def with_rounded(self, folder: Path, groups: Iterable[str]) -> SpectrumTable:
        """Add what ``round_groups`` wrote into a folder."""
        names = list(groups)
        return replace(
            self,
            quantized={**self.quantized, **{name: read_losses(folder, name) for name in names}},
            stored={**self.stored, **dict.fromkeys(names, folder)},
        )

    def with_whole(self, site: LinearSite, folder: Path) -> SpectrumTable:
        """Add a weight that is not factorized, and its loss in each precision."""
        never = np.full(min(site.in_features, site.out_features), np.inf)
        whole = replace(self, loss={**self.loss, site.name: np.append(never, 0.0)})
        return whole.with_rounded(folder, [site.name])

    def scaled(self, truncation: float, rounding: float) -> SpectrumTable:
        """Scale the predicted losses of dropped components, and of rounded weights."""

        def quantized(name: str, lost: QuantizedLoss) -> QuantizedLoss:
            dropped = self.loss[name]
            finite = np.isfinite(lost.product)
            product = np.full_like(lost.product, np.inf)
            rounded = np.maximum(0.0, lost.product[finite] - dropped[finite])
            product[finite] = truncation * dropped[finite] + rounding * rounded
            return QuantizedLoss(rounding * lost.dense, product)

        return replace(
            self,
            loss={name: truncation * loss for name, loss in self.loss.items()},
            quantized={
                name: {precision: quantized(name, lost) for precision, lost in per.items()}
                for name, per in self.quantized.items()
            },
        )


def write_spectrum(folder: Path, group: str, result: Decomposed) -> None:
    """Write the decomposition of one group."""
    from safetensors.torch import save_file  # imports torch; reading losses does not

    tensors = {name: tensor.float().contiguous() for name, tensor in _tensors(result).items()}
    save_file({**tensors, "loss": result.loss.double()}, _file(folder, group))


def read_spectra(folder: Path) -> SpectrumTable:
    """Read the losses of every group in a folder."""
    loss = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            loss[path.stem] = file.get_tensor("loss")
    return SpectrumTable(folder, loss)


def write_factors(path: Path, factors: FactorSet) -> None:
    """Write products, as ``truncate`` makes them, into one file."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    kinds: dict[str, tuple[str, str | None, bool]] = {}
    for site, each in factors.items():
        assert not isinstance(each, (Pivoted, Dense))
        parts = _parts(each)
        tensors |= {f"{site}/{name}": tensor.clone() for name, tensor in parts.items()}
        shared = None if isinstance(each, Kronecker) else each.shared
        transposed = isinstance(each, Tied) and each.transposed
        kinds[site] = (type(each).__name__, shared, transposed)
    save_file(tensors, path, {"sites": json.dumps(kinds)})


def read_factors(path: Path) -> FactorSet:
    """Read the factors that ``write_factors`` wrote."""
    factors: FactorSet = {}
    with safe_open(path, framework="pt") as file:
        for site, (kind, shared, transposed) in json.loads(file.metadata()["sites"]).items():

            def part(name: str, site: str = site) -> Tensor:
                tensor: Tensor = file.get_tensor(f"{site}/{name}")
                return tensor

            if kind == "LowRank":
                factors[site] = LowRank(part("down"), part("up"), shared)
            elif kind == "Tied":
                factors[site] = Tied(part("weight"), transposed, shared)
            else:
                factors[site] = Kronecker(part("left"), part("right"))
    return factors


def _parts(factors: Factors) -> dict[str, Tensor]:
    if isinstance(factors, LowRank):
        return {"down": factors.down, "up": factors.up}
    if isinstance(factors, Tied):
        return {"weight": factors.weight}
    assert isinstance(factors, Kronecker)
    return {"left": factors.left, "right": factors.right}


def _file(folder: Path, group: str) -> Path:
    return folder / f"{group}.safetensors"


def _tensors(result: Decomposed) -> dict[str, Tensor]:
    """The factors of a decomposition by name; the names tell its kind."""
    if isinstance(result, Decomposition):
        return {"down": result.down, "up": result.up}
    if isinstance(result, Reweighted):
        return {"down": result.down, "up": result.up, "root": result.root}
    if isinstance(result, KroneckerTerms):
        return {"left": result.left, "right": result.right}
    if isinstance(result, TiedFit):
        return {"weight": result.weight}
    if isinstance(result, SharedBasis):
        return {"down": result.down, "mixes": result.mixes, "coefficients": result.coefficients}
    fits = result.fits.items()
    return {f"down_{rank}": fit.down for rank, fit in fits} | {
        f"up_{rank}": fit.up for rank, fit in fits
    }


def _value(tensors: dict[str, Tensor]) -> Decomposed:
    loss = tensors.pop("loss")
    if "left" in tensors:
        return KroneckerTerms(tensors["left"], tensors["right"], loss)
    if "weight" in tensors:
        return TiedFit(tensors["weight"], loss)
    if "mixes" in tensors:
        return SharedBasis(tensors["down"], tensors["mixes"], tensors["coefficients"], loss)
    if "root" in tensors:
        return Reweighted(tensors["down"], tensors["up"], tensors["root"], loss)
    if "down" in tensors:
        return Decomposition(tensors["down"], tensors["up"], loss)
    ranks = [int(name.removeprefix("up_")) for name in tensors if name.startswith("up_")]
    fits = {rank: LowRank(tensors[f"down_{rank}"], tensors[f"up_{rank}"]) for rank in ranks}
    return Fits(fits, loss)
