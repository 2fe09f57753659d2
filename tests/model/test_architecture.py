"""Heads and tensors: what edgelr has no place for is refused by name, before it is left away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from edgelr.core.cache import Cache
from edgelr.core.errors import InputError
from edgelr.core.vocabulary import Task
from edgelr.model.architecture import task_for
from edgelr.model.exporter import exporter_for
from edgelr.model.load import load
from tests.conftest import write_tiny


def folder_of(root: Path, family: str, **changes: Any) -> Path:
    """Write a tiny model whose config.json is changed."""
    folder = write_tiny(root / "model", family)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def task_in(folder: Path, asked: Task | None = None) -> Task:
    config = transformers.AutoConfig.from_pretrained(folder)
    return task_for(asked, config, exporter_for(config.model_type), folder)


@pytest.mark.parametrize(
    ("family", "architecture", "task"),
    [
        ("bert", "BertModel", "feature-extraction"),
        ("bert", "BertForMaskedLM", "fill-mask"),
        ("roberta", "RobertaForSequenceClassification", "text-classification"),
        ("distilbert", "DistilBertForTokenClassification", "token-classification"),
        ("gpt2", "GPT2LMHeadModel", "text-generation"),
        ("llama", "LlamaForCausalLM", "text-generation"),
        ("llama", "LlamaModel", "feature-extraction"),
        ("qwen2", "Qwen2ForSequenceClassification", "text-classification"),
        ("marian", "MarianMTModel", "text2text-generation"),
        ("whisper", "WhisperForConditionalGeneration", "automatic-speech-recognition"),
        ("deit", "DeiTForImageClassificationWithTeacher", "image-classification"),
    ],
)
def test_an_architecture_names_its_task(
    tmp_path: Path, family: str, architecture: str, task: Task
) -> None:
    assert task_in(folder_of(tmp_path, family, architectures=[architecture])) == task


def test_a_model_of_no_named_architecture_has_the_first_task(tmp_path: Path) -> None:
    assert task_in(folder_of(tmp_path, "bert", architectures=None)) == "feature-extraction"


@pytest.mark.parametrize(
    ("family", "architecture", "way"),
    [
        ("distilbert", "DistilBertForQuestionAnswering", "--task feature-extraction"),
        ("bert", "BertForMultipleChoice", "--task feature-extraction"),
        ("electra", "ElectraForPreTraining", "--task feature-extraction"),
        ("bart", "BartForSequenceClassification", "--task text2text-generation"),
        ("gpt2", "GPT2ForSequenceClassification", "--task text-generation"),
        ("gpt2", "GPT2Model", "--task text-generation"),
        ("qwen2", "Qwen2ForTokenClassification", "--task feature-extraction"),
        ("t5", "T5EncoderModel", "--task text2text-generation"),
        ("vit", "ViTForMaskedImageModeling", "--task feature-extraction"),
    ],
)
def test_another_head_is_refused_by_name(
    tmp_path: Path, family: str, architecture: str, way: str
) -> None:
    folder = folder_of(tmp_path, family, architectures=[architecture])
    with pytest.raises(InputError, match=f"is a {architecture}, .* Give {way} to compress"):
        task_in(folder)
    asked: Any = way.removeprefix("--task ")
    assert task_in(folder, asked) == asked


def sentence_folder(folder: Path) -> Path:
    kind = "sentence_transformers.models.Transformer"
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "path": "", "type": kind}]))
    return folder


def test_a_folder_of_sentence_transformers_embeds(tmp_path: Path) -> None:
    folder = sentence_folder(folder_of(tmp_path, "bert", architectures=["BertForMaskedLM"]))
    assert task_in(folder) == "feature-extraction"


def test_a_cross_encoder_of_sentence_transformers_scores(tmp_path: Path) -> None:
    changes = {"architectures": ["BertForSequenceClassification"], "num_labels": 1}
    folder = sentence_folder(folder_of(tmp_path, "bert", **changes))
    assert task_in(folder) == "text-ranking"


def test_a_decoder_that_embeds_does_not_become_one_that_writes(tmp_path: Path) -> None:
    folder = sentence_folder(folder_of(tmp_path, "qwen3", architectures=["Qwen3ForCausalLM"]))
    assert task_in(folder) == "feature-extraction"
    assert task_in(folder, "text-generation") == "text-generation"


def test_a_family_that_does_not_embed_is_refused_as_an_embedder(tmp_path: Path) -> None:
    folder = sentence_folder(folder_of(tmp_path, "gpt2", architectures=["GPT2LMHeadModel"]))
    with pytest.raises(InputError, match=r"which embeds texts, .* gpt2 for text-generation alone"):
        task_in(folder)


# --- tensors -------------------------------------------------------------------------------------


def with_tensors(folder: Path, *names: str) -> Path:
    path = folder / "model.safetensors"
    tensors = load_file(path) | {name: torch.ones(2) for name in names}
    save_file(tensors, path, {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "name",
    ["v_head.summary.weight", "bert.encoder.layer.7.output.dense.weight", "encoder.extra.lora_A"],
)
def test_a_tensor_that_nothing_uses_is_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = with_tensors(folder_of(tmp_path, "bert"), name)
    with pytest.raises(InputError, match=r"holds 1 tensors that BertModel does not use"):
        load(str(folder), Cache(tmp_path / "cache"))


def test_what_checkpoints_hold_without_use_is_harmless(tmp_path: Path) -> None:
    names = ("embeddings.position_ids", "pooler.dense.weight", "cls.seq_relationship.bias")
    folder = with_tensors(folder_of(tmp_path, "bert"), *names)
    assert load(str(folder), Cache(tmp_path / "cache")).task == "feature-extraction"


def test_a_head_may_be_left_away_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "bert", architectures=["BertForQuestionAnswering"])
    with_tensors(folder, "qa_outputs.weight", "qa_outputs.bias")
    cache = Cache(tmp_path / "cache")
    assert load(str(folder), cache, task="feature-extraction").task == "feature-extraction"
    with_tensors(folder, "bert.encoder.layer.7.output.dense.bias")
    with pytest.raises(InputError, match=r"bert\.encoder\.layer\.7"):
        load(str(folder), cache, task="feature-extraction")
