"""A model of transformers as the subject of a run: loaded, examined, exported as it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from edgelr.compress.spectra import SpectrumTable
from edgelr.compress.statistics import StatisticsStore
from edgelr.core.cache import digest
from edgelr.core.errors import InputError
from edgelr.core.run import Run
from edgelr.core.settings import Settings
from edgelr.core.sites import LinearSite, SiteGroup
from edgelr.core.vocabulary import (
    LAYOUTS,
    PRECISION_BYTES,
    AskedPrecision,
    GroupKind,
    Precision,
    Task,
    WeightPrecision,
)
from edgelr.data.calibration import Calibration, load_tokenizer
from edgelr.data.text import Texts
from edgelr.device.kernels import fast_precisions
from edgelr.device.profile import DeviceProfile
from edgelr.graph.residency import read_residencies
from edgelr.model.load import load
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_groups
from edgelr.model.token_table import tied_heads
from edgelr.planning.allocators import ONE_KNOB
from edgelr.planning.recipes import RECIPES, Recipe, changed_recipe
from edgelr.report.card import license_of
from edgelr.stages.staging import model_room
from edgelr.stages.subject import DenseExport, Planned, Subject
from edgelr.stages.transformers import checks
from edgelr.stages.transformers.rows import rows_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class ModelSubject(Subject):
    """A model of transformers, and what to do with it.

    Attributes:
        model: loaded model, in float32.
        texts: texts, images or sounds that calibrate, select and judge.
    """

    model: LoadedModel
    texts: Texts

    @property
    def task(self) -> Task:
        return self.model.task

    @property
    def digest(self) -> str:
        return self.model.digest

    @property
    def sites(self) -> tuple[LinearSite, ...]:
        return self.model.sites

    @property
    def table(self) -> LinearSite | None:
        """The table of embeddings, where its precision is chosen."""
        return self.model.table if set(self.weights) & set(LAYOUTS) else None

    @property
    def planned_groups(self) -> list[SiteGroup]:
        if self.table is None:
            return self.groups
        kind: GroupKind = "tied_table" if tied_heads(self.model) else "table"
        return [*self.groups, SiteGroup(self.table.name, (self.table,), kind)]

    @property
    def planned_parameters(self) -> int:
        table = 0 if self.table is None else self.table.parameters
        return super().planned_parameters + table

    @property
    def multiplied(self) -> tuple[LinearSite, ...]:
        tied = self.table is not None and tied_heads(self.model)
        return (*self.sites, self.table) if tied and self.table else self.sites

    @property
    def room(self) -> tuple[int, int]:
        return model_room(sum(each.numel() for each in self.model.module.parameters()))

    @property
    def judged_on(self) -> str:
        return self.texts.judged_on

    @property
    def judged_key(self) -> str:
        return digest(self.texts.evaluation, self.texts.records)

    @property
    def license(self) -> str:
        return license_of(self.model.folder)

    def write_judged(self, folder: Path) -> Path:
        return self.texts.write_judged(folder)

    @property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.model.folder)

    def usual_tokens(self, tokens: int) -> int:
        """Give ``tokens`` of text, or those of the usual number of images or sounds."""
        return rows_of(self.model).usual_tokens(self.model, tokens)


@dataclass(frozen=True)
class ModelCosts:
    """What the linears of a model cost, and the statistics that tell it.

    Attributes:
        calibration: rows that the statistics are of.
        statistics: Grams of the linears.
        spectra: predicted loss of every group, at every rank and precision.
    """

    calibration: list[Calibration]
    statistics: StatisticsStore
    spectra: SpectrumTable


ModelPlanned: TypeAlias = Planned[ModelSubject, ModelCosts]


def examine(model: LoadedModel, settings: Settings, device: DeviceProfile) -> ModelSubject:
    """Resolve the settings for one model and device.

    Raises:
        InputError: a setting does not fit the model.
    """
    rows = rows_of(model)
    rows.require_lengths(model, settings)
    device, shape, context = rows.workload(model, settings, device)
    recipe = changed_recipe(RECIPES.get(settings.recipe), settings)
    asked = settings.precision or ("auto" if _mixes(recipe) else device.precision)
    values, weights = _precisions(asked, device)
    checks.require_floats(model.sites, weights)
    if len(weights) > 1 and recipe.mixed:
        recipe = replace(recipe, importance=None, refine=())  # of components, of which few are left
    rows.require(model, settings, recipe)
    checks.require_tests(model, settings)
    if len(weights) > 1 and recipe.allocator in ONE_KNOB:
        raise InputError(
            f"--precision auto chooses a precision for every linear, and the allocator "
            f"{recipe.allocator!r} has one knob for all. Expected --allocator lagrangian, or one "
            f"precision."
        )
    texts = rows.choose(model, settings)
    return ModelSubject(
        model=rows.with_prompts(model, settings, texts),
        settings=settings,
        device=device,
        recipe=recipe,
        precision=values,
        weights=weights,
        groups=find_groups(model.sites, recipe.grouping, model.exporter.tied_pairs),
        shape=shape,
        context_tokens=context,
        texts=texts,
    )


def _mixes(recipe: Recipe) -> bool:
    """Whether a recipe chooses a precision for every linear, where none is asked for."""
    return recipe.mixed and recipe.allocator not in ONE_KNOB


def _precisions(
    asked: AskedPrecision, device: DeviceProfile
) -> tuple[Precision, tuple[WeightPrecision, ...]]:
    """Precision of the values, and those of the weights; int8 and the like are for weights alone.

    Raises:
        InputError: the device has no kernels for the precision.
    """
    if asked == "float32" or asked == "float16":
        return asked, (asked,)
    if asked == "auto":
        return device.precision, (device.precision, *fast_precisions(device))
    if asked not in fast_precisions(device):
        raise InputError(
            f"--precision is {asked}, for which ONNX Runtime has no fast kernels on "
            f"{device.provider} at accuracy level {device.accuracy_level}: the profile {device.id} "
            f"has {', '.join(fast_precisions(device))}."
        )
    return device.precision, (asked,)


def fixed_residency(subject: ModelSubject, dense: DenseExport) -> int:
    """Memory of the weights that are never planned, in the precision of the bundle."""
    provider, table = subject.device.provider, subject.table
    planned = sum(site.parameters for site in subject.sites)
    if table is not None:
        twice = provider == "cpu" and tied_heads(subject.model)
        planned += table.parameters * (2 if twice else 1)
    whole = read_residencies(dense.bundle.model_path, provider).bytes
    width = PRECISION_BYTES[subject.precision]
    return (whole - PRECISION_BYTES["float32"] * planned) * width // PRECISION_BYTES["float32"]


def load_model(settings: Settings, run: Run) -> LoadedModel:
    """Load the model that the settings name."""
    return load(
        settings.model, run.cache, settings.revision, settings.trust_remote_code, settings.task
    )
