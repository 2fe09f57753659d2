"""Shared by the tests that export: one cache per session, and a graph's outputs as arrays."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch

from edgelr.core.cache import Cache
from edgelr.core.graph_files import encoder_beside
from edgelr.core.inputs import SourceAndTarget
from edgelr.core.plan import Budget, Plan
from edgelr.core.settings import Settings, make_settings
from edgelr.device.profile import load_profile
from edgelr.model.exporter import EXPORTERS
from edgelr.model.generate import start_of
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import as_tensors, named_inputs
from edgelr.model.losses.dual_encoder import embedding
from edgelr.model.losses.text_pair import reads_types
from edgelr.runtime.requests import Execution
from edgelr.runtime.runners import RUNNERS
from edgelr.runtime.runners.decoder import DecoderRunner
from edgelr.runtime.runners.dual_encoder import DualEncoderRunner
from edgelr.runtime.runners.image_encoder import ImageEncoderRunner
from edgelr.runtime.runners.text_encoder import TextEncoderRunner
from edgelr.runtime.session import open_session
from edgelr.stages.staging import Staging
from tests.conftest import ENCODER, TEXTS, beside, random_sounds

PIVOTS = ("bert", "llama")  # an encoder and a decoder: what the quick suite knows of families
FILLING = "bert:fill-mask"
RANKING = "bert:text-ranking"
SLOW = (
    "mt5",
    "opt",
    "phi",
    "phi3",
    "olmo2",
    "starcoder2",
    "stablelm",
)  # traced like the others, of which CI runs some
READING = ("qwen3:feature-extraction", "qwen2:text-classification")
LABELLING = ("bert:text-classification", "bert:token-classification")
TASK_PIVOTS = (*PIVOTS, *LABELLING)
IMAGE_PIVOT = "vit:image-classification"
PAIR_PIVOT = "t5"
MATCH_PIVOT = "clip"


def _marked(name: str) -> Any:
    if name in (*PIVOTS, IMAGE_PIVOT):
        return name
    # heads behind the same bodies, and decoders that read, differ by names alone: one is enough
    heads = (":fill-mask", ":token-classification", ":text-ranking")
    alike = name.endswith(heads) or name in READERS
    slow = name in SLOW or (alike and name not in (FILLING, RANKING, *LABELLING, *READING))
    return pytest.param(name, marks=pytest.mark.slow if slow else pytest.mark.breadth)


READERS = [
    f"{name}:{task}"
    for name, each in EXPORTERS.items()
    if each.reading is not None
    for task in each.tasks[1:]
]


PAIRS = [name for name, each in EXPORTERS.items() if beside(each.tasks[0]) == ENCODER]
MATCHERS = [name for name, each in EXPORTERS.items() if beside(each.tasks[0]) == TEXTS]
ONE_GRAPH = [name for name in EXPORTERS.names() if name not in (*PAIRS, *MATCHERS)]
# every family at every task that it is made for
CASES = [
    _marked(name)
    for family, exporter in EXPORTERS.items()
    for name in (family, *(f"{family}:{task}" for task in exporter.tasks[1:]))
]
every_decoder = pytest.mark.parametrize(
    "model",
    [_marked(name) for name, each in EXPORTERS.items() if each.tasks[0] == "text-generation"],
    indirect=True,
)
every_exporter = pytest.mark.parametrize(
    "exporter", [*map(_marked, ONE_GRAPH), *LABELLING, IMAGE_PIVOT]
)
every_pair = pytest.mark.parametrize(
    "exporter", [PAIR_PIVOT, *(_marked(name) for name in PAIRS if name != PAIR_PIVOT)]
)
every_matcher = pytest.mark.parametrize("exporter", [*map(_marked, MATCHERS)])
every_task = pytest.mark.parametrize("exporter", TASK_PIVOTS)
QUICK = {
    "calibration_tokens": 512,
    "calibration_length": 32,
    "profile": "generic-cpu",
    "rivals": False,
}


Batch: TypeAlias = tuple[Any, np.ndarray]


@dataclass
class Recorder:
    """A listener that remembers."""

    stages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def progress(self, what: str, done: int, total: int) -> None:
        if what not in self.stages:
            self.stages.append(what)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def planned(self, plan: Plan, budget: Budget) -> None:
        self.stages.append("planned")


class SharedCache(Cache):
    """A cache for several processes: one of them builds a stage, and the others wait for it."""

    def stage(self, name: str, key: str, build: Callable[[Path], None]) -> tuple[Path, bool]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f".{name}-{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return super().stage(name, key, build)


def session_cache(factory: pytest.TempPathFactory) -> Cache:
    """One cache for every file and every worker: a tiny model is exported once per session."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return SharedCache(folder / "edgelr-cache")


