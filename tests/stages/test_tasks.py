"""Models that label: how the task is found, what the losses are, and what users call."""

from __future__ import annotations

import json
import math
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgelr import pipeline
from edgelr.compress.compressed_model import all_answers, gate_increase, loss_increase
from edgelr.compress.heal.distillation import distillation_loss
from edgelr.compress.statistics import units_per_token
from edgelr.core.bundle import read_bundle
from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.intervals import wilson
from edgelr.core.run import Run
from edgelr.core.tasks import decides_each_label
from edgelr.device.gate import JUDGED, loss_limit, make_gate
from edgelr.device.profile import load_profile
from edgelr.model.load import load
from edgelr.model.loaded import LoadedModel
from edgelr.model.losses import backward, decisions_per_row, divergence
from edgelr.runtime.evaluators.labels import compare_labels
from edgelr.runtime.requests import Execution
from edgelr.runtime.runners.text_encoder import TextEncoderRunner
from tests.conftest import SENTENCES, MakeModel, tiny_texts, write_tiny
from tests.helpers.bundles import run_bundle_tests
from tests.helpers.fault_injection import wrong_position_ids
from tests.helpers.paths import SNIPPETS
from tests.helpers.run_exports import FILLING, LABELLING, Recorder, quick_settings, session_cache

pytestmark = pytest.mark.whole

Models = dict[str, LoadedModel]
every_labelling = pytest.mark.parametrize("name", [*LABELLING, FILLING])


# --- which task ----------------------------------------------------------------------------------


@every_labelling
def test_the_architecture_tells_the_task(tiny_models: Models, name: str) -> None:
    assert tiny_models[name].task == name.partition(":")[2]


def test_a_task_that_is_asked_for_drops_the_head(tmp_path: Path) -> None:
    folder = str(write_tiny(tmp_path / "model", "bert", "text-classification"))
    cache = Cache(tmp_path / "cache")
    labels = load(folder, cache)
    embeds = load(folder, cache, task="feature-extraction")
    assert (labels.task, labels.pooling) == ("text-classification", None)
    assert (embeds.task, embeds.pooling) == ("feature-extraction", "mean")
    assert labels.digest != embeds.digest


def test_a_head_that_is_not_there_is_not_made_up(tmp_path: Path) -> None:
    folder = str(write_tiny(tmp_path / "model", "bert"))
    with pytest.raises(InputError, match=r"lacks .*classifier.*--task feature-extraction"):
        load(folder, Cache(tmp_path / "cache"), task="token-classification")


