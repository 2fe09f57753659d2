"""What goes wrong ends with its exit code, loses nothing, and leaves the next run a clean start."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import yaml
from typer.testing import CliRunner, Result

from edgelr import pipeline
from edgelr.cli import app
from edgelr.core.bundle import read_bundle
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.device.profile import load_profile, profile_path
from edgelr.model.loaded import LoadedModel
from edgelr.stages.transformers.dense import dense_export
from tests.conftest import write_tiny
from tests.helpers.paths import ROOT
from tests.helpers.run_exports import Recorder, quick_settings, session_cache

pytestmark = pytest.mark.whole

OPTIONS = ["--profile", "generic-cpu", "--calibration-tokens", "512", "--calibration-length", "32"]
PATIENCE_SECONDS = 120

Invoke = Callable[..., Result]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return session_cache(tmp_path_factory)


@pytest.fixture
def run(tiny_decoder_folder: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run ``edgelr export`` on the tiny decoder, or on another model."""
    monkeypatch.setenv("EDGELR_CACHE", str(cache.root))

    def export(*options: str | Path, model: Path = tiny_decoder_folder) -> Result:
        words = ["export", str(model), *OPTIONS, *map(str, options)]
        return CliRunner().invoke(app, words, catch_exceptions=False)

    return export


# --- runs that are ended -------------------------------------------------------------------------


def end(
    model: LoadedModel, out: Path, cache: Cache, left: str, end_signal: signal.Signals
) -> tuple[int, str]:
    """Start an export, end it when ``left`` (a pattern) appears; return its code and words."""
    command = [sys.executable, "-m", "edgelr", "export", str(model.folder), "--out", str(out)]
    running = subprocess.Popen(
        [*command, *OPTIONS, "--keep", "0.6"],
        cwd=ROOT,
        env=os.environ | {"EDGELR_CACHE": str(cache.root)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background job ignores interrupts, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    folder, pattern = os.path.split(left)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while running.poll() is None and not list(Path(folder).glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(running.pid, end_signal)  # as a terminal does: children hear it, too
    words = running.communicate(timeout=PATIENCE_SECONDS)[1]
    return running.returncode, words


def test_a_killed_run_leaves_no_bundle_and_the_next_one_cleans_up(
    tiny_decoder: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    dense_export(tiny_decoder, Run(cache, Recorder()))
    out = tmp_path / "out"
    code, _ = end(tiny_decoder, out, cache, f"{tmp_path}/.out.partial-*", signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not out.exists()
    assert list(tmp_path.glob(".out.partial-*"))
    recorder = Recorder()
    settings = quick_settings(tiny_decoder.folder, keep=0.6)
    pipeline.export(settings, load_profile("generic-cpu"), out, Run(cache, recorder))
    assert not {"sampling text", "input statistics", "decomposition"} & set(recorder.stages)
    assert read_bundle(out, verify=True).manifest.gate_passed is not None
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "left", ["{out}/.out.partial-*", pytest.param("{cache}/.dense-*", marks=pytest.mark.slow)]
)
def test_an_interrupt_ends_with_130_and_leaves_finished_stages_only(
    left: str, tiny_decoder: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    own = Cache(tmp_path / "cache")
    own.root.mkdir()
    if "out" in left:
        dense_export(tiny_decoder, Run(cache, Recorder()))
        for path in cache.root.glob("dense-*"):
            (own.root / path.name).symlink_to(path)
    place = left.format(out=tmp_path, cache=own.root)
    code, words = end(tiny_decoder, tmp_path / "out", own, place, signal.SIGINT)
    assert (code, "Traceback" in words) == (130, False), words
    assert "Run the same command again: finished stages are kept" in words
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    kinds = {path.name.partition("-")[0] for path in own.root.iterdir()}
    everything = {"dense", "sample", "statistics", "spectra", "rounding", "correction"}
    assert kinds - {"steps"} == (everything if "out" in left else set())  # steps: just ended


# --- what is refused before any work -------------------------------------------------------------


def test_a_foreign_folder_is_refused_even_with_force_and_keeps_its_files(
    run: Invoke, tmp_path: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years of work")
    for options in ([], ["--force"]):
        done = run("--out", tmp_path / "thesis", *options)
        assert done.exit_code == 2
        assert "edgelr does not delete what it did not write" in " ".join(done.stderr.split())
    assert (tmp_path / "thesis/chapter.txt").read_text() == "years of work"


def test_a_bundle_is_replaced_with_force_only(
    run: Invoke, tiny_decoder: LoadedModel, cache: Cache, tmp_path: Path
) -> None:
    dense = dense_export(tiny_decoder, Run(cache, Recorder())).bundle.folder
    out = shutil.copytree(dense, tmp_path / "out")
    assert run("--out", out).exit_code == 2
    assert run("--out", out, "--force", "--keep", "0.6", "-q").exit_code == 0
    assert read_bundle(out).manifest.profile == "generic-cpu"


def test_a_place_that_cannot_hold_a_folder_is_refused(run: Invoke, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("--out", tmp_path / "file/out")
    assert (done.exit_code, "is a file" in done.stderr) == (2, True)


def test_an_empty_calibration_text_is_refused(run: Invoke, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("  \n")
    done = run("--out", tmp_path / "out", "--calibration", tmp_path / "empty.txt")
    assert (done.exit_code, "holds no text" in done.stderr) == (2, True)


def test_a_calibration_row_longer_than_the_model_takes_is_refused(
    run: Invoke, tmp_path: Path
) -> None:
    done = run("--out", tmp_path / "out", "--calibration-length", "4096")
    assert done.exit_code == 2
    assert "--calibration-length asks for 4,096 tokens" in done.stderr
    assert "takes 128 at most" in done.stderr


def test_a_full_disk_is_noticed_first(
    run: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    done = run("--out", tmp_path / "out")
    assert (done.exit_code, "0 MiB are free" in done.stderr) == (6, True)


def test_a_model_without_linears_is_refused(
    run: Invoke, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    folder = write_tiny(tmp_path_factory.mktemp("llama") / "model", "llama", num_hidden_layers=0)
    done = run("--out", tmp_path / "out", model=folder)
    assert (done.exit_code, "no linear that can be factorized" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this ONNX Runtime has the CUDA provider",
)
def test_a_provider_that_is_not_there_ends_with_5(run: Invoke, tmp_path: Path) -> None:
    done = run("--out", tmp_path / "out", "--provider", "cuda")
    assert (done.exit_code, "Asked for CUDAExecutionProvider" in done.stderr) == (5, True)
    assert not (tmp_path / "out").exists()


def test_a_failed_gate_ends_with_3_and_keeps_the_bundle_marked(
    run: Invoke, tiny_encoder_folder: Path, tmp_path: Path
) -> None:
    board = yaml.safe_load(profile_path("generic-cpu").read_text())
    board["gate"]["min_mean_cosine"]["value"] = 1.0
    (tmp_path / "board.yaml").write_text(yaml.safe_dump(board))
    options = ["--profile", tmp_path / "board.yaml", "--keep", "0.6", "--json"]
    done = run("--out", tmp_path / "out", *options, model=tiny_encoder_folder)
    assert done.exit_code == 3
    assert "The bundle is kept" in done.stderr
    assert json.loads(done.stdout)["validation"]["gate"]["limit"] == 1.0
    assert read_bundle(tmp_path / "out", verify=True).manifest.gate_passed is False
