"""Named combinations of grouping, method, allocator and forms. Papers are points on axes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgelr.compress.methods import METHODS
from edgelr.core.errors import InputError
from edgelr.core.registry import Registry
from edgelr.core.vocabulary import (
    ALTERNATIVES,
    SHARING,
    Coefficients,
    Form,
    Grouping,
    HealedSites,
    Importance,
    Refinement,
)
from edgelr.planning.allocators import ALLOCATORS, ONE_KNOB

if TYPE_CHECKING:
    from edgelr.core.settings import Settings


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


def changed_recipe(recipe: Recipe, settings: Settings) -> Recipe:
    """Replace the axes of a recipe that the settings name.

    What was not named follows: another method brings the forms that it can make, linears stay
    alone where the method or the allocator cannot let them share, and components are weighed where
    they are nested and each belongs to one linear.

    Raises:
        InputError: a name is unknown, or the axes that were named do not go together.
    """
    axes = ("grouping", "method", "allocator", "forms")
    named = {axis: value for axis in axes if (value := getattr(settings, axis)) is not None}
    if not named:
        return recipe
    changed = replace(recipe, name=f"{recipe.name} (changed: {', '.join(named)})", **named)
    method = METHODS.get(changed.method)
    ALLOCATORS.get(changed.allocator)
    if "forms" not in named and not method.forms.issuperset(changed.forms):
        changed = replace(changed, forms=tuple(sorted(method.forms)))
    if changed.importance == "surgery" and not (method.nested and changed.grouping == "one"):
        changed = replace(changed, importance=None)
    problem = _misfit(changed)
    if problem and "grouping" not in named:
        changed = replace(changed, grouping="one")
        problem = _misfit(changed)
    if problem:
        raise InputError(problem)
    return changed


def _misfit(recipe: Recipe) -> str | None:
    """Say which axes do not go together, and what would."""
    method, grouping = METHODS.get(recipe.method), recipe.grouping
    if not method.forms.issuperset(recipe.forms):
        return (
            f"The method {recipe.method!r} cannot make the forms {', '.join(recipe.forms)}. "
            f"Expected --forms of {', '.join(sorted(method.forms))}, or another --method."
        )
    if grouping in ALTERNATIVES and recipe.allocator in ONE_KNOB:
        return (
            f"The grouping {grouping!r} offers groups that exclude each other, and the allocator "
            f"{recipe.allocator!r} cannot choose between them. Expected --grouping one, input or "
            f"blocks, or --allocator lagrangian."
        )
    if grouping in SHARING and not (method.nested and "low_rank" in method.forms):
        return (
            f"The grouping {grouping!r} lets linears share a basis, and the components of the "
            f"method {recipe.method!r} are not nested. Expected --grouping one, or a method such "
            f"as fisher or svd_llm."
        )
    if "refit" in recipe.refine and "input_gram" not in method.needs:
        return (
            f"The recipe {recipe.name!r} refits factors to the inputs that they get, and the "
            f"method {recipe.method!r} does not look at inputs. Expected a method such as fisher "
            f"or svd_llm."
        )
    if recipe.importance and grouping != "one":
        return (
            f"The recipe {recipe.name!r} weighs the components of single linears, and the grouping "
            f"{grouping!r} lets linears share them. Expected --grouping one."
        )
    return None


RECIPES: Registry[Recipe] = Registry("recipe", group="edgelr.recipes")

DENSE_OR_LOW_RANK: tuple[Form, ...] = ("dense", "low_rank")
LOW_RANK: tuple[Form, ...] = ("low_rank",)

for _recipe in (
    Recipe(
        "edgelr",
        "one",
        "fisher",
        "lagrangian",
        ("dense", "low_rank", "pivoted"),
        "two-sided Fisher metric, optimal brain surgery, one budget in units of loss (the default)",
        refine=("scale",),
        importance="surgery",
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
