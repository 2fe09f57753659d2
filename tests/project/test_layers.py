"""The rooms of edgelr, bottom to top: a room imports only from rooms before it, without circles.

Heavy libraries have one door, and only reports and the command line print.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name

import pytest

from tests.helpers.paths import ROOT

ROOMS = {
    "core": "Words, errors, values, settings, registry, cache.",
    "data": "Texts, images, audio, labels: read and tokenized.",
    "device": "What a device has, and what anything costs there.",
    "model": "A torch model in memory: loaded, its linears named, run.",
    "compress": "Statistics, decomposition and rounding, factors, refit and healing.",
    "planning": "Candidates, allocators, the search for a plan that fits.",
    "graph": "Everything that knows ONNX: graphs opened, their linears split, weights stored.",
    "runtime": "Everything that knows ONNX Runtime: accuracy, latency, memory and its cap.",
    "report": "Results, for machines and people.",
    "stages": "The steps of an export, each cached: texts chosen, costs found, bundles written.",
    "commands": "The work of every other command: bench, sweep, inspect, validate, detect, list.",
    "cli": "The command line: typer, and nothing else.",
}
DEPTH = {name: depth for depth, name in enumerate(ROOMS)}
FRONT = {  # files beside the rooms, by the last room that they may import
    "__init__": "commands",
    "api": "commands",
    "pipeline": "stages",
    "pytest_plugin": "commands",
    "lm_eval": "commands",
    "__main__": "cli",
}
# The examples of the model card run without edgelr: they are text here, not part of the engine.
SNIPPETS = "edgelr/report/snippets/"
# The files of exporters/, as they are imported, and the module that they may, beside core.
CATALOGUE = "edgelr.exporters"
DECLARATION = "edgelr.model.exporter"
# Rooms, or single modules, that may import a heavy library.
DOORS = {
    "onnx": "graph",
    "onnx_ir": "graph",
    "onnxruntime": "runtime compress.block_quantized",  # packs as it reads
    "optimum": "model exporters",
    "gguf": "model",
    "peft": "compress model.checkpoints.adapters",
    "torch": "model compress exporters stages.transformers.factorize stages.transformers.baselines",
    "PIL": "data",
    "soundfile": "data",
    "transformers": "model exporters",
    "sacrebleu": "runtime",
    "lm_eval": "lm_eval",
    "typer": "cli",
    "rich": "cli report",
    "matplotlib": "report",
}


@cache
def sources() -> dict[str, ast.Module]:
    """Parse every file of the engine and the catalogue, by its dotted name."""
    paths = [path for top in ("edgelr", "exporters") for path in (ROOT / top).rglob("*.py")]
    names = [path.relative_to(ROOT).as_posix() for path in sorted(paths)]
    return {
        dotted(name): ast.parse((ROOT / name).read_text(encoding="utf-8"))
        for name in names
        if not name.startswith(SNIPPETS)
    }


def dotted(path: str) -> str:
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return f"edgelr.{name}" if name.split(".")[0] == "exporters" else name


def in_catalogue(name: str) -> bool:
    return f"{name}.".startswith(f"{CATALOGUE}.")


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(node: ast.AST, inside_functions: bool = True) -> Iterator[str]:
    """List the dotted names that run-time imports reach; relative ones begin with a dot."""
    for child in ast.iter_child_nodes(node):
        if is_for_types_only(child):
            continue
        if isinstance(child, ast.FunctionDef) and not inside_functions:
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = "." * child.level + (f"{child.module}." if child.module else "")
            yield from (f"{module}{alias.name}" for alias in child.names)
        yield from imports(child, inside_functions)


def module_of(name: str) -> str:
    """Name the module of a dotted name: ``edgelr.core.cache.digest`` is ``edgelr.core.cache``."""
    while name and name not in sources():
        name = name.rpartition(".")[0]
    return name


@cache
def edges() -> tuple[tuple[str, str], ...]:
    """List ``(module, imported dotted name)``."""
    return tuple(
        (name, resolve_name(reached, name.rpartition(".")[0]))
        for name, tree in sources().items()
        for reached in imports(tree)
    )


def room(name: str) -> str:
    """Name the room of a module, or the file beside the rooms; ``exporters`` is one more."""
    return [*name.split("."), "__init__"][1]


def depth(name: str) -> int:
    return DEPTH[FRONT.get(room(name), room(name))]


def test_every_module_is_in_a_room() -> None:
    found = {room(name) for name in sources()} - {"exporters"}
    assert found == {*ROOMS, *FRONT}
    assert len(ROOMS) <= 12


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_says_what_is_in_it(name: str) -> None:
    said = ast.get_docstring(sources()[f"edgelr.{name}"]) or ""
    assert said.split("\n")[0] == ROOMS[name]


def test_a_room_imports_only_from_rooms_before_it() -> None:
    wrong = [
        f"{name} imports {reached}"
        for name, reached in edges()
        if not in_catalogue(name) and module_of(reached).startswith("edgelr.")
        if depth(module_of(reached)) > depth(name)
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {name: set() for name in sources()}
    for name, reached in edges():
        if (other := module_of(reached)) and not name.startswith(f"{other}."):
            graph[name].add(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_graph_and_runtime_never_import_each_other() -> None:
    pairs = {(room(name), room(reached)) for name, reached in edges() if module_of(reached)}
    assert not pairs & {("graph", "runtime"), ("runtime", "graph")}


def test_the_catalogue_is_imported_under_one_name() -> None:
    assert [name for name, reached in edges() if reached.split(".")[0] == "exporters"] == []


def test_the_engine_knows_no_catalogue_and_the_catalogue_only_values() -> None:
    for name, reached in edges():
        other = module_of(reached)
        if not in_catalogue(name):
            assert not in_catalogue(other), f"{name} imports {reached}"
        elif other:
            known = in_catalogue(other) or other.startswith("edgelr.core.") or other == DECLARATION
            assert known, f"{name} imports {reached}"


@pytest.mark.parametrize("library", sorted(DOORS))
def test_heavy_libraries_have_one_door(library: str) -> None:
    doors = DOORS[library].split()
    users = {name for name, reached in edges() if reached.split(".")[0] == library}
    assert users, f"nothing imports {library}: its door can go"
    places = {name: (room(name), name.removeprefix("edgelr.")) for name in users}
    assert [name for name, place in places.items() if not {*place} & {*doors}] == []


def test_only_reports_and_the_command_line_print() -> None:
    printing = [
        name
        for name, tree in sources().items()
        if room(name) not in ("cli", "report")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]
    assert printing == []


def test_help_imports_no_heavy_library() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "edgelr", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, flags=re.MULTILINE))
    assert imported
    assert not imported & {"torch", "transformers", "onnx", "onnxruntime"}
