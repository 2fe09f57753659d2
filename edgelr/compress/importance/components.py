"""The components of all linears side by side, and which of them a number of parameters can hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edgelr.compress.factors import Decomposition, FactorSet, LowRank
from edgelr.core.errors import InputError
from edgelr.device.storage import LEAST_SAVING

if TYPE_CHECKING:
    from torch import Tensor

    from edgelr.compress.spectra import SpectrumTable

HALVINGS = 30  # past the resolution of a float32 in [0, 2]


@dataclass(frozen=True)
class AllComponents:
    """The components of all sites, ``n`` in all.

    Attributes:
        sites: nested decompositions by name.
        owner: index of the site of every component, ``(n,)``.
        cost: number of parameters of every component, ``(n,)``.
        dense: number of parameters of the dense weights, ``(sites,)``.
    """

    sites: dict[str, Decomposition]
    owner: Tensor
    cost: Tensor
    dense: Tensor

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Divide ``(n,)`` among the sites."""
        sizes = [len(site.up) for site in self.sites.values()]
        return dict(zip(self.sites, values.split(sizes), strict=True))

    def factors(self, scales: Tensor, dense: Tensor) -> FactorSet:
        """Scale the components ``(n,)`` of every site but those that are ``dense (sites,)``."""
        parts = self.split(scales)
        return {
            name: LowRank(site.down, site.up * parts[name][:, None])
            for (name, site), skip in zip(self.sites.items(), dense.tolist(), strict=True)
            if not skip
        }

    def dense_sites(self, kept: Tensor) -> Tensor:
        """Tell which sites would not be enough smaller than dense, ``(sites,)``.

        Args:
            kept: mask of the components that are kept, ``(n,)``.
        """
        return self._factorized(kept) > (1 - LEAST_SAVING) * self.dense

    def parameters(self, kept: Tensor) -> float:
        """Count those of all sites, some of them dense, with the components ``kept (n,)``."""
        factorized = self._factorized(kept)
        return float(torch.where(self.dense_sites(kept), self.dense, factorized).sum())

    def threshold(self, scores: Tensor, parameters: float) -> float:
        """Find the lowest threshold on ``scores (n,)`` that leaves at most ``parameters``."""
        low, high = 0.0, float(scores.max())
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            fits = self.parameters(scores > middle) <= parameters
            low, high = (low, middle) if fits else (middle, high)
        return high

    def _factorized(self, kept: Tensor) -> Tensor:
        return torch.zeros(len(self.dense)).index_add(0, self.owner, kept * self.cost)


def nested(spectra: SpectrumTable, site: str) -> Decomposition:
    """Read the decomposition of one site.

    Raises:
        InputError: it has no components that can be weighed.
    """
    plain = spectra.decomposition(site)
    if isinstance(plain, Decomposition):
        return plain
    raise InputError(
        f"The importance of components was asked for, and the method gave {type(plain).__name__} "
        f"for {site}; expected nested components. Choose --method fisher or svd."
    )


def side_by_side(spectra: SpectrumTable) -> AllComponents:
    """Read the decompositions of all sites.

    Raises:
        InputError: see ``nested``.
    """
    sites = {name: nested(spectra, name) for name in spectra.loss}
    shapes = [(len(site.down), site.up.shape[1]) for site in sites.values()]
    sizes = torch.tensor([len(site.up) for site in sites.values()])
    owner = torch.arange(len(sites)).repeat_interleave(sizes)
    cost = torch.tensor([float(inputs + outputs) for inputs, outputs in shapes])
    dense = torch.tensor([float(inputs * outputs) for inputs, outputs in shapes])
    return AllComponents(sites, owner, cost[owner], dense)
