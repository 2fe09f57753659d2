"""Tiny models for every test: real folders, seeded weights, a real tokenizer, no downloads."""

from __future__ import annotations

import json
import os
import string
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from edgelr.exporters.tracing import routes
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from edgelr.compress.methods import Need
from edgelr.compress.statistics import StatisticsStore, collect, units_per_token
from edgelr.core.cache import Cache
from edgelr.core.inputs import SoundInput
from edgelr.core.modality import MODALITIES
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import Task
from edgelr.data.calibration import (
    Calibration,
    from_images,
    from_samples,
    from_sounds,
    load_tokenizer,
    with_targets,
)
from edgelr.data.prompts import tokenized
from edgelr.model.exporter import EXPORTERS
from edgelr.model.load import load
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import as_tensors, named_inputs
from edgelr.model.sites import find_sites
from tests.helpers.builder_server import BuilderServer

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")  # ids 0 to 3, as the tiny configurations say
SENTENCES = (
    "The river runs from the hills to the sea, and the sea takes what it brings.",
    "A board with little memory wants a small model that answers like the large one.",
    "Nobody who reads the tables asks how many of their numbers were measured twice.",
    "When the rain stops, the children carry the boats back to the water.",
    "Every factor of a matrix has a cost, and every cost has a place in the budget.",
    "She wrote the letter in the morning and sent it only after the lamps were lit.",
)

TINY_IMAGES = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 24, "width": 28},
    "do_center_crop": True,
    "crop_size": {"height": 20, "width": 20},
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.3, 0.1],
}

TINY_SOUNDS = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 20,
    "chunk_length": 1,  # second
}

TINY_PROMPT = {  # the language is heard
    "lang_to_id": {"<|en|>": 20, "<|de|>": 21},
    "task_to_id": {"transcribe": 30, "translate": 31},
    "forced_decoder_ids": [[1, None], [2, 30]],
    "no_timestamps_token_id": 40,
}
TOWERS = ("text", "vision")
ENCODER, TEXTS = "encoder_model", "text_model"  # graphs beside the one that answers
PROMPTS = tuple(f"{label} in the morning" for label in ("cat", "dog", "lamp", "grey boat", "sea"))

LONGEST = (  # files of tests, by the time that all of their tests take, or the quick ones
    "real/recipes",
    "real/decoder",
    "real/onnx",
    "exporters/exporters",
    "stages/encoder_decoder_pipeline",
    "stages/transformers_dense",
    "stages/embedders",
    "commands/sweep",
    "stages/pipeline",
    "stages/image_models",
    "compress/statistics",
    "stages/bundle_tests",
    "stages/robustness",
    "stages/onnx_bundle",
    "stages/tasks",
    "compress/quantization",
    "data/labels",
    "commands/bench",
    "model/encoder_decoder_models",
    "model/torch_modules",
    "compress/rescale",
    "compress/decompose",
    "planning/recipes",
    "compress/importance_soco",
    "stages/transformers_factorize",
    "cli/exports",
    "cli/comparisons",
)

MakeModel = Callable[..., LoadedModel]


def pytest_configure(config: pytest.Config) -> None:
    """Set up the workers of pytest-xdist.

    They keep the order of files (pytest-xdist would hand out the fullest first), and each has cores
    of its own, with the processes that it starts: pools of threads that share cores spend more time
    waiting for each other than computing.
    """
    config.option.loadscopereorder = False
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        if len(cores) >= workers:
            os.sched_setaffinity(0, cores[int(worker.removeprefix("gw")) :: workers])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real models first, and files that take long: the last is what a worker would wait for."""

    def order(item: pytest.Item) -> tuple[bool, int]:
        name = f"{item.path.parent.name}/{item.path.stem.removeprefix('test_')}"
        place = LONGEST.index(name) if name in LONGEST else len(LONGEST)
        return "real" not in item.keywords, place

    items.sort(key=order)


def make_tokenizer(vocabulary: int, ends: bool) -> Tokenizer:
    """Train byte pairs on the sentences; every printable character has a token of its own."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=list(string.printable.strip()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    template, pair = ("<s> $A </s>", "<s> $A </s> $B:1 </s>:1") if ends else ("<s> $A", "<s> $A $B")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, pair=pair, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


def beside(task: Task) -> str | None:
    """Name the graph beside the one that answers; models of one graph have none."""
    return next(each.beside for _, each in MODALITIES.items() if task in each.tasks)


