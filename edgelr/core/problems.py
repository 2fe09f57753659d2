"""Errors of other libraries, and of the machine, as errors that a user can mend.

What is none of these is a bug of edgelr, and keeps its traceback.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from edgelr.core.errors import EdgelrError, EnvironmentProblem, InputError

LIBRARY_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError),
    *(TypeError, ValueError),
)
"""What a library raises at a file or a model that it does not know, and was not prepared for."""

UNTRACEABLE = (
    "Expected a model that torch can export. Give another one; --verbose shows where it ends."
)
EXTRAS = {  # of edgelr, by the folder of a package that they bring
    **dict.fromkeys(
        ("accelerate", "gguf", "huggingface_hub", "matplotlib", "onnx", "onnx_ir", "onnxruntime",
         "onnxruntime_genai", "onnxscript", "optimum", "scipy", "torch", "transformers"),
        "cpu",
    ),
    "peft": "heal",
    "soundfile": "audio",
    "jiwer": "metrics",
    "sacrebleu": "metrics",
    "lm_eval": "lm-eval",
}  # fmt: skip
_WHEELS = {"PIL": "pillow", "google": "protobuf", "cv2": "opencv-python", "yaml": "pyyaml"}
_LIBRARIES = (  # whose own classes of errors speak of their input
    *("safetensors", "safetensors_rust", "huggingface_hub", "httpx", "requests", "tokenizers"),
    *("json", "yaml", "zipfile", "PIL"),
    *("onnx", "onnx_ir", "onnxscript", "onnxruntime", "onnxruntime_genai"),
)
_MISSING = re.compile(
    r"requires the (?P<one>\S+) library|not found in your environment: (?P<two>\w+)"
)
_NO_MEMORY = ("out of memory", "can't allocate memory", "bad_alloc", "BFCArena::AllocateRaw")
_NO_SPACE = "No space left on device"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def told_problems() -> Iterator[None]:
    """Turn what other libraries and the machine raise into errors that a user can mend.

    Raises:
        EdgelrError: a package is missing, there is no memory or no disk left, or a library refuses
            what it was given.
    """
    try:
        yield
    except EdgelrError:
        raise
    except Exception as error:
        told = problem_of(error)
        if told is None:
            raise
        raise told from error


@contextmanager
def library_call(does: str, advice: str) -> Iterator[None]:
    """Tell what a library raises in a block that does nothing but call it.

    Args:
        does: what is called on what, such as ``"transformers cannot trace MODEL"``.
        advice: sentence that says what was expected, and what to do.

    Raises:
        InputError: the library failed.
    """
    try:
        yield
    except LIBRARY_ERRORS as error:
        raise machine_problem(error) or InputError(
            f"{does}: {last_line(error)} {advice}"
        ) from error


def problem_of(error: BaseException) -> EdgelrError | None:
    """Say what a user can do about an error; None where it is a bug."""
    if isinstance(error, ImportError):
        return _missing(error)
    if isinstance(error.__cause__, ImportError):  # as transformers wraps it
        return _missing(error.__cause__)
    library = type(error).__module__.strip("_").split(".")[0]
    if type(error) is Exception:  # as tokenizers raises, and nothing of edgelr
        library = "tokenizers"
    if machine := machine_problem(error):
        return machine
    if library not in _LIBRARIES:
        return None
    return InputError(
        f"{library} failed ({type(error).__name__}): {last_line(error)} Expected files that it can "
        f"read. Check the model and the data; --verbose shows where it happened."
    )


def machine_problem(error: BaseException) -> EnvironmentProblem | None:
    """Say that there is no memory, no disk or no permission; None where something else is wrong."""
    text, number = str(error), error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or any(each in text for each in _NO_MEMORY):
        return EnvironmentProblem(
            f"There was not enough memory: {last_line(error)} Expected room for the model and its "
            f"statistics. Close other programs, or take a smaller model."
        )
    if number in _DISK_FULL or _NO_SPACE in text:
        return EnvironmentProblem(
            f"The disk is full: {last_line(error)} Free some space, or set EDGELR_CACHE and --out "
            f"to another disk."
        )
    if number in _NOT_ALLOWED:
        return EnvironmentProblem(
            f"A file cannot be read or written: {last_line(error)} Change its permissions, or name "
            f"another place."
        )
    return None


def last_line(error: BaseException) -> str:
    """Read the last line of an error's text, which says most in those of many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1][:400] if lines else type(error).__name__
    if isinstance(error, KeyError):  # whose text is the key alone
        last = f"KeyError: {last}"
    return last if last.endswith((".", "!", "?")) else f"{last}."


def _missing(error: ImportError) -> EdgelrError | None:
    """Name the command that installs what cannot be imported; None for modules of edgelr."""
    found = _MISSING.search(str(error))
    named = (found["one"] or found["two"]).lower() if found else error.name or ""
    package = "torch" if named == "pytorch" else named.split(".")[0]
    if package in ("", "edgelr"):
        return None
    problem = "is not installed" if isinstance(error, ModuleNotFoundError) or found else (
        f"cannot be imported ({last_line(error).rstrip('.')})"
    )  # fmt: skip
    command = install_command(package)
    return EnvironmentProblem(f"The package {package} {problem}. Install it: {command}")


def install_command(package: str) -> str:
    """Spell the command that installs a package, by the name of its folder."""
    if package == "onnxruntime":
        return "pip install 'edgelr[cpu]' (to run bundles alone: pip install onnxruntime)"
    if package in EXTRAS:
        return f"pip install 'edgelr[{EXTRAS[package]}]'"
    return f"pip install {_WHEELS.get(package, package)}"


def version_of(*wheels: str) -> str:
    """Read the version of the first of some wheels that is installed; empty where none is."""
    from importlib.metadata import PackageNotFoundError, version  # slow, and the help needs none

    for wheel in wheels:
        try:
            return version(wheel)
        except PackageNotFoundError:
            continue
    return ""
