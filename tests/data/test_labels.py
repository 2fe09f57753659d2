"""True labels and targets: read, resolved, and judged beside what the original says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgelr import pipeline
from edgelr.core.bundle import ExportBundle, read_bundle, read_tokenizer
from edgelr.core.errors import EnvironmentProblem, InputError
from edgelr.core.results import Metric
from edgelr.core.run import Run
from edgelr.core.vocabulary import Task
from edgelr.data import labels as truths
from edgelr.data.labels import find_label, label_ids, read_records, token_labels, truth_notes
from edgelr.data.text import read_text
from edgelr.device.profile import load_profile
from edgelr.model.loaded import LoadedModel
from edgelr.runtime.evaluators import Known
from edgelr.runtime.evaluators.labels import compare_labels
from edgelr.runtime.requests import Execution
from edgelr.runtime.runners.encoder_decoder import EncoderDecoderRunner
from edgelr.runtime.runners.image_encoder import ImageEncoderRunner
from edgelr.runtime.runners.text_encoder import TextEncoderRunner
from edgelr.runtime.validate import accuracy
from edgelr.stages.transformers.rows import rows_of
from tests.conftest import SENTENCES, make_tokenizer
from tests.helpers.run_exports import (
    IMAGE_PIVOT,
    LABELLING,
    PAIR_PIVOT,
    Recorder,
    quick_settings,
    session_cache,
)

pytestmark = pytest.mark.whole

Models = dict[str, LoadedModel]
NAMES = {"id2label": {"0": "bad", "1": "good", "2": "7"}}


def written(path: Path, records: Sequence[object]) -> Path:
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def by_name(metrics: Sequence[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


def dense(model: LoadedModel, factory: pytest.TempPathFactory) -> ExportBundle:
    settings = quick_settings(model.folder)
    return pipeline.dense_bundle(settings, Run(session_cache(factory), Recorder()))


# --- read and resolved ---------------------------------------------------------------------------


def test_labels_are_found_by_name_or_number() -> None:
    names = ["bad", "good", "1"]
    assert [find_label(label, names) for label in ("good", "1", 1, "0", 2)] == [1, 2, 1, 0, 2]
    assert [find_label(label, names) for label in ("Good", 3, "3", -1, True, None)] == [None] * 6


def test_a_label_that_the_model_lacks_is_named_with_its_line(tmp_path: Path) -> None:
    lines = [{"text": "one", "label": "good"}, {"text": "two", "label": "fine"}]
    path = written(tmp_path / "labels.jsonl", lines)
    records = read_records(path, "text-classification")
    assert records is not None
    with pytest.raises(InputError, match=r"line 2: .* no label 'fine'.*bad, good, 7"):
        label_ids(records, NAMES, str(path))
    several = NAMES | {"problem_type": "multi_label_classification"}
    with pytest.raises(InputError, match="do not exclude each other"):
        label_ids(records, several, str(path))


@pytest.mark.parametrize(
    ("task", "whole", "broken"),
    [
        ("text-classification", {"text": "one", "label": 1}, {"text": "two"}),
        ("token-classification", {"tokens": ["a"], "labels": [0]}, {"tokens": ["a"], "labels": []}),
        ("text2text-generation", {"source": "one", "target": "eins"}, {"source": "two"}),
    ],
)
def test_lines_say_what_is_true_all_or_none(
    task: Task, whole: object, broken: object, tmp_path: Path
) -> None:
    path = written(tmp_path / "data.jsonl", [whole, broken])
    with pytest.raises(InputError, match="line 2"):
        read_records(path, task)
    assert len(read_records(written(path, [whole] * 3), task) or ()) == 3
    assert read_records(written(path, [{"text": "without"}]), task) is None
    assert read_records(path.with_suffix(".txt"), task) is None
    with pytest.raises(InputError, match="Cannot read"):
        read_records(tmp_path / "none.jsonl", task)
    assert read_records(written(path, [whole]), "text-generation") is None


def test_a_file_of_records_is_a_text_as_well(tmp_path: Path) -> None:
    lines = [{"tokens": ["a", "b"], "labels": [0, 1]}, {"source": "c", "target": "d"}]
    assert read_text(written(tmp_path / "data.jsonl", lines)) == "a b\nc"


def test_scores_need_their_package_before_any_work(
    tiny_models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "pairs.jsonl", [{"source": "one", "target": "eins"}] * 4)
    model = tiny_models[PAIR_PIVOT]
    monkeypatch.setattr(truths, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'edgelr\[metrics\]'"):
        rows_of(model).choose(model, quick_settings(model.folder, evaluation=str(path)))


# --- judged --------------------------------------------------------------------------------------


class Fixed:
    """Answers the same logits whatever it is given."""

    def __init__(self, labels: Sequence[int]) -> None:
        self.logits = 5.0 * np.eye(3)[list(labels)]

    def decide(self, samples: object) -> np.ndarray:
        return self.logits


def test_the_first_token_of_a_word_has_its_label() -> None:
    tokenizer = make_tokenizer(160, ends=True)
    words = ["The", "xylophone", "river"]
    encoding = tokenizer.encode(" ".join(words))
    found = token_labels(encoding, words, [7, 8, 9])
    assert [label for label in found if label >= 0] == [7, 8, 9]
    assert [found[encoding.word_ids.index(place)] for place in range(3)] == [7, 8, 9]
    assert (found[0], found[-1]) == (-1, -1)  # marks of beginning and end


def test_accuracy_counts_what_is_known() -> None:
    samples = Known(list("abcde"), np.array([0, 1, 2, -1, 0]))
    found = by_name(compare_labels(Fixed([0, 1, 0, 0, 0]), Fixed([0, 2, 2, 1, 1]), samples))
    assert found["top1_agreement"].value == pytest.approx(1 / 5)
    right = found["top1_accuracy"]
    assert (right.baseline, right.value, right.samples) == (0.75, 0.5, 4)
    change = found["top1_accuracy_change"]
    assert change.value == -0.25
    assert change.interval is not None
    assert right.interval is not None
    assert change.interval.low < -0.25 < 0 < change.interval.high
    assert right.interval.high == pytest.approx(min(1.0, 0.75 + change.interval.high))


@pytest.mark.parametrize("name", LABELLING)
def test_the_original_is_right_where_its_own_labels_are_true(
    name: str, tiny_models: Models, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Labels of words are those of their first tokens; and the first text is labelled wrongly."""
    bundle = dense(tiny_models[name], tmp_path_factory)
    encoder = TextEncoderRunner.open(bundle, Execution(threads=1))
    lines: list[dict[str, object]] = []
    for text in SENTENCES:
        if name == LABELLING[0]:
            lines.append({"text": text, "label": int(encoder.decide([text])[0].argmax())})
            continue
        words = text.split()
        best, places = encoder.decide([text]).argmax(-1), encoder.encode([text])[0].word_ids
        labels = [f"LABEL_{best[places.index(place)]}" for place in range(len(words))]
        lines.append({"tokens": words, "labels": labels})
    path = tmp_path / "data.jsonl"
    right = by_name(accuracy(bundle, bundle, written(path, lines)))["top1_accuracy"]
    assert (right.value, right.baseline) == (1, 1)
    decisions = len(SENTENCES) if name == LABELLING[0] else sum(len(t.split()) for t in SENTENCES)
    assert right.samples == decisions
    first = lines[0]
    if "label" in first:
        first["label"] = (int(str(first["label"])) + 1) % 5
    else:
        first["labels"] = [f"LABEL_{(int(str(label)[-1]) + 1) % 5}" for label in first["labels"]]  # type: ignore[attr-defined]
    wrong = 1 if "label" in first else len(SENTENCES[0].split())
    found = by_name(accuracy(bundle, bundle, written(path, lines)))["top1_accuracy"]
    assert found.value == pytest.approx(1 - wrong / decisions)