def write_tiny(folder: Path, name: str, task: Task | None = None, **changes: Any) -> Path:
    """Write the tiny model of an exporter, with seeded weights, as a Hugging Face folder.

    Without a task it is made for the first one of its family; one that labels has five labels, and
    one that ranks gives one score.

    The weights are five times larger than usual: nearly linear models would hide mistakes.
    """
    exporter = EXPORTERS.get(name)
    config = exporter.tiny_config()
    config.update({"initializer_range": 0.1, "architectures": [], **changes})
    for tower in filter(None, (getattr(config, f"{kind}_config", None) for kind in TOWERS)):
        tower.update({"initializer_range": 0.1, "initializer_factor": 2.0})
    options = exporter.load_options
    if task not in (None, exporter.tasks[0]):
        options = ()
    if TASKS.get(task or exporter.tasks[0]).loss.endswith("label"):
        config.update({"num_labels": changes.get("num_labels", 5)})
    if TASKS.get(task or exporter.tasks[0]).loss == "score":
        config.update({"num_labels": 1})
    torch.manual_seed(0)
    auto_class = getattr(transformers, TASKS.get(task or exporter.tasks[0]).auto_class)
    model = auto_class.from_config(config, **dict(options))
    _calibrate_norms(model)
    _tell_apart(model)
    if TASKS.get(task or exporter.tasks[0]).loss == "score":
        _score_apart(model)
    model.save_pretrained(folder)
    matches = beside(task or exporter.tasks[0]) == TEXTS
    if model.main_input_name == "pixel_values" or matches:
        (folder / "preprocessor_config.json").write_text(json.dumps(TINY_IMAGES))
    if matches:
        config = config.text_config
    elif model.main_input_name == "pixel_values":
        return folder
    if model.main_input_name == "input_features":
        (folder / "preprocessor_config.json").write_text(json.dumps(TINY_SOUNDS))
        told = {"suppress_tokens": [5, 9], "begin_suppress_tokens": [7, 2], "eos_token_id": 2}
        told |= {"decoder_start_token_id": 1, **TINY_PROMPT}
        (folder / "generation_config.json").write_text(json.dumps(told))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(config.vocab_size, exporter.tasks[0] != "text-generation"),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<unk>",  # every character has a token: it stands in no text
        model_max_length=getattr(config, "max_position_embeddings", 72),
    ).save_pretrained(folder)
    return folder


def with_prompts(model: LoadedModel, prompts: tuple[str, ...] = PROMPTS) -> LoadedModel:
    """Give prompts to a model that compares images with them; others stay as they are."""
    if model.matching is None:
        return model
    matching = replace(model.matching, prompts=prompts)
    read = tokenized(prompts, load_tokenizer(model.folder), matching)
    return replace(model, matching=matching, prompts=read)


def _tell_apart(model: torch.nn.Module) -> None:
    """Let a random model prefer some prompts to others, as a trained one does."""
    for name, value in (("logit_scale", 3.0), ("logit_bias", -2.0)):
        if hasattr(model, name):
            getattr(model, name).data.fill_(value)


def _score_apart(model: torch.nn.Module) -> None:
    """Let a random reranker give pairs scores that differ, nearly all below zero."""
    for each in model.modules():
        if isinstance(each, torch.nn.Linear) and each.out_features == 1:
            each.weight.data.mul_(16)
            if each.bias is not None:
                each.bias.data.fill_(-8)


