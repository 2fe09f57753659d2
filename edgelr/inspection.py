"""What ``edgelr inspect`` shows: the linears of a model and how heavy their spectra are."""

from __future__ import annotations

import torch

from edgelr.cache import Cache
from edgelr.planning import load_model
from edgelr.settings import Settings
from edgelr.sites import find_sites, weight_of
from edgelr.types import SiteSummary


def inspect_sites(settings: Settings, cache: Cache) -> list[SiteSummary]:
    """Summarize every factorizable linear, in the order in which the model runs them."""
    model = load_model(settings, cache)
    rows = []
    for site in find_sites(model):
        sigma = torch.linalg.svdvals(weight_of(model, site.name))
        share = sigma / sigma.sum()
        entropy = -(share * share.clamp_min(1e-30).log()).sum()
        energy = (sigma**2).cumsum(0) / (sigma**2).sum()
        rows.append(
            SiteSummary(
                site.name,
                site.in_features,
                site.out_features,
                site.input_name,
                round(float(entropy.exp()), 1),
                int((energy < 0.5).sum()) + 1,
            )
        )
    return rows