def quick_settings(model: Path | str, **changes: Any) -> Settings:
    """Settings of a short run; every weight has the precision of the profile, unless asked."""
    asked = {"model": str(model), **QUICK, **changes}
    if Path(str(model)).suffix != ".onnx":
        asked = {"precision": load_profile(asked["profile"]).precision, **asked}
    return make_settings(**asked)


def make_place(folder: Path) -> Staging:
    shutil.rmtree(folder, ignore_errors=True)
    place = Staging(folder / "bundle", folder / "scratch")
    place.bundle.mkdir(parents=True)
    place.scratch.mkdir()
    return place


def batch(model: LoadedModel, rows: int, tokens: int, padded: int = 0) -> Batch:
    """Random ids and their mask, the first row with padding; or pixels or sounds, without.

    Of a reranker, the second half of each row is the second text.

    Of a model that compares images with texts, both: pixels of as many images as texts.
    """
    rng = np.random.default_rng(rows)
    pixels = None
    if model.image is not None:
        shape = (rows, 3, model.image.side, model.image.side)
        pixels = rng.standard_normal(shape, np.float32)
        if model.matching is None:
            return pixels, np.ones((rows, model.image.tokens), int)
        longest = model.matching.tokens
        tokens = longest if model.matching.padded else min(tokens, longest)
    mask = np.ones((rows, tokens), np.int64)
    mask[0, tokens - padded :] = 0
    ids = rng.integers(4, 150, (rows, tokens))
    if pixels is not None:
        ids[mask == 0] = 0
        return (ids, pixels), mask
    if beside(model.task) == ENCODER:
        length = tokens // 2 + 1
        target = rng.integers(4, 150, (rows, length + 1))
        if model.sound is not None:
            ids = random_sounds(model.sound, rows)
            mask = np.ones((rows, model.sound.tokens), np.int64)
        return SourceAndTarget(ids, mask, target), np.ones((rows, length), np.int64)
    if model.modality == "text_pair" and reads_types(model.module.config):
        types = np.broadcast_to(np.arange(tokens) >= tokens // 2, ids.shape)
        return np.stack([ids, types], axis=1), mask
    return ids, mask


def run_graph(model: LoadedModel, path: Path, inputs: Any, mask: np.ndarray) -> np.ndarray:
    """What a graph file answers, where the mask is 1."""
    session = open_session(path, Execution(threads=1))
    encoder = encoder_beside(path)
    if model.matching is not None:
        assert encoder is not None
        assert model.image is not None
        pair = (open_session(encoder, Execution(threads=1)), session)
        matcher, (ids, pixels) = DualEncoderRunner(*pair, model.image, model.matching), inputs
        return np.concatenate((matcher.run(ids, mask), matcher.run(pixels)))
    if encoder is not None:
        kind: Any = RUNNERS.get(model.modality)
        runner = kind(open_session(encoder, Execution(threads=1)), session, start_of(model))
        return runner.forced(inputs.source, inputs.target, inputs.source_mask)
    if model.image is not None:
        return ImageEncoderRunner(session, model.image).run(inputs)
    if model.task == "text-generation":
        config = json.loads((model.folder / "config.json").read_text())
        return DecoderRunner(session, config).logits(inputs, mask)[0][mask == 1]
    return _counted(TextEncoderRunner(session).run(inputs, mask), mask)


def run_torch(model: LoadedModel, inputs: Any, mask: np.ndarray) -> np.ndarray:
    """The same of the model in torch."""
    if model.matching is not None:
        ids, pixels = map(torch.tensor, inputs)
        read = None if model.matching.padded else torch.tensor(mask)
        with torch.no_grad():
            return torch.cat((embedding(model, ids, read), embedding(model, pixels))).numpy()
    given = named_inputs(model, *as_tensors(inputs, mask))
    with torch.no_grad():
        outputs = model.module(**given)[0].numpy()
    if isinstance(inputs, SourceAndTarget):
        return outputs
    return outputs if model.image is not None else _counted(outputs, mask)


def _counted(outputs: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Leave padding out, where there is an answer for every token."""
    return outputs[mask == 1] if outputs.ndim == 3 else outputs
