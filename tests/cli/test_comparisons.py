"""``edgelr bench methods`` and ``edgelr sweep``: folders, tables, what comes next, and refusals."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke

QUICK = ["--calibration-tokens", "512"]


# --- bench methods -------------------------------------------------------------------------------


@pytest.mark.whole
def test_a_bench_prints_tables_and_what_comes_next(
    run: Invoke, tiny_decoder_folder: Path, tmp_path: Path
) -> None:
    words = ["bench", "methods", tiny_decoder_folder, "--keep", "0.9", "--recipes", "svd,edgelr"]
    words += [*QUICK, "--tokens", "256", "--length", "32"]
    done = run(*words)
    assert done.exit_code == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("bench-model/methods.md  Next: edgelr export ")
    assert last.endswith("--keep 0.9")
    assert {path.name for path in (tmp_path / "bench-model").iterdir()} == {
        "methods.json", "methods.md", "methods.svg", "methods.png", "rows.json"
    }  # fmt: skip
    again = run(*words, "--json")
    assert json.loads(again.stdout)["rows"][0]["recipe"] == "dense"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--keep", "0.9", "--recipes", "svdllm"], "Did you mean svd-llm"),
        (["--keep", "1.5"], "expected a share above 0 and at most 1"),
        (["--keep", "0.9", "--recipes", ""], "expected names"),
        (["--keep", "0.9", "--profile", "jetsn"], "Did you mean"),
        (["--keep", "0.9", "--evaluation", "/nowhere.txt"], "Cannot read the text"),
        ([], "--keep"),
    ],
)
def test_a_wrong_option_of_a_bench_ends_with_2(
    run: Invoke, tiny_decoder_folder: Path, options: list[str], told: str
) -> None:
    done = run("bench", "methods", tiny_decoder_folder, *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert told in done.stderr


# --- sweep ---------------------------------------------------------------------------------------


@pytest.mark.whole
def test_a_sweep_prints_tables_and_what_comes_next(
    run: Invoke, tiny_encoder_folder: Path, tmp_path: Path
) -> None:
    words = ["sweep", tiny_encoder_folder, "--profile", "generic-cpu", "--keep", "0.7"]
    done = run(*words, "--no-rivals", *QUICK, "--calibration-length", "32")
    assert done.exit_code == 0, done.output
    assert "edgelr auto, keep 0.7" in done.stdout
    written, _, command = done.stdout.splitlines()[-1].partition("  Next: ")
    assert written == "sweep-model/sweep.md"
    assert (tmp_path / written).is_file()
    reported = run(*shlex.split(command)[1:])
    assert reported.exit_code == 0, reported.stderr
    assert run("report", "sweep-model").exit_code == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--precision", "int8,int3"], "'int8,int3'; expected some of fp32"),
        (["--keep", "0"], "expected a share above 0 and at most 1"),
        (["--profile", "generic-cpu", "--profile", "jetsn"], "Did you mean jetson"),
        (["--recipe", "svdllm"], "Did you mean svd-llm"),
        (["--task", "feature-extraction"], "No such option"),
    ],
)
def test_a_wrong_option_of_a_sweep_ends_with_2(
    run: Invoke, tiny_encoder_folder: Path, options: list[str], told: str
) -> None:
    done = run("sweep", tiny_encoder_folder, *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert told in done.stderr
