"""The beginning of the story: what is compressed, for what and how; and the dense export."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgelr.compress import statistics as statistic
from edgelr.compress.embedding_table import find_table, has_tied_head
from edgelr.compress.spectra import SpectrumTable
from edgelr.core.bundle import ExportBundle, Manifest, read_bundle, write_manifest
from edgelr.core.cache import Cache, digest
from edgelr.core.dimensions import ModelShape
from edgelr.core.errors import InputError
from edgelr.core.graph_files import encoder_file, graph_file
from edgelr.core.plan import Budget, Plan
from edgelr.core.settings import Settings
from edgelr.core.sites import LinearSite, SiteGroup
from edgelr.core.vocabulary import (
    WEIGHT_BITS,
    AskedPrecision,
    GroupKind,
    Precision,
    WeightPrecision,
)
from edgelr.data import calibration as calibrations
from edgelr.data.calibration import Calibration
from edgelr.data.prompts import choose_prompts, tokenized
from edgelr.device.gate import profile_drop
from edgelr.device.profile import DeviceProfile
from edgelr.graph.build import build, trace
from edgelr.graph.companions import copy_companions, write_genai_config
from edgelr.graph.residency import read_residencies
from edgelr.model.dimensions import shape_of
from edgelr.model.load import load
from edgelr.model.loaded import LoadedModel
from edgelr.model.sites import find_groups, find_sites
from edgelr.plan.allocate import Search, prepare
from edgelr.plan.allocators import ONE_KNOB
from edgelr.plan.recipes import RECIPES, Recipe, changed_recipe
from edgelr.stages import checks as refusals
from edgelr.stages.text_selection import Texts, choose

if TYPE_CHECKING:
    from tokenizers import Tokenizer

IMAGES = 256  # to calibrate on, and to plan on: every one has one loss, however many tokens
SOUNDS = 128  # the same; half a minute each, and every token of its transcript has a loss
FORMAT = 1  # of the cached stages; raise it when what they hold changes its meaning
DENSE_FORMAT = 8  # of the dense export


class Listener(Protocol):
    """Hears what a run does; the command line draws it."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Tell that a part of a stage is done."""

    def note(self, text: str) -> None:
        """Tell something that the user should know."""

    def planned(self, plan: Plan, budget: Budget) -> None:
        """Show the plan, before the long work that follows from it."""


@dataclass(frozen=True)
class Subject:
    """What is compressed, for what, and how: all that is known before any computation."""

    model: LoadedModel
    settings: Settings
    device: DeviceProfile
    recipe: Recipe
    precision: Precision  # of what weights are multiplied with
    weights: tuple[WeightPrecision, ...]  # that they may have; the first is that of dense ones
    sites: tuple[LinearSite, ...]
    groups: list[SiteGroup]
    table: LinearSite | None  # of embeddings, where its precision is chosen
    shape: ModelShape
    context_tokens: int
    texts: Texts

    @property
    def tokenizer(self) -> Tokenizer:
        return calibrations.load_tokenizer(self.model.folder)

    def usual_tokens(self, tokens: int) -> int:
        """Give ``tokens`` of text, or those of the usual number of images or sounds."""
        image, sound = self.model.image, self.model.sound
        if sound is not None:
            return SOUNDS * sound.tokens
        return tokens if image is None else IMAGES * image.tokens

    @property
    def planned_groups(self) -> list[SiteGroup]:
        """Everything that a plan decides about."""
        if self.table is None:
            return self.groups
        kind: GroupKind = "tied_table" if has_tied_head(self.model) else "table"
        return [*self.groups, SiteGroup(self.table.name, (self.table,), kind)]

    @property
    def max_drop(self) -> float:
        asked = self.settings.max_drop
        return profile_drop(self.device, self.model.task) if asked is None else asked


@dataclass(frozen=True)
class DenseExport:
    """The original model as ONNX. ``traced`` has unpacked linears; ``bundle`` is fused float32."""

    folder: Path
    traced: Path
    bundle: ExportBundle


@dataclass(frozen=True)
class Planned:
    """A plan, and everything that it came from."""

    subject: Subject
    dense: DenseExport
    calibration: list[Calibration]
    statistics: statistic.StatisticsStore
    spectra: SpectrumTable
    search: Search
    budget: Budget
    plan: Plan
    loss_factor: float | None = None


