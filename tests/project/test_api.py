"""The Python API: lazy, silent, and its documentation runs as it is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgelr
from edgelr.core.bundle import read_bundle
from edgelr.core.errors import EdgelrError, InputError
from edgelr.model.loaded import LoadedModel
from edgelr.stages.transformers import calibration_data
from tests.helpers.foreign_graphs import mlp
from tests.helpers.paths import ROOT
from tests.helpers.run_exports import QUICK, Recorder

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
IMPORT_SECONDS = 0.15
HEAVY = ("torch", "transformers", "onnx", "onnxruntime", "pydantic", "numpy")
SHORT = {name: value for name, value in QUICK.items() if name != "profile"}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELR_CACHE", str(tmp_path_factory.getbasetemp() / "api-cache"))


def test_importing_edgelr_takes_no_time_and_loads_nothing_heavy() -> None:
    code = (
        "import time; start = time.perf_counter(); import edgelr; end = time.perf_counter();"
        f"import sys; print(end - start, *(set(sys.modules) & set({HEAVY!r})))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    assert all(len(run.stdout.split()) == 1 for run in runs), runs[0].stdout
    assert min(float(run.stdout) for run in runs) < IMPORT_SECONDS


def test_every_name_is_there_and_no_other() -> None:
    assert set(dir(edgelr)) == set(edgelr.__all__)
    assert all(getattr(edgelr, name) for name in edgelr.__all__)
    with pytest.raises(AttributeError, match="no attribute 'compress_all'"):
        edgelr.compress_all  # noqa: B018


def test_a_room_that_is_imported_hides_no_function() -> None:
    import edgelr.planning.allocate

    assert callable(edgelr.plan)
    assert callable(edgelr.inspect)


@pytest.mark.whole
def test_the_documentation_runs(
    tiny_encoder: LoadedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(calibration_data, "CALIBRATION_TOKENS", 512)  # fewer than users take
    (tmp_path / "MODEL").symlink_to(tiny_encoder.folder)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert (tmp_path / "bundle" / "onnx").is_dir()
    assert (tmp_path / "plan.json").is_file()
    assert read_bundle(tmp_path / "from-memory").manifest.source == "BertModel in memory"
    assert "keep: " in capsys.readouterr().out


@pytest.mark.whole
def test_nothing_is_printed_and_the_listener_hears(
    tiny_decoder: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder()
    report = edgelr.export(
        tiny_decoder.folder, "generic-cpu", tmp_path / "out", listener=recorder, keep=0.8, **SHORT
    )
    assert report.command.startswith("edgelr.export(")
    assert capsys.readouterr() == ("", "")
    assert {"dense export", "planned", "parity"} <= set(recorder.stages)
    bundle = edgelr.Bundle(tmp_path / "out")
    assert isinstance(bundle.generate("A text", max_tokens=3), str)
    with pytest.raises(InputError, match="is for text-generation, and embed takes bundles for"):
        bundle.embed(["A text"])


@pytest.mark.whole
def test_a_graph_is_exported_and_run(tmp_path: Path) -> None:
    path = mlp(tmp_path / "mlp.onnx")
    edgelr.export(path, "generic-cpu", tmp_path / "out", keep=0.9)
    bundle = edgelr.Bundle(tmp_path / "out")
    (output,) = bundle.run(x=np.ones((1, 48), np.float32)).values()
    assert np.isfinite(output).all()


def test_an_option_that_is_none_is_named() -> None:
    with pytest.raises(EdgelrError, match="kepe"):
        edgelr.plan("MODEL", kepe=0.8)
