"""A first look: what small files tell ends a run before torch is imported."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgelr.core.errors import InputError
from edgelr.model.first_look import require_exportable

WITHOUT_TORCH = """
import sys
from edgelr.cli import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    heavy = {"torch", "transformers", "onnxruntime"} & set(sys.modules)
    sys.exit(f"imported {heavy}" if heavy else end.code)
"""


def folder_of(root: Path, weights: str = "model.safetensors", **config: Any) -> Path:
    (root / "config.json").write_text(json.dumps(config))
    (root / weights).write_bytes(b"")
    return root


def bert(root: Path, name: str | None = None) -> Path:
    return folder_of(root, model_type="bert", architectures=[name] if name else None)


def look(folder: Path, task: Any = None) -> None:
    require_exportable(folder, task)


@pytest.mark.parametrize(
    "name",
    ["BertModel", "BertForMaskedLM", "BertForSequenceClassification", "BertLMHeadModel", None],
)
def test_known_heads_are_looked_at_again_later(tmp_path: Path, name: str | None) -> None:
    look(bert(tmp_path, name))


@pytest.mark.parametrize("name", ["BertForQuestionAnswering", "BertForMultipleChoice"])
def test_another_head_needs_a_task(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"is a {name}, and edgelr exports .* bert for feature-"):
        look(bert(tmp_path, name))
    look(tmp_path, "feature-extraction")


@pytest.mark.parametrize(
    ("config", "weights", "message"),
    [
        ({"model_type": "gpt9"}, "model.safetensors", "No exporter knows the model type 'gpt9'"),
        ({"model_type": "bert"}, "pytorch_model.bin", "only pickled weights"),
        ({"model_type": "bert"}, "notes.txt", "holds no weights; expected"),
    ],
)
def test_folders_that_cannot_be_exported_are_refused(
    tmp_path: Path, config: dict[str, Any], weights: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        look(folder_of(tmp_path, weights, **config))


@pytest.mark.parametrize(("text", "message"), [("{", "cannot be read"), ("[]", "holds a list")])
def test_a_damaged_configuration_is_told(tmp_path: Path, text: str, message: str) -> None:
    bert(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=message):
        look(tmp_path)


def test_the_command_refuses_in_the_first_seconds_without_torch(tmp_path: Path) -> None:
    folder = bert(tmp_path, "BertForQuestionAnswering")
    save_file({"weight": np.zeros(2, np.float32)}, folder / "model.safetensors")
    command = [sys.executable, "-c", WITHOUT_TORCH, "export", str(folder), "--profile", "jetson"]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, "--out", str(tmp_path.with_name("out"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, time.perf_counter() - start < 10) == (2, True), done.stderr
    assert "Give --task feature-extraction" in done.stderr
    assert "Traceback" not in done.stderr


def test_code_of_the_model_is_left_to_transformers(tmp_path: Path) -> None:
    """It says whether the code may run; a type that nobody knows is no reason to refuse it here."""
    look(folder_of(tmp_path, model_type="mine", auto_map={"AutoModel": "code.Model"}))