def examine(model: LoadedModel, settings: Settings, device: DeviceProfile) -> Subject:
    """Resolve the settings for one model and device.

    Raises:
        InputError: a setting does not fit the model.
    """
    shape, longest = shape_of(model)
    refusals.require_lengths(model, settings, longest)
    if model.image is not None:
        device = device.reading(longest)
    context = settings.context_tokens or min(device.context_tokens, longest)
    if model.sound is not None:
        device = device.reading(model.sound.tokens, context)
    else:
        shape = replace(shape, source_tokens=min(shape.source_tokens, context))
    sites = find_sites(model)
    values, weights = _precisions(settings.precision, device)
    refusals.require_floats(sites, weights)
    recipe = changed_recipe(RECIPES.get(settings.recipe), settings)
    refusals.require_for_task(model, settings, recipe)
    if len(weights) > 1 and recipe.allocator in ONE_KNOB:
        raise InputError(
            f"--precision auto chooses a precision for every linear, and the allocator "
            f"{recipe.allocator!r} has one knob for all. Expected --allocator lagrangian, or one "
            f"precision."
        )
    texts = choose(model, settings)
    return Subject(
        model=_with_prompts(model, settings, texts),
        settings=settings,
        device=device,
        recipe=recipe,
        precision=values,
        weights=weights,
        sites=sites,
        groups=find_groups(sites, recipe.grouping, model.exporter.tied_pairs),
        table=find_table(model) if set(weights) & set(WEIGHT_BITS) else None,
        shape=shape,
        context_tokens=context,
        texts=texts,
    )


def _with_prompts(model: LoadedModel, settings: Settings, texts: Texts) -> LoadedModel:
    """Give the prompts of a run to a model that compares images with them."""
    if model.matching is None:
        refusals.require_no_labels(model, settings)
        return model
    matching = replace(model.matching, prompts=choose_prompts(settings, texts))
    tokenizer = calibrations.load_tokenizer(model.folder)
    prompts = tokenized(matching.prompts, tokenizer, matching)
    return replace(model, matching=matching, prompts=prompts)


def _precisions(
    asked: AskedPrecision | None, device: DeviceProfile
) -> tuple[Precision, tuple[WeightPrecision, ...]]:
    """Precision of the values, and those of the weights. Whole numbers are for weights alone."""
    if asked == "float32" or asked == "float16":
        return asked, (asked,)
    if asked == "int8" or asked == "int4":
        return device.precision, (asked,)
    if asked == "auto":
        return device.precision, (device.precision, "int8", "int4")
    return device.precision, (device.precision,)


def make_search(
    subject: Subject, spectra: SpectrumTable, weights: tuple[WeightPrecision, ...] = ()
) -> Search:
    """List what every linear may become; in all precisions of the subject, or in ``weights``."""
    return prepare(
        subject.planned_groups,
        spectra,
        subject.recipe,
        subject.precision,
        subject.device.rank_multiple,
        weights or subject.weights,
        subject.device.provider == "cpu",
    )


def load_model(settings: Settings, cache: Cache) -> LoadedModel:
    """Load the model that the settings name."""
    return load(settings.model, cache, settings.revision, settings.trust_remote_code, settings.task)


def dense_export(model: LoadedModel, cache: Cache, listener: Listener) -> DenseExport:
    """Export the original model, once per model and version of the exporters."""
    versions = [version(name) for name in ("onnxruntime-genai", "transformers", "onnx-ir")]
    name = graph_file(model.task, "float32")

    def write(folder: Path) -> None:
        listener.progress("dense export", 0, 1)
        trace(model, folder)
        bundle = folder / "float32"
        (bundle / "onnx").mkdir(parents=True)
        path = bundle / "onnx" / name
        opset, ir_version = build(model, folder / name, (), {}, path)
        if model.exporter.fuse is None:  # the two graphs are one: keep it once
            for file in folder.glob("model.onnx*"):
                file.unlink()
        copy_companions(model.folder, bundle)
        write_genai_config(folder / "traced", bundle, "onnx/model.onnx", "cpu", shape_of(model)[1])
        for file in (folder / "traced").rglob("*.onnx*"):
            file.unlink()
        manifest = dense_manifest(model, "float32", opset, ir_version, path)
        if manifest.matching is not None:  # prompts are those of a run, and others find this export
            manifest = replace(manifest, matching=replace(manifest.matching, prompts=()))
        write_manifest(bundle, manifest)
        listener.progress("dense export", 1, 1)

    folder, _ = cache.stage(
        "dense", digest(DENSE_FORMAT, model.digest, model.pooling, versions), write
    )
    bundle = read_bundle(folder / "float32")
    traced = folder / name
    return DenseExport(folder, traced if traced.exists() else bundle.model_path, bundle)


def dense_manifest(
    model: LoadedModel, precision: Precision, opset: int, ir_version: int, graph: Path
) -> Manifest:
    """Describe a dense export, whose ``graph`` file is written."""
    encoder = encoder_file(model.task, precision)
    return Manifest(
        task=model.task,
        precision=precision,
        model_file=f"onnx/{graph_file(model.task, precision)}",
        encoder_file=f"onnx/{encoder}" if encoder else None,
        source=model.source,
        revision=model.revision,
        digest=model.digest,
        opset=opset,
        ir_version=ir_version,
        context_tokens=shape_of(model)[1],
        pooling=model.pooling,
        mask_token=model.mask_token,
        cache_in_place=model.exporter.cache_in_place,
        image=model.image,
        sound=model.sound,
        shape=shape_of(model)[0],
        residency=read_residencies(graph, "cpu"),
        matching=model.matching,
    )
