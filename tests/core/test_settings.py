"""Options: checked once, written to a file, read back the same."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgelr.core.errors import InputError
from edgelr.core.settings import (
    Settings,
    choices,
    make_settings,
    read_settings,
    setting_types,
    write_settings,
)
from edgelr.core.vocabulary import LAYOUTS

EVERYTHING: dict[str, Any] = {
    "model": "folder/model",
    "profile": "orin-nano-4gb",
    "out": "there",
    "recipe": "svd-llm",
    "grouping": "blocks",
    "method": "svd",
    "allocator": "lagrangian",
    "forms": ("low_rank", "pivoted"),
    "task": "text-generation",
    "precision": "float32",
    "rounding": "searched",
    "max_size": "60MB",
    "calibration": ("self", "a.txt"),
    "calibration_tokens": 4096,
    "calibration_length": 128,
    "evaluation": "b.txt",
    "labels": "labels.txt",
    "label_template": "a drawing of a {}",
    "context_tokens": 512,
    "rounds": 2,
    "heal_steps": 100,
    "heal_minutes": 1.5,
    "heal_sites": "low_rank",
    "heal_adapter": "lokr",
    "seed": 7,
    "opset": 17,
    "provider": "cuda",
    "revision": "main",
    "trust_remote_code": True,
    "with_tests": True,
    "rivals": False,
}


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        ("keep", "80%", 0.8),
        ("keep", 0.8, 0.8),
        ("max_drop", "5 %", 0.05),
        ("max_drop", "150%", 1.5),
        ("max_latency", "15ms", 15),
        ("max_latency", 0.5, 0.5),
        ("max_size", "60MB", "60MB"),
        ("max_size", 60_000_000, "60000000"),
    ],
)
def test_an_aim_may_have_a_unit_in_options_and_in_the_file(
    tmp_path: Path, name: str, given: Any, read: Any
) -> None:
    assert getattr(make_settings(model="m", **{name: given}), name) == read
    (tmp_path / "edgelr.yaml").write_text(yaml.safe_dump({"model": "m", name: given}))
    assert getattr(read_settings(tmp_path / "edgelr.yaml", {}), name) == read


def test_a_size_is_counted_in_bytes() -> None:
    assert make_settings(model="m", max_size="1.5GiB").max_size_bytes == 3 * 2**29


@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("keep", 80, "did you mean 0.8, which is 80%?"),
        ("max_drop", "5", "did you mean 0.05, which is 5%?"),
        ("max_size", "60", "60 bytes? Write 60MB"),
        ("max_latency", "15 years", "expected for instance 15ms"),
    ],
)
def test_a_unit_that_is_missing_or_wrong_is_asked_for(name: str, given: Any, meant: str) -> None:
    with pytest.raises(InputError, match=re.escape(meant)):
        make_settings(model="m", **{name: given})


@pytest.mark.parametrize("aims", [{"keep": 0.5}, {"max_size": "1MB"}, {"max_drop": 0.1}, {}])
def test_one_aim_or_none_is_fine(aims: dict[str, Any]) -> None:
    assert make_settings(model="m", **aims).model == "m"


@pytest.mark.parametrize(
    ("aims", "names"),
    [
        ({"keep": 0.5, "max_size": "1MB"}, "keep and max_size are given"),
        ({"max_size": "1MB", "max_drop": 0.1}, "max_size and max_drop are given"),
        (
            {"keep": 1, "max_size": "1MB", "max_drop": 0.1},
            "keep and max_size and max_drop are given",
        ),
    ],
)
def test_two_aims_are_refused(aims: dict[str, Any], names: str) -> None:
    with pytest.raises(
        InputError, match=f"cannot be used: {names}; expected at most one of them.$"
    ):
        make_settings(model="m", **aims)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keep", 0),
        ("keep", 1.01),
        ("keep", float("nan")),
        ("max_drop", 0),
        ("max_drop", -0.1),
        ("precision", "int3"),
        ("forms", ("sparse",)),
        ("calibration_tokens", 255),
        ("context_tokens", 0),
        ("opset", 10),
        ("grouping", "pairs"),
        ("rounds", 0),
        ("heal_steps", 0),
        ("heal_minutes", 0),
        ("heal_sites", "some"),
        ("heal_adapter", "lola"),
        ("provider", "tpu"),
        ("seed", "many"),
        ("typo", 1),
    ],
)
def test_an_option_out_of_range_is_named_with_what_was_found(name: str, value: Any) -> None:
    found = value[0] if isinstance(value, tuple) else value
    with pytest.raises(InputError, match=rf"{name}.*\(found {found}\)"):
        make_settings(model="m", **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("precision", "int3", "int8 or int4"),
        ("forms", ("dense", "low-rank"), "low_rank"),
        ("heal_adapter", "loar", "lora"),
        ("provider", "cudo", "cuda"),
        ("calibraton_tokens", 512, "calibration_tokens"),
    ],
)
def test_a_wrong_word_gets_the_one_that_was_meant(name: str, value: Any, meant: str) -> None:
    with pytest.raises(InputError, match=rf"\)\. Did you mean {meant}"):
        make_settings(model="m", **{name: value})


def test_a_task_is_one_of_the_registry() -> None:
    with pytest.raises(InputError, match=r"Unknown task .*\. Did you mean text-gen"):
        make_settings(model="m", task="text-genration")


@pytest.mark.parametrize(("short", "name"), [("fp32", "float32"), ("fp16", "float16")])
def test_a_precision_may_be_named_in_short(short: str, name: str) -> None:
    assert make_settings(model="m", precision=short).precision == name


def test_a_run_needs_a_model() -> None:
    with pytest.raises(InputError, match="model: Field required"):
        make_settings(profile="jetson")


def test_settings_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "edgelr.yaml"
    for settings in (make_settings(**EVERYTHING), make_settings(model="m", keep=0.6)):
        write_settings(settings, path)
        assert read_settings(path, {}) == settings


def test_every_field_is_tried() -> None:
    assert {each.name for each in fields(Settings)} - set(EVERYTHING) == {
        "keep",
        "max_drop",
        "max_latency",
    }


def test_a_file_holds_only_what_differs_from_the_defaults(tmp_path: Path) -> None:
    write_settings(make_settings(model="m", keep=0.6, seed=0), tmp_path / "edgelr.yaml")
    assert yaml.safe_load((tmp_path / "edgelr.yaml").read_text()) == {"model": "m", "keep": 0.6}


def test_options_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "edgelr.yaml"
    path.write_text("model: m\nseed: 1\nprofile: jetson\n")
    found = read_settings(path, {"seed": 2, "model": "n"})
    assert (found.model, found.seed, found.profile) == ("n", 2, "jetson")


def test_an_aim_of_the_command_line_replaces_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "edgelr.yaml"
    path.write_text("model: m\nkeep: 0.5\n")
    found = read_settings(path, {"max_drop": 0.01})
    assert (found.keep, found.max_drop) == (None, 0.01)
    assert read_settings(path, {"keep": 0.7}).keep == 0.7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "holds no mapping"),
        (b"", "holds no mapping"),
        (b"model: [", "Expected a YAML file"),
        (b"model: \xff", "Expected a YAML file"),
        (b"model: m\nrecpie: svd\n", "recpie"),
        (b"model: m\n1: 2\n", "1: Unexpected keyword"),
        (b"model: m\ncalibration: a.txt\n", "calibration: .*tuple"),
    ],
)
def test_what_is_no_settings_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "edgelr.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_settings(path, {})


def test_a_missing_settings_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot read"):
        read_settings(tmp_path / "none.yaml", {})


def test_what_a_command_needs_to_offer_the_settings_is_there_at_once() -> None:
    program = (
        "import sys, edgelr.core.settings as settings; settings.setting_types()\n"
        "print(*{'pydantic', 'yaml', 'typer'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("provider", ("cpu", "cuda")),
        ("precision", ("fp32", "fp16", *LAYOUTS, "auto")),
        ("forms", ("dense", "low_rank", "pivoted", "tied", "kronecker")),
        ("recipe", ()),
        ("calibration", ()),
        ("rounds", ()),
    ],
)
def test_the_choices_of_a_setting_are_those_of_its_type(name: str, words: tuple[str, ...]) -> None:
    assert choices(setting_types()[name]) == words
