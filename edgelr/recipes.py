"""Named combinations of grouping, method, allocator and forms. Papers are points on axes."""

from __future__ import annotations

from dataclasses import dataclass

from edgelr.registry import Registry
from edgelr.types import Coefficients, Form, Grouping, HealedSites, Importance, Refinement


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is factorized together, in which metric, how bytes are spread, in which forms.

    Attributes:
        name: what ``--recipe`` takes.
        grouping: which linears may share factors; see ``sites.find_groups``.
        method: the decomposition.
        allocator: how the bytes are spread.
        forms: what a linear may become.
        summary: one line, with the paper.
        coefficients: of a basis that blocks share; see ``decompose.decompose_group``.
        refine: what is solved again once the ranks are known. ``basis``: a basis that blocks share,
            in turns with its coefficients. ``refit``: every block, on the inputs that the
            compressed model gives it. ``scale``: the scale of every component, to make up for those
            that were dropped.
        heal: which factors train where healing is asked for; ``low_rank`` leaves those of more
            than half of the full rank alone.
        importance: how the components of single linears are ordered and scaled anew, by what they
            are worth to the model: in closed form (``surgery``) or by training (``soco``).
    """

    name: str
    grouping: Grouping
    method: str
    allocator: str
    forms: tuple[Form, ...]
    summary: str
    coefficients: Coefficients = "fitted"
    refine: tuple[Refinement, ...] = ()
    heal: HealedSites = "all"
    importance: Importance | None = None


RECIPES: Registry[Recipe] = Registry("recipe", group="edgelr.recipes")

DENSE_OR_LOW_RANK: tuple[Form, ...] = ("dense", "low_rank")
LOW_RANK: tuple[Form, ...] = ("low_rank",)

for _recipe in (
    Recipe(
        "edgelr",
        "any",
        "fisher",
        "lagrangian",
        ("dense", "low_rank", "pivoted"),
        "two-sided Fisher metric, one global budget in units of loss (the default)",
        refine=("scale",),
    ),
    Recipe(
        "svd",
        "one",
        "svd",
        "uniform",
        LOW_RANK,
        "truncated SVD at one share everywhere: the baseline",
    ),
    Recipe(
        "asvd",
        "one",
        "asvd",
        "uniform",
        LOW_RANK,
        "ASVD: inputs scaled by their size (arXiv:2312.05821)",
    ),
    Recipe(
        "fwsvd",
        "one",
        "fwsvd",
        "uniform",
        LOW_RANK,
        "FWSVD: outputs weighed by their Fisher information (arXiv:2207.00112)",
    ),
    Recipe(
        "svd-llm",
        "one",
        "svd_llm",
        "uniform",
        LOW_RANK,
        "SVD-LLM: whitened SVD at one share everywhere (arXiv:2403.07378)",
    ),
    Recipe(
        "mpifa",
        "one",
        "svd_llm",
        "uniform",
        ("pivoted",),
        "MPIFA: SVD-LLM in pivoted form, refitted block by block (arXiv:2501.19090)",
        refine=("refit",),
    ),
    Recipe(
        "basis-sharing",
        "blocks",
        "svd_llm",
        "uniform",
        LOW_RANK,
        "Basis Sharing: one basis for two neighbouring blocks (arXiv:2410.03765)",
        coefficients="stacked",
    ),
    Recipe(
        "input-sharing",
        "input",
        "svd_llm",
        "uniform",
        LOW_RANK,
        "one basis for the linears that read the same input",
    ),
    Recipe(
        "basis-sharing-als",
        "blocks",
        "svd_llm",
        "uniform",
        LOW_RANK,
        "Basis Sharing with basis and coefficients solved in turns",
        refine=("basis",),
    ),
    Recipe(
        "welore",
        "one",
        "svd",
        "welore",
        DENSE_OR_LOW_RANK,
        "WeLore: one threshold on normalized spectra (arXiv:2407.11239); heals low-rank components",
        heal="low_rank",
    ),
    Recipe(
        "spectral-surgery",
        "one",
        "fisher",
        "lagrangian",
        ("dense", "low_rank", "pivoted"),
        "SVD-Surgeon: optimal brain surgery on components, the others rescaled (arXiv:2606.23568)",
        importance="surgery",
    ),
    Recipe(
        "soco",
        "one",
        "svd",
        "threshold",
        DENSE_OR_LOW_RANK,
        "SoCo: a learned score for every component, one threshold on all (arXiv:2502.15092)",
        importance="soco",
    ),
    Recipe(
        "input-space",
        "one",
        "input_space",
        "uniform",
        LOW_RANK,
        "projection on the principal inputs (row space, arXiv:2401.16438)",
    ),
    Recipe(
        "output-space",
        "one",
        "output_space",
        "uniform",
        LOW_RANK,
        "projection on the outputs that the loss sees (column space, arXiv:2401.16438)",
    ),
    Recipe(
        "tied-pair",
        "tied",
        "fisher",
        "lagrangian",
        ("dense", "low_rank", "tied"),
        "one matrix and its transpose for a pair of linears (arXiv:2401.16438)",
    ),
    Recipe(
        "kronecker",
        "one",
        "kronecker",
        "lagrangian",
        ("dense", "kronecker"),
        "sums of Kronecker products (arXiv:2408.05883)",
    ),
    Recipe(
        "hadamard",
        "one",
        "hadamard",
        "uniform",
        LOW_RANK,
        "products of two low-rank matrices, entry by entry (arXiv:2408.05883)",
    ),
    Recipe(
        "als",
        "one",
        "als",
        "uniform",
        LOW_RANK,
        "alternating least squares in the Fisher metric (arXiv:2408.05883)",
    ),
    Recipe(
        "nmf",
        "one",
        "nmf",
        "uniform",
        LOW_RANK,
        "non-negative factors of both signs (arXiv:2408.05883)",
    ),
):
    RECIPES.register(_recipe.name)(_recipe)
