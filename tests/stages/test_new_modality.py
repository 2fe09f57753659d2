"""A modality of another package, from torch to its bundle: one file for each registry, no edit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.audio import write_sounds
from tests.helpers.paths import ROOT

MODALITY = """
from edgelr.core.modality import Modality
from edgelr.core.tasks import TaskTraits

AUDIO = Modality("audio_encoder", ("audio-classification",), "sound", "input_values")
CLASSIFY = TaskTraits(
    "AutoModelForAudioClassification", "ForAudioClassification", "logits", "label", "top1_agreement"
)
"""
EXPORTER = """
import torch
from edgelr.core.quiet import quiet
from edgelr.exporters.tracing.routes import fuse_with_transformers, traced_by_transformers
from edgelr.model.exporter import Exporter
from torch.export import Dim


def trace(module, folder, out, example):
    shapes = {"input_values": {0: Dim.DYNAMIC}}
    with quiet():
        traced_by_transformers(module, example, dynamic_shapes=shapes).save_pretrained(out)


def sounds(config, batch, tokens):
    return {"input_values": torch.randn(batch, config.max_length, config.num_mel_bins)}


def tiny():
    from transformers import ASTConfig

    return ASTConfig(
        hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=6,
        patch_size=4, frequency_stride=4, time_stride=4, num_mel_bins=20, max_length=36,
        num_labels=5, initializer_range=0.1, architectures=["ASTForAudioClassification"],
    )


AST = Exporter(
    model_types=("audio-spectrogram-transformer",),
    tasks=("audio-classification",),
    trace=trace,
    fuse=fuse_with_transformers,
    example_inputs=sounds,
    tiny_config=tiny,
)
"""
LOSS = """
from contextlib import nullcontext
from edgelr.core.inputs import SoundInput
from edgelr.model.dimensions import read_shape, usual_sizes
from edgelr.model.losses import ModalityLoss, SitePositions


class AudioLoss(ModalityLoss):
    def fields(self, module, folder, exporter, task):
        config = module.config
        tokens = module.base_model.embeddings.position_embeddings.shape[1]
        hop, rate, bins = 160, 16000, config.num_mel_bins
        sound = SoundInput(rate, hop * config.max_length, 400, hop, bins, 8000.0, tokens)
        return {"sound": sound}

    def dimensions(self, config, exporter, task, read):
        return read_shape(config, exporter, task, usual_sizes(config)), read.tokens

    def positions(self, model, given, shape):
        of_tokens = tuple(shape) == (len(given["input_values"]), model.sound.tokens)
        return SitePositions() if of_tokens else None

    def named_inputs(self, model, inputs, mask):
        return {"input_values": inputs}

    def differentiable(self, model, inputs, mask):
        return nullcontext({"input_values": inputs.detach().requires_grad_()})


LOSS = AudioLoss()
"""
ROWS = """
import math
from edgelr.data.audio import list_sounds, read_sounds
from edgelr.data.calibration import from_sounds
from edgelr.data.file_lists import SOUNDS, spread_evenly
from edgelr.stages.transformers.rows import ModalityRows
from edgelr.stages.transformers.text_selection import choose_files


class AudioRows(ModalityRows):
    def workload(self, model, settings, device):
        return device.reading(model.longest_text), model.dimensions, model.longest_text

    def read(self, source):
        return list_sounds(source)

    def choose(self, model, settings):
        return choose_files(SOUNDS, self.read, settings.calibration, settings.evaluation)

    def judging(self, subject, excerpt):
        sound = subject.model.sound
        paths = spread_evenly(excerpt.text, math.ceil(excerpt.tokens / sound.tokens))
        features = read_sounds(paths, sound).transpose(0, 2, 1).copy()
        return from_sounds(features, sound.tokens, excerpt.name)

    def parity_inputs(self, subject, calibration):
        return list(calibration[0].inputs[:3])


ROWS = AudioRows()
"""
RUNNER = """
import numpy as np
from edgelr.data.audio import list_sounds, read_sounds
from edgelr.data.file_lists import SOUNDS, spread_evenly
from edgelr.report.usage import Usage
from edgelr.runtime.evaluators import Evaluator
from edgelr.runtime.evaluators.labels import compare_labels
from edgelr.runtime.graphs import open_graph, random_values
from edgelr.runtime.requests import ON_CPU, CappedRuns, TimedPhase
from edgelr.runtime.runners import Runner
from edgelr.runtime.runners.files import named_source
from edgelr.runtime.runners.forward import forward_phases


class AudioRunner(Runner):
    answer_names = ("input_values_0", "output_0")

    def __init__(self, session, sound):
        self.session, self.sound = session, sound

    @classmethod
    def open(cls, bundle, execution=ON_CPU, tokenizer=True):
        return cls(open_graph(bundle, execution), bundle.manifest.sound)

    @classmethod
    def phases(cls, bundle, sizes):
        return forward_phases(bundle.manifest.context_tokens)

    @classmethod
    def capped_runs(cls, bundle, sizes):
        tokens = bundle.manifest.context_tokens
        return CappedRuns((TimedPhase("forward", sizes.batch, tokens),), tokens, tokens)

    def samples(self, evaluation):
        sounds = list_sounds(named_source(evaluation, SOUNDS))
        return spread_evenly(sounds, evaluation.size.images)

    def prepare(self, phase, inputs):
        values = random_values(phase.batch, self.sound.frames, self.sound.mel_bins)
        return lambda: self.run(values)

    def run(self, values):
        (logits,), _ = self.session.run({"input_values": values}, ["logits"])
        return logits

    def run_together(self, rows):
        return list(self.run(np.stack(rows)))

    def decide(self, paths):
        return self.run(read_sounds(paths, self.sound).transpose(0, 2, 1).copy())


