"""``edgelr validate`` and ``edgelr measure``: figures of a finished bundle, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Invoke
from tests.helpers.runtime_bundles import write_modality, write_source
from tests.runtime.test_memory_cap import MIB, board


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A text encoder; nothing in it says how much it may lose."""
    return write_modality(tmp_path / "bundle", "text_encoder").folder


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A text encoder of other weights."""
    return write_modality(tmp_path / "other", "text_encoder", seed=1).folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = write_source(tmp_path, "text_encoder")
    assert path is not None
    return path


# --- validate ------------------------------------------------------------------------------------


def test_a_bundle_is_compared_and_its_figures_are_printed(
    run: Invoke, bundle: Path, texts: Path
) -> None:
    data = texts.name  # in the folder that the command runs in
    done = run("validate", bundle, "--against", bundle, "--data", data, "--max-drop", "0.01")
    assert done.exit_code == 0, done.stderr
    assert f"Accuracy on {data}" in done.stdout
    assert "gate passed: mean_cosine is 1" in done.stdout


def test_a_bundle_outside_its_gate_ends_with_3_and_shows_its_figures(
    run: Invoke, bundle: Path, other: Path, texts: Path
) -> None:
    words = ["validate", other, "--against", bundle, "--data", texts, "--max-drop", "0.25"]
    done = run(*words, "--json")
    assert done.exit_code == 3
    assert f"{other} is outside its accuracy gate" in done.stderr
    found = json.loads(done.stdout)
    assert found["gate"]["limit"] == 0.75
    assert found["gate"]["value"] == found["metrics"][0]["value"] < 0.75


# --- validate --under-cap ------------------------------------------------------------------------


def test_a_run_in_enough_memory_says_so(run: Invoke, tmp_path: Path) -> None:
    bundle = write_modality(tmp_path / "bundle", "decoder").folder
    done = run("validate", bundle, "--under-cap", "--profile", board(tmp_path, 400.0))
    assert done.exit_code == 0, done.stderr
    assert "It ran with" in done.stdout


def test_a_run_in_too_little_memory_ends_with_4(run: Invoke, tmp_path: Path) -> None:
    bundle = write_modality(tmp_path / "bundle", "decoder").folder
    done = run("validate", bundle, "--under-cap", "--profile", board(tmp_path, 40.0), "--json")
    assert done.exit_code == 4, done.stderr
    assert "does not run in the memory" in done.stderr
    found = json.loads(done.stdout)
    assert (found["limit_bytes"], found["peak_bytes"]) == (40 * MIB, None)
    assert found["problem"]


def test_a_cap_needs_a_device(run: Invoke, bundle: Path) -> None:
    done = run("validate", bundle, "--under-cap")
    assert done.exit_code == 2
    assert "name one with --profile" in done.stderr


def test_a_device_needs_a_cap(run: Invoke, bundle: Path) -> None:
    done = run("validate", bundle, "--profile", "jetson")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Add --under-cap, or leave --profile away" in done.stderr


# --- measure -------------------------------------------------------------------------------------


def measured(run: Invoke, *words: object) -> Any:
    done = run("measure", *words, "--repetitions", "3", "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("context", "tokens_before"), [([], 5), (["--context", "7"], 7)])
def test_a_decode_follows_the_prefill_unless_another_context_is_asked_for(
    run: Invoke, tmp_path: Path, context: list[str], tokens_before: int
) -> None:
    bundle = write_modality(tmp_path / "bundle", "decoder").folder
    phases = measured(run, bundle, "--tokens", "5", *context)["phases"]
    assert [(each["phase"], each["tokens"], each["context_tokens"]) for each in phases] == [
        ("prefill", 5, 0),
        ("decode", 1, tokens_before),
    ]
    assert {each["repetitions"] for each in phases} == {3}


def test_two_bundles_are_measured_in_turns(run: Invoke, bundle: Path, other: Path) -> None:
    found = measured(run, other, "--against", bundle)
    assert found.keys() == {"dense", "bundle", "ratios", "intervals", "notes"}
    assert found["dense"]["name"] != found["bundle"]["name"]
    phases = [each["phase"] for each in found["bundle"]["phases"]]
    assert len(found["ratios"]) == len(phases) == 2
    assert all(ratio > 0 for ratio in found["ratios"].values())


def test_operators_are_shown_instead_of_phases(run: Invoke, bundle: Path) -> None:
    (operator,) = measured(run, bundle, "--operators")
    assert operator.pop("milliseconds") > 0
    assert operator == {"operator": "Gather", "provider": "CPUExecutionProvider", "nodes": 1}
