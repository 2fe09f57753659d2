"""The first half of the story: from a model and a device to a plan."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgelr import calibration as calibrations
from edgelr import statistics as statistic
from edgelr.allocate import Search, check_plan, prepare, read_plan
from edgelr.allocators import ALLOCATORS
from edgelr.budget import require_feasible, weight_budget
from edgelr.cache import Cache, digest
from edgelr.calibration import Calibration
from edgelr.candidates import index_bytes, parameters
from edgelr.compressed import embeddings, mean_loss, planned
from edgelr.decompose import SpectrumTable, decompose, read_spectra
from edgelr.device import DeviceProfile
from edgelr.errors import BudgetError, InputError
from edgelr.gate import loss_limit, profile_drop
from edgelr.graph.build import build, trace
from edgelr.graph.companions import copy_companions, write_genai_config
from edgelr.graph.save import padding_bytes
from edgelr.load import load, shape_of
from edgelr.methods import METHODS
from edgelr.recipes import RECIPES, Recipe
from edgelr.runtime import jobs
from edgelr.runtime.bundle import read_bundle, write_manifest
from edgelr.search import smallest_plan
from edgelr.settings import Settings
from edgelr.sites import find_groups, find_sites
from edgelr.text import split_sentences
from edgelr.texts import SELF, Texts, choose_texts
from edgelr.types import (
    PRECISION_BYTES,
    Budget,
    Candidate,
    ExportBundle,
    LinearSite,
    LoadedModel,
    Manifest,
    ModelShape,
    Plan,
    Precision,
    SiteGroup,
    SitePlan,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DECODER_LENGTH = 1024  # tokens of a calibration chunk
SAMPLE_LENGTH = 512  # tokens of a sampled row: wide and short reads the weights less often
SAMPLE_BATCH = 64
SELECTION_TOKENS = 8192
SELECTION_LENGTH = 512
ENCODER_LENGTH = 256
NODE_BYTES = 4096  # names, shapes and nodes of a factorized linear
FORMAT = 1  # of the cached stages; raise it when what they hold changes its meaning


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
    precision: Precision
    sites: tuple[LinearSite, ...]
    groups: list[SiteGroup]
    shape: ModelShape
    context_tokens: int
    texts: Texts

    @property
    def tokenizer(self) -> Tokenizer:
        return calibrations.load_tokenizer(self.model.folder)

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
    if settings.task is not None and settings.task != model.task:
        raise InputError(
            f"--task is {settings.task}, but {model.source} is for {model.task}. Leave --task away."
        )
    shape, longest = shape_of(model)
    context = settings.context_tokens or min(device.context_tokens, longest)
    for name, tokens in (("context", context), ("calibration-length", settings.calibration_length)):
        if tokens is not None and tokens > longest:
            raise InputError(
                f"--{name} asks for {tokens:,} tokens; {model.source} takes {longest:,} at most "
                f"(max_position_embeddings). Give a smaller number."
            )
    sites = find_sites(model)
    recipe = _recipe(settings)
    can_generate = model.task == "text-generation"
    if SELF in settings.calibration and not can_generate:
        raise InputError(
            f"--calibration self needs a model that generates text; {model.source} is for "
            f"{model.task}. Give a text file."
        )
    return Subject(
        model=model,
        settings=settings,
        device=device,
        recipe=recipe,
        precision=settings.precision or device.precision,
        sites=sites,
        groups=find_groups(sites, recipe.grouping),
        shape=shape,
        context_tokens=context,
        texts=choose_texts(settings.calibration, settings.evaluation, can_generate),
    )


def load_model(settings: Settings, cache: Cache) -> LoadedModel:
    """Load the model that the settings name."""
    return load(settings.model, cache, settings.revision, settings.trust_remote_code)


def dense_export(model: LoadedModel, cache: Cache, listener: Listener) -> DenseExport:
    """Export the original model, once per model and version of the exporters."""
    versions = [version(name) for name in ("onnxruntime-genai", "transformers", "onnx-ir")]

    def write(folder: Path) -> None:
        listener.progress("dense export", 0, 1)
        trace(model, folder)
        bundle = folder / "float32"
        (bundle / "onnx").mkdir(parents=True)
        path = bundle / "onnx" / "model.onnx"
        opset, ir_version = build(model, folder / "model.onnx", (), {}, path, "float32")
        if model.exporter.fuse is None:  # the two graphs are one: keep it once
            for file in folder.glob("model.onnx*"):
                file.unlink()
        copy_companions(model.folder, bundle)
        write_genai_config(folder / "traced", bundle, "onnx/model.onnx", "cpu", shape_of(model)[1])
        for file in (folder / "traced").glob("*.onnx*"):
            file.unlink()
        write_manifest(bundle, dense_manifest(model, "float32", opset, ir_version))
        listener.progress("dense export", 1, 1)

    folder, _ = cache.stage("dense", digest(FORMAT, model.digest, model.pooling, versions), write)
    bundle = read_bundle(folder / "float32")
    traced = folder / "model.onnx"
    return DenseExport(folder, traced if traced.exists() else bundle.model_path, bundle)


def dense_manifest(
    model: LoadedModel, precision: Precision, opset: int, ir_version: int
) -> Manifest:
    """Describe a dense export."""
    return Manifest(
        task=model.task,
        precision=precision,
        model_file="onnx/model.onnx",
        source=model.source,
        revision=model.revision,
        digest=model.digest,
        opset=opset,
        ir_version=ir_version,
        context_tokens=shape_of(model)[1],
        pooling=model.pooling,
    )


def calibrate(
    subject: Subject, dense: DenseExport, cache: Cache, listener: Listener
) -> list[Calibration]:
    """Tokenize the calibration texts; sample the one that the model writes itself."""
    settings = subject.settings
    share = math.ceil(settings.calibration_tokens / len(subject.texts.calibration))
    parts = []
    for name, text in subject.texts.calibration:
        if text is None:
            parts.append(_sampled(subject, dense, share, cache, listener))
        else:
            parts.append(tokenize(subject, text, share, settings.calibration_length, name))
    return calibrations.mixed(parts)


def tokenize(
    subject: Subject, text: str, tokens: int, length: int | None, name: str
) -> Calibration:
    """Cut a text into rows as the model reads them: chunks for decoders, sentences for encoders."""
    longest = shape_of(subject.model)[1]
    if subject.model.task == "text-generation":
        row = length or min(DECODER_LENGTH, longest)
        return calibrations.from_chunks(text, subject.tokenizer, tokens, row, name)
    sentences = split_sentences(text, tokens)  # a sentence has more than one token
    row = length or min(ENCODER_LENGTH, longest)
    return calibrations.from_texts(sentences, subject.tokenizer, tokens, row, name)


def statistics(
    subject: Subject, calibration: list[Calibration], cache: Cache, listener: Listener
) -> tuple[statistic.StatisticsStore, str]:
    """Collect what the method needs, or find it; return it with its key."""
    needs = METHODS.get(subject.recipe.method).needs
    parts = [part.key for part in calibration]
    key = digest(FORMAT, subject.model.digest, parts, sorted(needs), subject.settings.seed)

    def write(folder: Path) -> None:
        statistic.collect(
            subject.model,
            subject.sites,
            calibration,
            needs,
            folder,
            subject.settings.seed,
            listener.progress,
        )

    folder, _ = cache.stage("statistics", key, write)
    units = statistic.units_per_token(subject.model, calibration)
    return statistic.StatisticsStore(folder, needs, units), key


def spectra(
    subject: Subject,
    statistics: tuple[statistic.StatisticsStore, str],
    cache: Cache,
    listener: Listener,
) -> SpectrumTable:
    """Decompose every group, or find the decomposition."""
    store, key = statistics
    method = METHODS.get(subject.recipe.method)

    def write(folder: Path) -> None:
        decompose(subject.model, subject.groups, store, method, folder, listener.progress)

    folder, _ = cache.stage("spectra", digest(FORMAT, key, subject.recipe.method), write)
    return read_spectra(folder)


def allocate(
    subject: Subject,
    dense: DenseExport,
    calibration: list[Calibration],
    table: SpectrumTable,
    listener: Listener,
) -> Planned:
    """Compute the device's budget and spend it.

    Raises:
        BudgetError: the device, or what was asked for, leaves too little for any plan.
    """
    settings, device = subject.settings, subject.device
    search = prepare(subject.groups, table, subject.recipe, subject.precision, device.rank_multiple)
    budget = weight_budget(
        device, subject.shape, fixed_bytes(subject, dense), subject.context_tokens,
        subject.precision,
    )  # fmt: skip
    require_feasible(budget, search.smallest_bytes, device)
    base = Planned(
        subject, dense, calibration, table, search, budget, search.plan(search.dense_bytes)
    )
    if settings.keep is not None:
        asked = int(settings.keep * search.dense_bytes)
    elif settings.max_size_bytes is not None:
        asked = _bytes_inside_file(base, settings.max_size_bytes)
    else:
        return _inside_the_gate(base, listener)
    if asked > budget.weight_bytes:
        listener.note(
            f"The device leaves {budget.weight_bytes / 2**20:,.1f} MiB for the weights, less than "
            f"was asked for: the plan is made for the device."
        )
    return replace(base, plan=search.plan(min(asked, budget.weight_bytes)))


def follow(made: Planned, path: Path) -> Planned:
    """Take a plan from a file, possibly edited, in the place of the one that was made.

    Raises:
        InputError: it is not a plan of this model.
    """
    given = read_plan(path)
    check_plan(given, made.search)
    sites = tuple(_priced(site, made) for site in given.sites)
    plan = replace(
        given,
        sites=sites,
        planned_bytes=sum(site.candidate.bytes for site in sites),
        predicted_loss=sum(site.candidate.predicted_loss for site in sites),
    )
    return replace(made, plan=plan)


def _priced(site: SitePlan, made: Planned) -> SitePlan:
    """Count again what an edited site costs: people change forms and ranks, not bytes."""
    form, rank, shape = (
        site.candidate.form,
        site.candidate.rank,
        (site.in_features, site.out_features),
    )
    precision = made.subject.precision
    width, count = PRECISION_BYTES[precision], parameters(form, *shape, rank)
    loss = 0.0 if form == "dense" else float(made.spectra.loss[site.name][rank])
    size = count * width + index_bytes(form, *shape)
    return replace(
        site,
        candidate=Candidate(form, rank, precision, size, 2 * count, loss),
        dense_bytes=site.in_features * site.out_features * width,
    )


def fixed_bytes(subject: Subject, dense: DenseExport) -> int:
    """Bytes of the weights that are never factorized, in the precision of the bundle."""
    factorizable = sum(site.parameters for site in subject.sites)
    width = PRECISION_BYTES[subject.precision]
    rest = dense.bundle.weight_bytes - PRECISION_BYTES["float32"] * factorizable
    return rest * width // PRECISION_BYTES["float32"]


def _bytes_inside_file(base: Planned, largest_bytes: int) -> int:
    """Bytes for the factorizable weights, so that graph and sidecar stay within a size.

    Raises:
        BudgetError: the smallest plan makes a larger file.
    """
    subject, search = base.subject, base.search
    overhead_bytes = fixed_bytes(subject, base.dense) + NODE_BYTES * len(subject.sites)
    if subject.precision == "float16":  # which does not halve the nodes
        overhead_bytes += base.dense.bundle.model_path.stat().st_size // 2
    asked = min(largest_bytes - overhead_bytes, search.dense_bytes)
    while asked >= search.smallest_bytes:
        plan = search.plan(asked)
        padding = padding_bytes(size for site in plan.sites for size in _tensor_bytes(site))
        excess = overhead_bytes + plan.planned_bytes + padding - largest_bytes
        if excess <= 0:
            return asked
        asked = min(asked, plan.planned_bytes) - excess
    smallest_bytes = overhead_bytes + search.smallest_bytes
    raise BudgetError(
        f"The smallest plan makes a file of about {smallest_bytes:,} bytes, and --max-size is "
        f"{largest_bytes:,}. The nearest feasible point is about --max-size "
        f"{-(-smallest_bytes // 1000) + 1}KB."
    )


def _tensor_bytes(site: SitePlan) -> tuple[int, ...]:
    """Sizes of the stored weights of a site."""
    candidate = site.candidate
    if candidate.form == "dense":
        return (candidate.bytes,)
    small, large = sorted((site.in_features, site.out_features))
    rest = small - candidate.rank if candidate.form == "pivoted" else small
    width = PRECISION_BYTES[candidate.precision]
    return (candidate.rank * large * width, candidate.rank * rest * width)


def _recipe(settings: Settings) -> Recipe:
    """Take the recipe that the settings name, with the axes that they change."""
    recipe = RECIPES.get(settings.recipe)
    changes = {
        axis: value
        for axis in ("method", "allocator", "forms")
        if (value := getattr(settings, axis)) is not None
    }
    if not changes:
        return recipe
    METHODS.get(changes.get("method", recipe.method))
    ALLOCATORS.get(changes.get("allocator", recipe.allocator))  # unknown names end before any work
    return replace(recipe, name=f"{recipe.name} (changed: {', '.join(changes)})", **changes)


def _sampled(
    subject: Subject, dense: DenseExport, tokens: int, cache: Cache, listener: Listener
) -> Calibration:
    """Sample text from the model, or find what it wrote before."""
    config: Any = subject.model.module.config
    seed = subject.settings.seed
    length = min(subject.settings.calibration_length or SAMPLE_LENGTH, shape_of(subject.model)[1])

    def write(folder: Path) -> None:
        rows = jobs.sample_tokens(
            dense.bundle,
            tokens,
            length,
            SAMPLE_BATCH,
            seed,
            config.bos_token_id,
            progress=lambda _, done, total: listener.progress("sampling text", done, total),
        )
        np.save(folder / "tokens.npy", rows)

    key = digest(FORMAT, subject.model.digest, tokens, length, seed)
    folder, _ = cache.stage("sample", key, write)
    return calibrations.from_samples(np.load(folder / "tokens.npy"), "sampled from the model")


def _inside_the_gate(base: Planned, listener: Listener) -> Planned:
    """Find the smallest plan inside the accuracy limit, measured on the selection text."""
    subject, search, budget = base.subject, base.search, base.budget
    model, texts = subject.model, subject.texts
    length = min(SELECTION_LENGTH, shape_of(model)[1]) if model.task == "text-generation" else None
    held_out = tokenize(
        subject, texts.selection, SELECTION_TOKENS, length, f"{texts.evaluation_name}, second half"
    )
    limit = loss_limit(subject.max_drop, model.task)
    if model.exporter.loss == "next_token":
        dense_loss = mean_loss(model, held_out)

        def measure_loss() -> float:
            return mean_loss(model, held_out) - dense_loss
    else:
        original = embeddings(model, held_out)

        def measure_loss() -> float:
            return float(1 - (embeddings(model, held_out) * original).sum(-1).mean())

    rounds = 0

    def measure(plan: Plan) -> float:
        nonlocal rounds
        rounds += 1
        with planned(model.module, base.spectra, plan):
            loss = measure_loss()
        listener.note(
            f"search, round {rounds}: {plan.kept:.1%} kept, measured loss {loss:.4f} "
            f"(predicted {plan.predicted_loss:.4f}, limit {limit:.4f})"
        )
        return loss

    found = smallest_plan(search, limit, measure, budget.weight_bytes)
    if found is not None:
        return replace(base, plan=found.plan, loss_factor=found.factor)
    listener.note("No smaller plan stays inside the accuracy gate: the largest that fits is taken.")
    return replace(base, plan=search.plan(min(search.dense_bytes, budget.weight_bytes)))