LABELS = Evaluator(("audio-classification",), compare_labels)
USAGES = {"audio-classification": Usage("Save this as `hear.py`.", "print(1)", None)}
"""
ENTRY_POINTS = """
[edgelr.modalities]
audio_encoder = audio_modality:AUDIO
[edgelr.tasks]
audio-classification = audio_modality:CLASSIFY
[edgelr.exporters]
ast = audio_exporter:AST
[edgelr.losses]
audio_encoder = audio_loss:LOSS
[edgelr.rows]
audio_encoder = audio_rows:ROWS
[edgelr.runners]
audio_encoder = audio_runner:AudioRunner
[edgelr.evaluators]
audio_encoder = audio_runner:LABELS
[edgelr.usages]
audio_encoder = audio_runner:USAGES
"""
USE = """
import json, sys
from pathlib import Path
import numpy as np
import torch
import transformers
from audio_exporter import tiny
from edgelr import pipeline
from edgelr.compress.compressed_model import likeness, all_answers, multiplied
from edgelr.compress.reference_outputs import write_answers
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.device.profile import load_profile
from edgelr.stages.transformers.calibration_data import selection
from edgelr.stages.transformers.factorize import make_factors
from edgelr.stages.transformers.rows import rows_of

root = Path(sys.argv[1])
torch.manual_seed(0)
transformers.ASTForAudioClassification(tiny()).save_pretrained(root / "model")
settings = make_settings(
    model=str(root / "model"), profile="generic-cpu", keep=0.8,
    calibration=(str(root / "sounds"),), calibration_tokens=400,
)
run = Run(Cache(root / "cache"))
made = pipeline.plan(settings, load_profile("generic-cpu"), run)
subject, costs = made.subject, made.costs
model, first = subject.model, subject.sites[0]
(rows,) = costs.calibration
given = torch.tensor(rows.inputs)
with torch.no_grad():
    embedded = model.module.base_model.embeddings(given)
    x = model.module.base_model.layers[0].layernorm_before(embedded).flatten(0, 1)
    wanted = x.T @ x / len(x)
    alone = model.module(input_values=given[:1]).logits[0].numpy()
gram = costs.statistics.of(first).input_gram
factors = make_factors(made, run).factors
held_out = selection(subject)
original = all_answers(model, held_out)
with multiplied(model.module, factors):
    alike = likeness(model, held_out, original)
prompts = rows_of(model).parity_inputs(subject, costs.calibration)
write_answers(model, {}, prompts, 1, root / "answers.npz")
answers = np.load(root / "answers.npz")
report = pipeline.export(settings, load_profile("generic-cpu"), root / "bundle", run)
print(json.dumps({
    "known": [model.modality, model.task, model.longest_text, subject.context_tokens],
    "sites": [site.role for site in subject.sites],
    "gram": float((gram - wanted).norm() / wanted.norm()),
    "losses": costs.statistics.units_per_token * rows.tokens,
    "rows": len(rows.mask),
    "kept": made.plan.kept,
    "predicted": made.plan.predicted_loss,
    "factors": len(factors),
    "alike": alike,
    "names": sorted(answers.files),
    "answer": float(np.abs(answers["output_0"] - alone).max()),
    "parity": report.validation.parity.passed,
    "metrics": [metric.name for metric in report.validation.metrics],
    "ratios": list(report.comparison.ratios),
    "bundle": sorted(path.name for path in (root / "bundle").iterdir()),
}))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Install a package that edgelr has never heard of."""
    root = tmp_path / "package"
    info = root / "audio-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (info / "METADATA").write_text("Name: audio\nVersion: 1.0\n")
    files = {"modality": MODALITY, "exporter": EXPORTER, "loss": LOSS, "rows": ROWS}
    files["runner"] = RUNNER
    for name, text in files.items():
        (root / f"audio_{name}.py").write_text(text)
    return root


@pytest.mark.whole
def test_a_modality_of_another_package_is_loaded_planned_and_exported(
    package: Path, tmp_path: Path
) -> None:
    """Labels of sounds by an audio spectrogram transformer (arXiv:2104.01778), a tiny one."""
    write_sounds(tmp_path / "sounds", 24)
    path = os.pathsep.join((str(package), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    tokens = 5 * 9 + 2  # patches, and two tokens that stand for the whole
    assert found["known"] == ["audio_encoder", "audio-classification", tokens, tokens]
    block = [f"attention.{name}_proj" for name in "qkvo"] + ["mlp.fc1", "mlp.fc2"]
    assert found["sites"] == 2 * block
    assert found["gram"] < 1e-5
    assert found["losses"] == pytest.approx(found["rows"])
    assert found["kept"] <= 0.8
    assert found["predicted"] > 0
    assert 0 < found["factors"] <= 12
    assert found["alike"] > 0.5
    names = [f"{kind}_{index}" for kind in ("input_values", "output") for index in range(3)]
    assert found["names"] == [*names, "rounding"]
    assert found["answer"] < 1e-5
    assert found["parity"]
    assert found["metrics"] == ["top1_agreement", "kl_divergence", "total_variation"]
    assert found["ratios"] == [f"forward {tokens}", f"forward 8x{tokens}"]
    assert {"edgelr", "onnx", "README.md"} <= set(found["bundle"])
