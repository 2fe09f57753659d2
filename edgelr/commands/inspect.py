"""What ``edgelr inspect`` shows: the linears of a model, their spectra, and which are low-rank."""

from __future__ import annotations

import numpy as np

from edgelr.core.plan import Choice
from edgelr.core.run import Run
from edgelr.core.settings import Settings
from edgelr.core.sites import LinearSite, SiteGroup, SiteSummary
from edgelr.planning.allocators import ALLOCATORS
from edgelr.planning.candidates import make_options
from edgelr.planning.recipes import RECIPES
from edgelr.stages.source import Source, open_source

SAMPLES = 12  # of a spectrum, to be drawn in a line
KEEP = 0.8  # share at which components are classified, where none is asked for


def inspect_sites(settings: Settings, run: Run, source: Source | None = None) -> list[SiteSummary]:
    """Summarize every factorizable linear, in the order in which the model runs them.

    The classes are those of WeLore (arXiv:2407.11239) at ``--keep``: one threshold on all
    normalized spectra; a linear whose rank above it would save nothing is no low-rank component.
    """
    sites, spectrum_of = (source or open_source(settings)).singular_values(settings, run)
    spectra = {site.name: spectrum_of(site) for site in sites}
    classes = _classes(sites, spectra, KEEP if settings.keep is None else settings.keep)
    return [_summary(site, spectra[site.name], classes[site.name]) for site in sites]


def _classes(
    sites: tuple[LinearSite, ...], spectra: dict[str, np.ndarray], keep: float
) -> dict[str, Choice]:
    """What WeLore makes of every site; its spectra need no data."""
    recipe = RECIPES.get("welore")
    options = []
    for group in (SiteGroup(site.name, (site,)) for site in sites):
        squares = spectra[group.name] ** 2
        loss = np.append(np.cumsum(squares[::-1])[::-1] / 2, 0.0)
        options.append(make_options(group, loss, recipe.forms, "float32", 1))
    budget = keep * sum(option.dense.bytes for option in options)
    return ALLOCATORS.get(recipe.allocator)(options, int(budget))


def _summary(site: LinearSite, sigma: np.ndarray, choice: Choice) -> SiteSummary:
    share = sigma / max(float(sigma.sum()), float(np.finfo(float).tiny))
    entropy = float(-(share * np.log(np.maximum(share, 1e-30))).sum())
    energy = np.cumsum(sigma**2) / max(float((sigma**2).sum()), float(np.finfo(float).tiny))
    at = np.linspace(0, len(sigma) - 1, SAMPLES).round().astype(int)
    top = max(float(sigma[0]), float(np.finfo(float).tiny))
    compressed = choice.candidate.form != "dense"
    return SiteSummary(
        site.name,
        site.in_features,
        site.out_features,
        site.input_name,
        round(float(np.exp(entropy)), 1),
        int((energy < 0.5).sum()) + 1,
        round(float((sigma < top / 10).mean()), 3),
        tuple(round(float(value) / top, 3) for value in sigma[at]),
        "LRC" if compressed else "N-LRC",
        choice.candidate.rank,
    )
