"""Sources: the first kind that accepts the model opens it, and models of transformers the rest."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgelr.core.settings import make_settings
from edgelr.stages.source import DEFAULT, SOURCES, open_source
from edgelr.stages.sources.onnx import GraphSource
from edgelr.stages.sources.transformers import ModelSource


@pytest.mark.parametrize(
    ("model", "task", "kind"),
    [
        ("graph.onnx", None, GraphSource),
        ("package.module:factory", "tensors", GraphSource),
        ("package.module:factory", None, ModelSource),
        ("owner/model", None, ModelSource),
        ("model.gguf", "text-generation", ModelSource),
    ],
)
def test_the_name_and_the_task_choose_the_source(model: str, task: str | None, kind: type) -> None:
    assert isinstance(open_source(make_settings(model=model, task=task)), kind)


def test_the_default_accepts_everything_and_is_asked_last() -> None:
    settings = make_settings(model="graph.onnx")
    accepting = [name for name, kind in SOURCES.items() if kind.accepts(settings)]
    assert accepting == ["onnx", DEFAULT]


def test_opening_a_source_imports_no_torch() -> None:
    code = (
        "import sys; from edgelr import pipeline; from edgelr.core.settings import make_settings;"
        "from edgelr.stages.source import open_source;"
        "open_source(make_settings(model='m')); open_source(make_settings(model='m.onnx'));"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