def test_a_sentence_encoder_is_not_what_it_began_as(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model", "bert", "fill-mask")
    cache = Cache(tmp_path / "cache")
    assert load(str(folder), cache).task == "fill-mask"
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    assert load(str(folder), cache).task == "feature-extraction"
    assert load(str(folder), cache, task="fill-mask").task == "fill-mask"


def test_a_tokenizer_without_a_mask_fills_none(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model", "bert", "fill-mask")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    assert config.pop("mask_token") == "<unk>"
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"no tokenizer that names its mask token"):
        load(str(folder), Cache(tmp_path / "cache"))


def test_a_task_of_another_family_is_refused(tiny_decoder_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"llama are for text-generation, feature-ext"):
        load(str(tiny_decoder_folder), Cache(tmp_path), task="token-classification")


def test_a_head_that_predicts_several_numbers_is_refused(tmp_path: Path) -> None:
    folder = write_tiny(
        tmp_path / "model", "bert", "text-classification", num_labels=3, problem_type="regression"
    )
    with pytest.raises(InputError, match=r"predicts numbers.*--task feature-extraction"):
        load(str(folder), Cache(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("problem", "labels", "each"),
    [
        (None, 5, False),
        (None, 1, True),
        ("single_label_classification", 5, False),
        ("multi_label_classification", 5, True),
    ],
)
def test_labels_exclude_each_other_unless_told(
    problem: str | None, labels: int, each: bool
) -> None:
    assert decides_each_label(problem, labels) == each


# --- losses --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several(make_model: MakeModel) -> LoadedModel:
    return make_model("bert", "text-classification", problem_type="multi_label_classification")


def test_each_of_several_labels_is_a_decision(several: LoadedModel) -> None:
    texts = tiny_texts(several)
    assert decisions_per_row(several) == 5
    assert units_per_token(several, [texts]) == pytest.approx(5 * 3 / texts.tokens)
    found = all_answers(several, texts)
    assert found.shape == (3 * 5, 2)
    ids, mask = torch.tensor(texts.inputs), torch.tensor(texts.mask)
    logits = several.module(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(found.softmax(-1)[:, 0], logits.sigmoid().flatten())


def test_gradients_of_several_labels_are_those_of_their_cross_entropies(
    several: LoadedModel,
) -> None:
    """Drawn labels make a mean of nothing, and a second moment of ``p (1 - p)`` for each."""
    texts = tiny_texts(several)
    ids, mask = torch.tensor(texts.inputs), torch.tensor(texts.mask)
    seen: list[torch.Tensor] = []

    def watch(module: object, inputs: object, output: torch.Tensor) -> None:
        output.register_hook(seen.append)

    handle = several.module.get_submodule("classifier").register_forward_hook(watch)
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(400):
            backward(several, ids, mask, generator)
    handle.remove()
    p = several.module(input_ids=ids, attention_mask=mask).logits.sigmoid()
    drawn = torch.stack(seen)
    torch.testing.assert_close(drawn.mean(0), torch.zeros_like(p), atol=0.12, rtol=0)
    torch.testing.assert_close(drawn.square().mean(0), p * (1 - p), atol=0.04, rtol=0)


def test_only_what_is_masked_has_a_loss(tiny_models: Models) -> None:
    """Drawn tokens make a mean of nothing, and a second moment of ``p (1 - p)`` at every mask."""
    model = tiny_models[FILLING]
    texts = tiny_texts(model)
    ids, mask = torch.tensor(texts.inputs), torch.tensor(texts.mask)
    masked = (ids == model.mask_token) & mask.bool()
    assert units_per_token(model, [texts]) == pytest.approx(int(masked.sum()) / texts.tokens)
    logits = model.module(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(all_answers(model, texts), logits[masked])
    seen: list[torch.Tensor] = []

    def watch(module: object, inputs: object, output: torch.Tensor) -> None:
        output.register_hook(seen.append)

    handle = model.module.get_submodule("cls.predictions.decoder").register_forward_hook(watch)
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(400):
            backward(model, ids, mask, generator)
    handle.remove()
    drawn, p = torch.stack(seen), logits[masked].softmax(-1)
    assert not drawn[:, ~masked].any()
    at_masks = drawn[:, masked]
    torch.testing.assert_close(at_masks.mean(0), torch.zeros_like(p), atol=0.12, rtol=0)
    torch.testing.assert_close(at_masks.square().mean(0), p * (1 - p), atol=0.06, rtol=0)


def halve(model: LoadedModel) -> Callable[[], None]:
    """Change a weight a little; the answer puts it back."""
    weight = model.module.get_submodule("bert.encoder.layer.0.output.dense").weight
    before = weight.detach().clone()
    weight.data.mul_(0.5)

    def undo() -> None:
        weight.data.copy_(before)

    return undo


@every_labelling
def test_the_loss_is_the_divergence_from_the_labels_of_before(
    tiny_models: Models, name: str
) -> None:
    model = tiny_models[name]
    texts = tiny_texts(model)
    before = all_answers(model, texts)
    increase, gated = loss_increase(model, texts), gate_increase(model, texts)
    assert increase() == 0
    assert gated() == 0
    undo = halve(model)
    try:
        after = all_answers(model, texts)
        found, limited = increase(), gated()
    finally:
        undo()
    p, q = before.double().softmax(-1), after.double().softmax(-1)
    assert found == pytest.approx(float((p * (p / q).log()).sum(-1).mean()))
    moved = float((p - q).abs().sum(-1).mean() / 2)
    assert 2 * moved**2 < found  # Pinsker's inequality
    changed = float((p.argmax(-1) != q.argmax(-1)).double().mean())
    assert 2 * max(moved, changed) ** 2 <= limited


@every_labelling
def test_healing_sees_the_same_loss(tiny_models: Models, name: str) -> None:
    model = tiny_models[name]
    texts = tiny_texts(model)
    ids, mask = torch.tensor(texts.inputs), torch.tensor(texts.mask)
    before = all_answers(model, texts)
    undo = halve(model)
    try:
        after = all_answers(model, texts)
        # The teacher is the changed model as well, so that the loss of healing is zero.
        assert float(distillation_loss(model, {}, (ids, mask))) == 0
    finally:
        undo()
    assert float(divergence(after, before).mean()) > 0


def test_a_gate_of_labels_counts_those_that_change() -> None:
    p, q = np.array([[0.6, 0.4], [0.9, 0.1]]), np.array([[0.4, 0.6], [0.8, 0.2]])
    found = compare_labels(Fixed(np.log(p)), Fixed(np.log(q)), ["one", "two"])
    values = {metric.name: (metric.value, metric.samples) for metric in found}
    assert values["top1_agreement"] == (0.5, 2)
    assert values["kl_divergence"] == (pytest.approx((p * np.log(p / q)).sum(-1).mean()), 2)
    assert values["total_variation"] == (pytest.approx(0.15), 2)
    gate = make_gate("text-classification", found, 0.02)
    assert (gate.metric, gate.limit, gate.passed) == ("top1_agreement", 0.98, False)
    assert not make_gate("text-classification", found, 0.5).passed  # two texts tell nothing
    assert make_gate("text-classification", found, 0.5).undecided
    allowed = math.sqrt(loss_limit(0.1, "text-classification") / 2)
    assert wilson(allowed, JUDGED)[1] == pytest.approx(0.1)


class Fixed:
    """Answers the same logits whatever it is given."""

    def __init__(self, logits: np.ndarray) -> None:
        self.logits = logits

    def decide(self, texts: object) -> np.ndarray:
        return self.logits


# --- the bundle ----------------------------------------------------------------------------------


def export(
    model: LoadedModel, tmp_path_factory: pytest.TempPathFactory, with_tests: bool = False
) -> Path:
    folder = tmp_path_factory.mktemp("labels") / "bundle"
    settings = quick_settings(model.folder, keep=0.8, with_tests=with_tests)
    cache = session_cache(tmp_path_factory)
    profile = load_profile("generic-cpu")
    report = pipeline.export(settings, profile, folder, Run(cache, Recorder()))
    assert report.validation is not None
    assert report.validation.parity is not None
    assert report.validation.parity.passed
    return folder


@pytest.fixture(scope="module", params=[*LABELLING, "several"])
def exported(
    request: pytest.FixtureRequest,
    tiny_models: Models,
    several: LoadedModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[LoadedModel, Path]:
    model = several if request.param == "several" else tiny_models[request.param]
    return model, export(model, tmp_path_factory)


def test_the_example_of_the_card_gives_the_labels_of_the_bundle(
    exported: tuple[LoadedModel, Path],
) -> None:
    model, folder = exported
    assert "classify.py" in (folder / "README.md").read_text()
    snippets = SNIPPETS
    found = runpy.run_path(str(snippets / "classify.py"))["classify"](folder, [SENTENCES[0]])[0]
    logits = TextEncoderRunner.open(read_bundle(folder), Execution(threads=1)).decide(
        [SENTENCES[0]]
    )
    names = json.loads((folder / "config.json").read_text())["id2label"]
    if model.task == "token-classification":
        rows = logits[1:-1]  # marks of beginning and end are no part of the text
        assert all(part in SENTENCES[0] for part, *_ in found)
        assert [label for _, label, _ in found] == [names[str(best)] for best in rows.argmax(-1)]
        return
    ((part, label, probability),) = found
    assert part == SENTENCES[0]
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    expected = p[:, 0] if decisions_per_row(model) > 1 else p[0]
    assert label == names[str(expected.argmax())]
    assert probability == pytest.approx(expected.max(), abs=1e-5)


@pytest.fixture(scope="module")
def filled(
    tiny_models: Models, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LoadedModel, Path]:
    return tiny_models[FILLING], export(tiny_models[FILLING], tmp_path_factory, with_tests=True)


def test_the_tests_of_a_bundle_that_fills_masks_see_another_answer(
    filled: tuple[LoadedModel, Path], tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(filled[1], changed)
    wrong_position_ids(changed)
    whole, faulty = run_bundle_tests([filled[1], changed]).values()
    gate = "test_the_bundle_passed_its_accuracy_gate"  # a tiny model's may fail
    assert len(whole) == 7
    assert all(passed for name, passed in whole.items() if name != gate)
    wrong = {name for name, passed in faulty.items() if not passed} - {gate}
    assert {"test_outputs_are_those_of_the_export", "test_answers_are_those_of_the_export"} <= wrong
    with np.load(filled[1] / "tests" / "references.npz") as stored:
        assert stored["masked"].any(-1).all()
        assert len(stored["original_best"]) == stored["masked"].sum()


def test_the_example_of_the_card_fills_the_masks_of_a_text(
    filled: tuple[LoadedModel, Path],
) -> None:
    model, folder = filled
    assert "fill_mask.py" in (folder / "README.md").read_text()
    snippets = SNIPPETS
    text = SENTENCES[0].replace("hills", "<unk>").replace("sea,", "<unk>,")
    ((first, second),) = runpy.run_path(str(snippets / "fill_mask.py"))["fill"](folder, [text], 2)
    encoder = TextEncoderRunner.open(read_bundle(folder), Execution(threads=1))
    assert encoder.tokenizer is not None
    ids = np.array(encoder.tokenizer.encode(text).ids)
    logits = encoder.run(ids[None])[0][ids == model.mask_token]
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    for found, row in zip((first, second), p, strict=True):
        best = row.argsort()[::-1][:2]
        assert [token for token, _ in found] == [encoder.tokenizer.decode([each]) for each in best]
        assert [chance for _, chance in found] == pytest.approx(row[best], abs=1e-5)
