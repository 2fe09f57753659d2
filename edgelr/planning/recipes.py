"""Recipes: named combinations of grouping, method, allocator and forms, one for every paper."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgelr.compress.methods import METHODS
from edgelr.compress.rounding import ROUNDING
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A point on the axes grouping, method, allocator, forms, and what is done beyond them.

    Attributes:
        name: value of ``--recipe``.
        summary: one line, with the paper.
        method: name of the decomposition.
        grouping: linears that may share factors; see ``sites.find_groups``.
        allocator: name of the allocator, which spreads the bytes over the linears.
        forms: forms that a linear may take.
        coefficients: fit of the coefficients of a basis that blocks share; see
            ``decompose.decompose_group``.
        refine: solutions computed again once the ranks are known. ``basis``: a basis that blocks
            share, in turns with its coefficients. ``refit``: every block, on the inputs that the
            compressed model gives it. ``scale``: the scale of every component, to make up for those
            that were dropped.
        heal: factors that train where healing is asked for; ``low_rank`` leaves those of more than
            half of the full rank alone.
        importance: measure by which the components of single linears are ordered and scaled anew:
            the increase of the loss without them (``surgery``) or a trained score (``soco``).
        mixed: whether weights may have every precision that the device multiplies fast, where none
            is asked for; else they have the profile's.
        rounding: name of what finds the integers of quantized matrices; see ``compress.rounding``.
    """

    name: str
    summary: str
    method: str
    grouping: Grouping = "one"
    allocator: str = "uniform"
    forms: tuple[Form, ...] = ("low_rank",)
    coefficients: Coefficients = "fitted"
    refine: tuple[Refinement, ...] = ()
    heal: HealedSites = "all"
    importance: Importance | None = None
    mixed: bool = False
    rounding: str = "gptq"


def changed_recipe(recipe: Recipe, settings: Settings) -> Recipe:
    """Replace the axes of a recipe that the settings name.

    What was not named follows: another method brings the forms that it can make, linears stay
    alone where the method or the allocator cannot let them share, and components are weighed where
    they are nested and each belongs to one linear.

    Raises:
        InputError: a name is unknown, or the axes that were named do not go together.
    """
    axes = ("grouping", "method", "allocator", "forms", "rounding")
    named = {axis: value for axis in axes if (value := getattr(settings, axis)) is not None}
    if not named:
        return recipe
    changed = replace(recipe, name=f"{recipe.name} (changed: {', '.join(named)})", **named)
    method = METHODS.get(changed.method)
    ALLOCATORS.get(changed.allocator)
    ROUNDING.get(changed.rounding)
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

for _recipe in (
    Recipe(
        name="edgelr",
        summary=(
            "one budget in units of loss for precisions, ranks and forms: two-sided Fisher metric, "
            "GPTQ, optimal brain surgery (the default)"
        ),
        method="fisher",
        allocator="lagrangian",
        forms=("dense", "low_rank", "pivoted"),
        refine=("scale",),
        importance="surgery",
        mixed=True,
    ),
    Recipe(
        name="svd",
        summary="truncated SVD at one share everywhere: the baseline",
        method="svd",
    ),
    Recipe(
        name="asvd",
        summary="ASVD: inputs scaled by their size (arXiv:2312.05821)",
        method="asvd",
    ),
    Recipe(
        name="fwsvd",
        summary="FWSVD: outputs weighed by their Fisher information (arXiv:2207.00112)",
        method="fwsvd",
    ),
    Recipe(
        name="svd-llm",
        summary="SVD-LLM: whitened SVD at one share everywhere (arXiv:2403.07378)",
        method="svd_llm",
    ),
    Recipe(
        name="mpifa",
        summary="MPIFA: SVD-LLM in pivoted form, refitted block by block (arXiv:2501.19090)",
        method="svd_llm",
        forms=("pivoted",),
        refine=("refit",),
    ),
    Recipe(
        name="basis-sharing",
        summary="Basis Sharing: one basis for two neighbouring blocks (arXiv:2410.03765)",
        grouping="blocks",
        method="svd_llm",
        coefficients="stacked",
    ),
    Recipe(
        name="input-sharing",
        summary="one basis for the linears that read the same input",
        grouping="input",
        method="svd_llm",
    ),
    Recipe(
        name="basis-sharing-als",
        summary="Basis Sharing with basis and coefficients solved in turns",
        grouping="blocks",
        method="svd_llm",
        refine=("basis",),
    ),
    Recipe(
        name="welore",
        summary=(
            "WeLore: one threshold on normalized spectra (arXiv:2407.11239); heals "
            "low-rank components"
        ),
        method="svd",
        allocator="welore",
        forms=("dense", "low_rank"),
        heal="low_rank",
    ),
    Recipe(
        name="spectral-surgery",
        summary=(
            "SVD-Surgeon: optimal brain surgery on components, the others rescaled "
            "(arXiv:2606.23568)"
        ),
        method="fisher",
        allocator="lagrangian",
        forms=("dense", "low_rank", "pivoted"),
        importance="surgery",
    ),
    Recipe(
        name="soco",
        summary=(
            "SoCo: a learned score for every component, one threshold on all (arXiv:2502.15092)"
        ),
        method="svd",
        allocator="threshold",
        forms=("dense", "low_rank"),
        importance="soco",
    ),
    Recipe(
        name="input-space",
        summary="projection on the principal inputs (row space, arXiv:2401.16438)",
        method="input_space",
    ),
    Recipe(
        name="output-space",
        summary="projection on the outputs that the loss sees (column space, arXiv:2401.16438)",
        method="output_space",
    ),
    Recipe(
        name="tied-pair",
        summary="one matrix and its transpose for a pair of linears (arXiv:2401.16438)",
        grouping="tied",
        method="fisher",
        allocator="lagrangian",
        forms=("dense", "low_rank", "tied"),
    ),
    Recipe(
        name="kronecker",
        summary="sums of Kronecker products (arXiv:2408.05883)",
        method="kronecker",
        allocator="lagrangian",
        forms=("dense", "kronecker"),
    ),
    Recipe(
        name="hadamard",
        summary="products of two low-rank matrices, entry by entry (arXiv:2408.05883)",
        method="hadamard",
    ),
    Recipe(
        name="als",
        summary="alternating least squares in the Fisher metric (arXiv:2408.05883)",
        method="als",
    ),
    Recipe(
        name="nmf",
        summary="non-negative factors of both signs (arXiv:2408.05883)",
        method="nmf",
    ),
):
    RECIPES.register(_recipe.name)(_recipe)
