"""The beginning of the story: what is compressed, for what and how; the dense export, the texts."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgelr import calibration as calibrations
from edgelr import statistics as statistic
from edgelr import targets
from edgelr.allocate import Search, prepare
from edgelr.allocators import ONE_KNOB
from edgelr.cache import Cache, digest
from edgelr.calibration import Calibration
from edgelr.device import DeviceProfile
from edgelr.errors import InputError
from edgelr.files import encoder_file, graph_file
from edgelr.gate import profile_drop
from edgelr.graph.build import build, trace
from edgelr.graph.companions import copy_companions, write_genai_config
from edgelr.graph.residency import read_residencies
from edgelr.images import read_pixels, spread_evenly
from edgelr.load import load
from edgelr.recipes import RECIPES, Recipe, changed_recipe
from edgelr.runtime import jobs
from edgelr.runtime.bundle import read_bundle, write_manifest
from edgelr.settings import Settings
from edgelr.shapes import shape_of
from edgelr.sites import find_groups, find_sites
from edgelr.spectra import SpectrumTable
from edgelr.table import find_table, has_tied_head
from edgelr.tasks import TASKS
from edgelr.text import split_sentences
from edgelr.texts import Texts, choose
from edgelr.types import (
    WEIGHT_BITS,
    AskedPrecision,
    Budget,
    ExportBundle,
    GroupKind,
    LinearSite,
    LoadedModel,
    Manifest,
    ModelShape,
    Plan,
    Precision,
    SiteGroup,
    WeightPrecision,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DECODER_LENGTH = 1024  # tokens of a calibration chunk
SAMPLE_LENGTH = 128  # tokens of a sampled row: many beginnings, and little cache to read
SAMPLE_TOKENS = 32768  # beside a text: sampling costs more than reading, and brings less
SAMPLE_BATCH = 32  # more are no faster, and their logits fill the memory
ENCODER_LENGTH = 256
TARGET_TOKENS = 64  # of an answer, at most
SELECTION_TOKENS = 8192
SELECTION_LENGTH = 512
CALIBRATION_TOKENS = 16384
IMAGES = 256  # to calibrate on, and to plan on: every one has one loss, however many tokens
FORMAT = 1  # of the cached stages; raise it when what they hold changes its meaning
DENSE_FORMAT = 6  # of the dense export


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
        """Give ``tokens`` of text, or those of the usual number of images."""
        image = self.model.image
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
    _require_lengths(model, settings, longest)
    if model.image is not None:
        device = device.reading(longest)
    context = settings.context_tokens or min(device.context_tokens, longest)
    shape = replace(shape, source_tokens=min(shape.source_tokens, context))
    sites = find_sites(model)
    values, weights = _precisions(settings.precision, device)
    _require_floats(sites, weights)
    recipe = changed_recipe(RECIPES.get(settings.recipe), settings)
    if TASKS[model.task].has_pairs:
        _require_for_pairs(model, settings, recipe)
    if settings.with_tests and model.mask_token is not None:
        raise InputError(
            "--with-tests writes no tests of what masks are filled with; expected a model that "
            "generates, embeds or labels. Leave it away: 'edgelr validate' judges such a bundle."
        )
    if len(weights) > 1 and recipe.allocator in ONE_KNOB:
        raise InputError(
            f"--precision auto chooses a precision for every linear, and the allocator "
            f"{recipe.allocator!r} has one knob for all. Expected --allocator lagrangian, or one "
            f"precision."
        )
    return Subject(
        model=model,
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
        texts=choose(model, settings),
    )


def _require_lengths(model: LoadedModel, settings: Settings, longest: int) -> None:
    """Refuse rows that the model cannot read; an image has one length, which is not asked for."""
    asked = {"context": settings.context_tokens, "calibration-length": settings.calibration_length}
    for name, tokens in asked.items():
        if tokens is not None and (tokens > longest or model.image is not None):
            known = "for every image" if model.image else "at most (max_position_embeddings)"
            raise InputError(
                f"--{name} asks for {tokens:,} tokens; {model.source} takes {longest:,} {known}. "
                f"{'Leave the option away' if model.image else 'Give a smaller number'}."
            )


def _require_floats(sites: tuple[LinearSite, ...], weights: tuple[WeightPrecision, ...]) -> None:
    """Refuse whole numbers for convolutions: MatMulNBits multiplies matrices."""
    convolutions = [site.name for site in sites if site.kernel]
    if convolutions and set(weights) & set(WEIGHT_BITS):
        raise InputError(
            f"--precision int8, int4 and auto store matrices, and {len(convolutions)} linears of "
            f"this model are convolutions ({convolutions[0]}). Expected fp32 or fp16."
        )


def _require_for_pairs(model: LoadedModel, settings: Settings, recipe: Recipe) -> None:
    """Refuse what is not made for models with an encoder and a decoder, before any work."""
    asked = {
        "healing": settings.heal_steps is not None or settings.heal_minutes is not None,
        "--max-latency": settings.max_latency is not None,
        "--with-tests": settings.with_tests,
        f"the recipe {recipe.name}": "refit" in recipe.refine or recipe.importance == "soco",
    }
    for what, wanted in asked.items():
        if wanted:
            refuse_pairs(model, what)


def refuse_pairs(model: LoadedModel, what: str) -> None:
    """Refuse a model with an encoder and a decoder.

    Raises:
        InputError: it is one.
    """
    if TASKS[model.task].has_pairs:
        raise InputError(
            f"{model.source} has an encoder and a decoder (task {model.task}), and {what} takes "
            f"models of one graph only. Use 'edgelr export' with --keep, --max-size or --max-drop, "
            f"and a recipe without refit: docs/models.md says what else works."
        )


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
        opset, ir_version = build(model, folder / name, (), {}, path, "float32")
        if model.exporter.fuse is None:  # the two graphs are one: keep it once
            for file in folder.glob("model.onnx*"):
                file.unlink()
        copy_companions(model.folder, bundle)
        write_genai_config(folder / "traced", bundle, "onnx/model.onnx", "cpu", shape_of(model)[1])
        for file in (folder / "traced").rglob("*.onnx*"):
            file.unlink()
        write_manifest(bundle, dense_manifest(model, "float32", opset, ir_version, path))
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
        shape=shape_of(model)[0],
        residency=read_residencies(graph, "cpu"),
    )


def calibrate(
    subject: Subject, dense: DenseExport, cache: Cache, listener: Listener
) -> list[Calibration]:
    """Tokenize the calibration texts; sample the one that the model writes itself."""
    settings, texts = subject.settings, subject.texts.calibration
    tokens = settings.calibration_tokens or subject.usual_tokens(CALIBRATION_TOKENS)
    share = math.ceil(tokens / len(texts))
    sampled = min(share, SAMPLE_TOKENS) if len(texts) > 1 else share
    files = sum(text is not None for _, text in texts)
    if files < len(texts):  # files take what sampling leaves
        share = math.ceil((tokens - sampled) / max(1, files))
    parts = []
    for name, text in texts:
        if text is None:
            parts.append(_sampled(subject, dense, sampled, cache, listener))
        elif TASKS[subject.model.task].has_pairs:
            sources = sources_of(subject, text, share, settings.calibration_length, name)
            parts.append(_with_drawn_targets(subject, sources, cache, listener))
        else:
            parts.append(tokenize(subject, text, share, settings.calibration_length, name))
    return parts


def _with_drawn_targets(
    subject: Subject, sources: Calibration, cache: Cache, listener: Listener
) -> Calibration:
    """Join texts with answers of the model, or find what it answered before."""
    seed = subject.settings.seed

    def write(folder: Path) -> None:
        def told(done: int, total: int) -> None:
            listener.progress("drawing targets", done, total)

        found = targets.draw(subject.model, sources, _target_tokens(subject), seed, told)
        (folder / "targets.json").write_text(json.dumps(found))

    key = digest(FORMAT, subject.model.digest, sources.key, _target_tokens(subject), seed)
    folder, _ = cache.stage("targets", key, write)
    drawn = json.loads((folder / "targets.json").read_text())
    described = replace(sources, description=f"{sources.description}, answered by the model")
    return calibrations.from_pairs(described, drawn)


def _target_tokens(subject: Subject) -> int:
    return min(TARGET_TOKENS, shape_of(subject.model)[1] - 1)


def tokenize(
    subject: Subject, text: str, tokens: int, length: int | None, name: str
) -> Calibration:
    """Cut a text into rows as the model reads them: chunks for decoders, sentences for encoders.

    Of a list of images, so many are read that they have these tokens, spread over the list. A
    model with an encoder and a decoder also draws its answers to the sentences.
    """
    if TASKS[subject.model.task].has_pairs:
        sources = sources_of(subject, text, tokens, length, name)
        seed = subject.settings.seed + 1  # not the answers that were calibrated on
        drawn = targets.draw(subject.model, sources, _target_tokens(subject), seed)
        return calibrations.from_pairs(sources, drawn)
    image, longest = subject.model.image, shape_of(subject.model)[1]
    if image is not None:
        paths = spread_evenly(text, math.ceil(tokens / image.tokens))
        return calibrations.from_images(read_pixels(paths, image), image.tokens, name)
    if subject.model.task == "text-generation":
        row = length or min(DECODER_LENGTH, longest)
        return calibrations.from_chunks(text, subject.tokenizer, tokens, row, name)
    return sources_of(subject, text, tokens, length, name)


def sources_of(
    subject: Subject, text: str, tokens: int, length: int | None, name: str
) -> Calibration:
    """Cut a text into sentences, as an encoder reads them."""
    sentences = split_sentences(text, tokens)  # a sentence has more than one token
    row = length or min(ENCODER_LENGTH, shape_of(subject.model)[1])
    mask_token = subject.model.mask_token
    return calibrations.from_texts(sentences, subject.tokenizer, tokens, row, name, mask_token)


def selection(subject: Subject) -> Calibration:
    """Tokenize the held-out text on which plans and factors are judged while they are made."""
    decodes = subject.model.task == "text-generation"
    length = min(SELECTION_LENGTH, shape_of(subject.model)[1]) if decodes else None
    name = f"{subject.texts.evaluation_name}, second half"
    tokens = subject.usual_tokens(SELECTION_TOKENS)
    return tokenize(subject, subject.texts.selection, tokens, length, name)


def _sampled(
    subject: Subject, dense: DenseExport, tokens: int, cache: Cache, listener: Listener
) -> Calibration:
    """Sample text from the model, or find what it wrote before."""
    seed, prefix = subject.settings.seed, subject.tokenizer.encode("").ids
    length = min(subject.settings.calibration_length or SAMPLE_LENGTH, shape_of(subject.model)[1])

    def write(folder: Path) -> None:
        rows = jobs.sample_tokens(
            dense.bundle,
            tokens,
            length,
            SAMPLE_BATCH,
            seed,
            prefix,
            progress=lambda _, done, total: listener.progress("sampling text", done, total),
        )
        np.save(folder / "tokens.npy", rows)

    key = digest(FORMAT, subject.model.digest, tokens, length, SAMPLE_BATCH, seed, prefix)
    folder, _ = cache.stage("sample", key, write)
    return calibrations.from_samples(np.load(folder / "tokens.npy"), "sampled from the model")