def _calibrate_norms(model: torch.nn.Module) -> None:
    """Let normalizations by fixed statistics have those of noise: others would do nothing."""
    norms = [each for each in model.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    for each in norms:
        each.train().momentum = 1.0
        torch.nn.init.ones_(each.weight)  # EfficientNet draws them around zero
    if norms:
        with torch.no_grad():
            model(torch.tensor(random_pixels(8, 20, seed=7)))


def random_ids(rows: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(len(SPECIAL), 160, (rows, length))


def random_pixels(rows: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 3, side, side), np.float32)


def random_sounds(sound: SoundInput, rows: int, seed: int = 0) -> np.ndarray:
    shape = (rows, sound.mel_bins, sound.frames)
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def random_sources(model: LoadedModel, rows: int, tokens: int, seed: int = 0) -> Calibration:
    """What the encoder of a pair reads: random ids without padding, or random sounds."""
    if model.sound is None:
        return from_samples(random_ids(rows, tokens, seed), "random")
    return from_sounds(random_sounds(model.sound, rows, seed), model.sound.tokens, "random")


def random_rows(model: LoadedModel, rows: int, tokens: int, seed: int = 0) -> Calibration:
    """Random ids without padding, or random images, which have tokens of their own number.

    Of pairs, sources of ``tokens`` and targets that are three longer.
    """
    if beside(model.task) == ENCODER:
        targets = random_ids(rows, tokens + 4, seed + 100).tolist()
        return with_targets(random_sources(model, rows, tokens, seed), targets)
    if model.image is None:
        return from_samples(random_ids(rows, tokens, seed), "random")
    pixels = random_pixels(rows, model.image.side, seed)
    return from_images(pixels, model.image.tokens, "random", model.prompts)


def tiny_inputs(model: LoadedModel, rows: int = 2, tokens: int = 9) -> dict[str, torch.Tensor]:
    """Arguments of a forward pass on ``random_rows``."""
    given = random_rows(model, rows, tokens)
    return named_inputs(model, *as_tensors(given.inputs, given.mask))


def tiny_texts(model: LoadedModel, copies: int = 1) -> Calibration:
    """One chunk for a decoder; for an encoder texts of 9, 5 and 7 tokens, with noise as padding.

    Every fourth is masked for a model that fills masks. Three images of noise for a model that
    reads images. Pairs have these texts, or three sounds of noise, as sources, and targets of 4, 6
    and 3 predicted tokens.
    """
    if model.image is not None:
        pixels = random_pixels(3, model.image.side).repeat(copies, 0)
        return from_images(pixels, model.image.tokens, "images")
    if model.task == "text-generation":
        return from_samples(random_ids(1, 6, seed=6).repeat(copies, 0), "chunk")
    mask = (np.arange(9) < np.array([[9], [5], [7]])).astype(np.int64)
    ids = random_ids(3, 9, seed=5)
    if model.mask_token is not None:
        ids[:, 2::4] = model.mask_token
    texts = Calibration(ids.repeat(copies, 0), mask.repeat(copies, 0), "texts")
    if model.sound is not None:
        sounds = random_sounds(model.sound, 3).repeat(copies, 0)
        texts = from_sounds(sounds, model.sound.tokens, "sounds")
    if beside(model.task) == ENCODER:
        targets = random_ids(3, 7, seed=7).tolist()
        cut = [row[:length] for row, length in zip(targets, (5, 7, 4), strict=True)]
        return with_targets(texts, [row for row in cut for _ in range(copies)])
    return texts


def collected(
    model: LoadedModel,
    parts: list[Calibration],
    folder: Path,
    seed: int = 0,
    needs: Collection[Need] = ("input_gram", "output_gradient_gram"),
) -> StatisticsStore:
    """Collect the statistics of every site into a new folder."""
    folder.mkdir()
    collect(model, find_sites(model), parts, frozenset(needs), folder, seed, lambda *_: None)
    return StatisticsStore(dict.fromkeys(needs, folder), units_per_token(model, parts))


class TinyModels(dict[str, LoadedModel]):
    """Made when first asked for: a file's tests rarely need every family.

    A name is that of a family, or ``family:task`` where that is not the family's first task.
    """

    def __init__(self, make: MakeModel) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> LoadedModel:
        family, _, task = name.partition(":")
        self[name] = self._make(family, task=task or None)
        return self[name]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny operators gain nothing from a second thread, and wait for it on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def warm_builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fork builders of decoders from one process: ``python -m`` imports for five seconds."""
    server = BuilderServer(tmp_path_factory.mktemp("builder") / "said.txt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "subprocess", server)
        yield
    server.close()


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Load the tiny model of an exporter and a task, with changes to its configuration."""

    def make(name: str, task: Task | None = None, **changes: Any) -> LoadedModel:
        root = tmp_path_factory.mktemp(name)
        folder = write_tiny(root / "model", name, task, **changes)
        return with_prompts(load(str(folder), Cache(root / "cache")))

    return make


@pytest.fixture(scope="session")
def tiny_models(make_model: MakeModel) -> TinyModels:
    """One tiny model per exporter, by its name. They are shared: leave them as they are."""
    return TinyModels(make_model)


@pytest.fixture(scope="session")
def tiny_decoder(tiny_models: dict[str, LoadedModel]) -> LoadedModel:
    return tiny_models["llama"]


@pytest.fixture(scope="session")
def tiny_encoder(tiny_models: dict[str, LoadedModel]) -> LoadedModel:
    return tiny_models["bert"]


@pytest.fixture(scope="session")
def tiny_decoder_folder(tiny_decoder: LoadedModel) -> Path:
    return tiny_decoder.folder


@pytest.fixture(scope="session")
def tiny_encoder_folder(tiny_encoder: LoadedModel) -> Path:
    return tiny_encoder.folder
