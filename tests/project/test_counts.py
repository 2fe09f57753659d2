"""The structure of the repository in numbers: files, functions and names stay small and few."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.project.test_layers import FRONT, ROOMS

MOST_ROOMS = 12
MOST_LINES = {"edgelr": 300, "exporters": 300, "tests": 500}  # of a file
MOST_BODY_LINES = 40  # of a function, without its signature and its docstring
MOST_MODALITY_QUESTIONS = 30  # places that ask what kind of model this is
MOST_PARAMETERS = 7  # of a function, without self and cls; a command has one for every option
COMMAND_LINE = "edgelr/cli"
SNIPPETS = "edgelr/report/snippets"  # programs for users: text here, not part of the engine

WITHOUT_OWN_TEST = {
    "edgelr/__main__.py": "it calls the command line: tests/cli run it as users do",
    "edgelr/core/dimensions.py": "fields alone: tests/model/test_dimensions.py checks their values",
    "edgelr/core/report.py": "fields alone: tests/report/test_schema.py writes and reads them all",
    "edgelr/pytest_plugin.py": "tests/stages/test_bundle_tests.py runs it in a pytest of its own",
    "edgelr/report/charts.py": "fields alone: tests/report/test_drawings.py fills them",
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules(top: str) -> dict[str, ast.Module]:
    """Parse every file below a folder, by its path."""
    paths = sorted((ROOT / top).rglob("*.py"))
    names = [path.relative_to(ROOT).as_posix() for path in paths]
    return {name: ast.parse((ROOT / name).read_text(encoding="utf-8")) for name in names}


def engine() -> dict[str, ast.Module]:
    files = {**modules("edgelr"), **modules("exporters")}
    return {name: tree for name, tree in files.items() if not name.startswith(SNIPPETS)}


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Count the lines of a body, with the functions inside it and without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return 0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1


def parameters(function: Function) -> int:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    named += [each for each in (given.vararg, given.kwarg) if each is not None]
    return sum(each.arg not in ("self", "cls") for each in named)


def defines(tree: ast.Module) -> bool:
    """Whether a file has classes or functions of its own, and not names of others alone."""
    return any(isinstance(node, Function | ast.ClassDef) for node in tree.body)


def test_there_are_few_rooms() -> None:
    found = {path.parent.name for path in (ROOT / "edgelr").glob("*/__init__.py")}
    assert found - {"exporters"} == set(ROOMS)  # the catalogue lies beside the rooms
    assert len(ROOMS) <= MOST_ROOMS


@pytest.mark.parametrize("top", MOST_LINES)
def test_no_file_is_long(top: str) -> None:
    files = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / top).rglob("*.py")}
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in files.items()}
    limit = MOST_LINES[top]
    long = {name: count for name, count in lines.items() if count > limit}
    assert {name for name in long if long[name] > limit} == set()


def test_no_function_is_long() -> None:
    long = {
        f"{name}: {each.name}": body_lines(each)
        for name, tree in engine().items()
        for each in functions(tree)
        if body_lines(each) > MOST_BODY_LINES
    }
    assert long == {}


def test_no_function_has_many_parameters() -> None:
    many = {
        f"{name}: {each.name}": parameters(each)
        for name, tree in engine().items()
        if not name.startswith(COMMAND_LINE)
        for each in functions(tree)
        if parameters(each) > MOST_PARAMETERS
    }
    assert many == {}


MODALITY_FILES = (  # where such questions have their answers
    "edgelr/core/modality.py",
    "edgelr/model/losses/",
    "edgelr/stages/transformers/rows/",
    "edgelr/runtime/runners/",
    "edgelr/runtime/reference_tests/",
)
MODALITY_QUESTION = re.compile(
    r"\b(image|sound|matching|prompts|mask_token|encoder_path) is (not )?None"
    r"|isinstance\([^)]*(SourceAndTarget|Runner)\b"
    r"|\b(task|modality) (==|!=|in|not in) (\(|\"|[A-Z])"
)


def test_few_places_ask_for_a_modality() -> None:
    """What differs between modalities is looked up by name, in the registries."""
    asking = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / "edgelr").rglob("*.py")
        if not path.relative_to(ROOT).as_posix().startswith((*MODALITY_FILES, SNIPPETS))
        for line in path.read_text(encoding="utf-8").splitlines()
        if MODALITY_QUESTION.search(line)
    ]
    assert len(asking) <= MOST_MODALITY_QUESTIONS, asking


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, tree in engine().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    shared = {name: found for name, found in places.items() if len(found) > 1}
    assert shared == {}


# --- a test file for every module ----------------------------------------------------------------


def homes(module: str) -> list[Path]:
    """Where the tests of a module may be: of ``methods/svd`` also those of ``methods``."""
    top, *parts = Path(module).with_suffix("").parts
    assert top == "edgelr"
    if parts[-1] == "__init__":
        parts = parts[:-1]
        parts *= 2 if len(parts) == 1 else 1  # of the room ``cli`` itself: ``tests/cli/test_cli``
    if not parts:  # the package itself
        return [ROOT / "tests" / "project" / "test_api.py"]
    if len(parts) == 1:  # beside the rooms
        return list((ROOT / "tests").glob(f"*/test_{parts[0]}.py"))
    room, *inside = parts
    names = ["_".join(inside), *(["_".join(inside[:-1])] if len(inside) > 1 else [])]
    return [ROOT / "tests" / room / f"test_{name}.py" for name in names]


def test_a_room_itself_is_tested_in_a_file_of_its_name() -> None:
    assert homes("edgelr/cli/__init__.py") == [ROOT / "tests/cli/test_cli.py"]
    assert homes("edgelr/compress/methods/__init__.py") == [ROOT / "tests/compress/test_methods.py"]


def untested() -> set[str]:
    return {
        name
        for name, tree in modules("edgelr").items()
        if not name.startswith(SNIPPETS)
        if defines(tree) or not name.endswith("__init__.py")
        if not any(path.is_file() for path in homes(name))
    }


def test_every_module_has_a_test_file_of_its_name() -> None:
    assert untested() - WITHOUT_OWN_TEST.keys() == set()


def test_what_has_no_test_file_has_a_reason() -> None:
    assert WITHOUT_OWN_TEST.keys() <= untested()
    assert len(WITHOUT_OWN_TEST) <= 15
    assert all(len(reason) > 20 for reason in WITHOUT_OWN_TEST.values())


def test_every_room_has_tests_and_every_folder_of_tests_a_room() -> None:
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders - {"exporters", "project", "real"} == set(ROOMS)
    assert not FRONT.keys() & folders
