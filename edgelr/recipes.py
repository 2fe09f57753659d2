"""Named combinations of grouping, method, allocator and forms. Papers are points on axes."""

from __future__ import annotations

from dataclasses import dataclass

from edgelr.registry import Registry
from edgelr.types import Form, Grouping


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is factorized together, in which metric, how bytes are spread, in which forms."""

    name: str
    grouping: Grouping
    method: str
    allocator: str
    forms: tuple[Form, ...]
    summary: str


RECIPES: Registry[Recipe] = Registry("recipe", group="edgelr.recipes")

for _recipe in (
    Recipe(
        "edgelr",
        "one",
        "fisher",
        "lagrangian",
        ("dense", "low_rank", "pivoted"),
        "two-sided Fisher metric, one global budget in units of loss (the default)",
    ),
    Recipe(
        "svd-llm",
        "one",
        "svd_llm",
        "uniform",
        ("low_rank",),
        "SVD-LLM: whitened SVD at one share everywhere (arXiv:2403.07378)",
    ),
    Recipe(
        "welore",
        "one",
        "svd",
        "welore",
        ("dense", "low_rank"),
        "WeLore: one threshold on normalized spectra (arXiv:2407.11239), without fine-tuning",
    ),
    Recipe(
        "svd",
        "one",
        "svd",
        "uniform",
        ("low_rank",),
        "truncated SVD at one share everywhere: the baseline",
    ),
):
    RECIPES.register(_recipe.name)(_recipe)
