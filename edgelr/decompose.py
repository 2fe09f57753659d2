"""Decompose every group once, for every rank; read factors back by plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from edgelr.errors import InputError
from edgelr.forms import balance, pivot
from edgelr.sites import weight_of
from edgelr.types import (
    Decomposition,
    Factors,
    FactorSet,
    LoadedModel,
    LowRank,
    Pivoted,
    Plan,
    SiteGroup,
    SitePlan,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from edgelr.methods import Method
    from edgelr.statistics import StatisticsStore

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SpectrumTable:
    """Predicted loss of every group at every rank; the factors stay on disk until they are read.

    Attributes:
        folder: one ``<group>.safetensors`` with ``down``, ``up`` (float32) and ``loss`` (float64)
            per group.
        loss: ``{group: (k + 1,)}``, float64.
    """

    folder: Path
    loss: dict[str, NDArray[np.float64]]

    def decomposition(self, group: str) -> Decomposition:
        """Read the factors of one group."""
        with safe_open(self.folder / f"{group}.safetensors", framework="pt") as file:
            return Decomposition(
                file.get_tensor("down"), file.get_tensor("up"), file.get_tensor("loss")
            )


def decompose(
    model: LoadedModel,
    groups: list[SiteGroup],
    statistics: StatisticsStore,
    method: Method,
    folder: Path,
    progress: Progress,
) -> None:
    """Write the decomposition of every group into ``folder``.

    Raises:
        InputError: the statistics of a group are not finite, so that nothing can be predicted.
    """
    for done, group in enumerate(groups, start=1):
        site = group.sites[0]
        weight = weight_of(model, site.name).double()
        given = statistics.of(site)
        _require_finite(site.name, given.input_gram, given.output_gradient_gram)
        result = method.decompose(weight, given)
        _require_finite(site.name, result.loss)
        tensors = {
            "down": result.down.float(),
            "up": result.up.float(),
            "loss": result.loss.double(),
        }
        save_file(tensors, folder / f"{group.name}.safetensors")
        progress("decomposition", done, len(groups))


def _require_finite(name: str, *tensors: Tensor | None) -> None:
    if all(tensor is None or torch.isfinite(tensor).all() for tensor in tensors):
        return
    raise InputError(
        f"The calibration statistics of {name} are not finite: the model overflows on this "
        f"calibration text. Check the model's outputs on it, or calibrate on another."
    )


def read_spectra(folder: Path) -> SpectrumTable:
    """Read the losses that ``decompose`` wrote."""
    loss = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            loss[path.stem] = file.get_tensor("loss")
    return SpectrumTable(folder, loss)


def truncate(spectra: SpectrumTable, plan: Plan, block: int = 1) -> FactorSet:
    """Make the factors that the plan asks for; dense sites have none.

    Args:
        spectra: the decompositions.
        plan: forms and ranks.
        block: neighbours that pivot together; see ``forms.pivot``.
    """
    return {
        site.name: _factors(spectra, site, block)
        for site in plan.sites
        if site.candidate.form != "dense"
    }


def _factors(spectra: SpectrumTable, site: SitePlan, block: int) -> Factors:
    stored = spectra.decomposition(site.name).truncate(site.candidate.rank)
    factors = balance(LowRank(stored.down.double(), stored.up.double()))
    if site.candidate.form == "low_rank":
        return LowRank(factors.down.float(), factors.up.float())
    pivoted = pivot(factors, block)
    return Pivoted(pivoted.axis, pivoted.first.float(), pivoted.second.float(), pivoted.order)