def test_folders_of_images_are_labels_where_all_are_named_so(
    tiny_models: Models, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bundle = dense(tiny_models[IMAGE_PIVOT], tmp_path_factory)
    runner = ImageEncoderRunner.open(bundle, Execution(threads=1))
    pixels = np.random.default_rng(0).integers(256, size=(4, 30, 30, 3)).astype(np.uint8)
    for index, each in enumerate(pixels):
        Image.fromarray(each).save(tmp_path / "one.png")
        label = int(runner.decide([tmp_path / "one.png"])[0].argmax())
        folder = tmp_path / "photos" / (f"LABEL_{label}" if index % 2 else str(label))
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / "one.png").rename(folder / f"{index}.png")
    found = accuracy(bundle, bundle, tmp_path / "photos")
    assert by_name(found)["top1_accuracy"].value == 1
    assert truth_notes("image-classification", found) == ()
    (tmp_path / "photos" / "other").mkdir()
    Image.fromarray(pixels[0]).save(tmp_path / "photos" / "other" / "4.png")
    without = accuracy(bundle, bundle, tmp_path / "photos")
    assert "top1_accuracy" not in by_name(without)
    assert "folders" in truth_notes("image-classification", without)[0]
    assert truth_notes("text-classification", without) == ()


def test_answers_of_the_original_as_targets_score_all(
    tiny_models: Models, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Only tokens that begin a word may be written: a score counts words, at least four of them."""
    original = dense(tiny_models[PAIR_PIVOT], tmp_path_factory)
    shutil.copytree(original.folder, tmp_path / "dense")
    bundle = read_bundle(tmp_path / "dense")
    names = read_tokenizer(bundle).get_vocab()
    never = [token for name, token in names.items() if not (name[0] == "▁" and len(name) > 1)]
    path = tmp_path / "dense" / "generation_config.json"
    path.write_text(json.dumps({"suppress_tokens": never}))
    runner = EncoderDecoderRunner.open(bundle, Execution(threads=1))
    assert runner.tokenizer is not None
    sources = [np.array(runner.tokenizer.encode(text).ids) for text in SENTENCES]
    answers = runner.answers(sources)
    assert all(answers)
    lines = [{"source": text, "target": answer} for text, answer in
             zip(SENTENCES, answers, strict=True)]  # fmt: skip
    found = by_name(accuracy(bundle, bundle, written(tmp_path / "data.jsonl", lines)))
    for name in ("bleu", "chrf"):
        assert found[name].value == found[name].baseline == pytest.approx(100)
        assert found[f"{name}_change"].value == 0
    assert found["same_texts"].value == 1
    lines[0]["target"] = "nothing of the kind"
    other = by_name(accuracy(bundle, bundle, written(tmp_path / "data.jsonl", lines)))
    assert other["chrf"].value < 100
    assert "bleu" not in by_name(accuracy(bundle, bundle, None))


def test_an_export_is_judged_by_every_second_line(
    tiny_models: Models, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model, cache = tiny_models[LABELLING[0]], session_cache(tmp_path_factory)
    lines = [{"text": f"{text} {index}", "label": index % 5} for index in range(8)
             for text in SENTENCES]  # fmt: skip
    path = written(tmp_path / "data.jsonl", lines)
    settings = quick_settings(model.folder, keep=0.8, evaluation=str(path))
    report = pipeline.export(
        settings, load_profile("generic-cpu"), tmp_path / "out", Run(cache, Recorder())
    )
    assert report.validation is not None
    assert report.validation.text == f"{path}, every second line"
    right = by_name(report.validation.metrics)["top1_accuracy"]
    assert right.samples == len(lines) // 2
    again = by_name(accuracy(dense(model, tmp_path_factory), dense(model, tmp_path_factory),
                             written(tmp_path / "half.jsonl", lines[::2])))  # fmt: skip
    assert again["top1_accuracy"].baseline == right.baseline
    assert "top1_accuracy_change" in (tmp_path / "out/reports/generic-cpu.md").read_text()
