"""Errors of other libraries and of the machine are told; bugs are not."""

from __future__ import annotations

import errno
import importlib
import re
from pathlib import Path

import pytest
from safetensors import safe_open
from tokenizers import Tokenizer

from edgelr.core.errors import EdgelrError, EnvironmentProblem, InputError
from edgelr.core.problems import (
    EXTRAS,
    install_command,
    last_line,
    library_call,
    problem_of,
    told_problems,
    version_of,
)
from tests.helpers.paths import ROOT


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "'edgelr[cpu]'"),
        (ModuleNotFoundError("", name="scipy.signal"), "'edgelr[cpu]'"),
        (ModuleNotFoundError("", name="onnxruntime"), "'edgelr[cpu]'"),
        (ModuleNotFoundError("", name="peft"), "'edgelr[heal]'"),
        (ModuleNotFoundError("", name="timm"), "pip install timm"),
        (ModuleNotFoundError("", name="PIL"), "pip install pillow"),
        (ImportError("TimmBackbone requires the timm library but it was not found"), "timm"),
        (ImportError("\nX requires the PyTorch library but"), "'edgelr[cpu]'"),
        (ImportError("T requires the SentencePiece library but"), "pip install sentencepiece"),
        (ImportError("packages that were not found in your environment: einops. Run"), "einops"),
        (ImportError("cannot import name 'x' from 'onnx'", name="onnx"), "cannot be imported"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    error: ImportError, command: str
) -> None:
    told = problem_of(error)
    assert isinstance(told, EnvironmentProblem)
    assert command in str(told)
    assert "\n" not in str(told)


def test_the_commands_name_extras_that_bring_the_package() -> None:
    """What ``pyproject.toml`` says of the extras is what the messages say."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = re.findall(r"^([\w-]+) = \[(.*?)\](?: #[^\n]*)?$", text, re.MULTILINE | re.DOTALL)
    brought = {
        ("cpu" if extra == "compress" else extra, name.replace("-", "_"))
        for extra, listed in lists
        for name in re.findall(r'"([\w-]+)(?:>=|==)', listed)
    }
    brought.add(("cpu", "huggingface_hub"))  # through transformers
    assert {(extra, name) for name, extra in EXTRAS.items()} <= brought


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (MemoryError(), EnvironmentProblem, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 GB"), EnvironmentProblem, "9"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), EnvironmentProblem, "disk is full"),
        (RuntimeError("I/O: No space left on device"), EnvironmentProblem, "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), EnvironmentProblem, "/x"),
    ],
)
def test_what_the_machine_lacks_is_told(
    error: Exception, kind: type[EdgelrError], said: str
) -> None:
    with pytest.raises(kind, match=said) as told, told_problems():
        raise error
    assert told.value.__cause__ is error


def test_the_errors_of_a_library_are_told_with_their_last_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no weights")
    with (
        pytest.raises(InputError, match=r"safetensors failed \(SafetensorError\)"),
        told_problems(),
    ):
        safe_open(tmp_path / "file", framework="np")
    told = r"tokenizers failed \(Exception\): expected"
    with pytest.raises(InputError, match=told), told_problems():
        Tokenizer.from_file(str(tmp_path / "file"))
    onnx = importlib.import_module("onnx")
    with pytest.raises(InputError, match=r"onnx failed \(ValidationError\)"), told_problems():
        onnx.checker.check_model(onnx.ModelProto())


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        KeyError("rank"),
        AssertionError("made"),
        ModuleNotFoundError("No module named 'edgelr.x'", name="edgelr.x"),
        FileNotFoundError(errno.ENOENT, "No such file", "plan.json"),
    ],
)
def test_a_bug_keeps_its_class_and_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)) as told, told_problems():
        raise error
    assert told.value is error


def test_errors_of_edgelr_pass_unchanged() -> None:
    error = InputError("found, expected, now")
    with pytest.raises(InputError) as told, told_problems():
        raise error
    assert told.value is error


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (
            AttributeError("in frame 7\n\n  no 'ndim'\n"),
            InputError,
            "^T: no 'ndim'. Give another.$",
        ),
        (RuntimeError("CUDA out of memory"), EnvironmentProblem, "not enough memory"),
        (ImportError("told at the end"), ImportError, "told at the end"),
    ],
)
def test_whatever_a_library_raises_at_its_door_is_told(
    error: Exception, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said), library_call("T", "Give another."):
        raise error


def test_the_last_line_of_an_error_is_a_sentence() -> None:
    assert last_line(ValueError("first\nsecond\n")) == "second."
    assert last_line(ValueError()) == "ValueError."
    assert len(last_line(ValueError("x" * 9999))) < 500


def test_versions_are_those_of_the_first_wheel_that_is_installed() -> None:
    assert version_of("no-such-wheel", "numpy") == importlib.import_module("numpy").__version__
    assert version_of("no-such-wheel") == ""
    assert install_command("soundfile") == "pip install 'edgelr[audio]'"
