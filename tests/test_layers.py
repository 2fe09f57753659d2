"""Imports point one way, heavy libraries have one door, and only reports and the CLI print."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The examples of the model card run without edgelr: they are text here, not part of the engine.
SNIPPETS = "edgelr/report/snippets/"
LAYERS = (
    "errors types tasks factors blocks registry cache settings text clock samples intervals",
    "exporter machine device files generation silence truths listings images sounds prompts",
    "processors modules convolutions grams padding",
    "sources",
    "load shapes sites calibration losses targets statistics texts gate",
    "methods sharing forms",
    "storage candidates",
    "allocators recipes",
    "spectra",
    "decompose budget latency allocate plans search compressed",
    "heal refit quantization table expected",
    "importance",
    "derivatives",
    "rescale",
    "graph runtime evaluators",
    "report",
    "planning refusals material",
    "aims costs factoring rivals correction",
    "workplace",
    "delivery regression reporting",
    "pipeline inspection onnx_source",
    "recheck catalogue bench sweep detect",
    "cli __main__ pytest_plugin lm_eval",
)
LAYER = {name: depth for depth, names in enumerate(LAYERS) for name in names.split()}
DOORS = {
    "onnx": "graph",
    "onnx_ir": "graph",
    "onnxscript": "graph",
    "onnxruntime": "runtime blocks",
    "onnxruntime_genai": "runtime",
    "optimum": "shapes exporters",
    "peft": "heal",
    "torch": (
        "factors load sources processors sites losses statistics methods sharing forms spectra "
        "decompose compressed expected refit heal importance quantization table rescale "
        "derivatives factoring rivals inspection modules convolutions exporters targets"
    ),
    "PIL": "images",
    "transformers": "load sources processors exporters",
    "sacrebleu": "evaluators",
    "lm_eval": "lm_eval",
    "typer": "cli",
    "rich": "cli report",
    "matplotlib": "report",
}


def part(path: str) -> str:
    """Name the layer member of a file: ``edgelr/graph/fuse.py`` is ``graph``."""
    parts = Path(path).with_suffix("").parts
    return parts[1] if parts[0] == "edgelr" else parts[0]


@cache
def sources() -> dict[str, ast.Module]:
    """Parse every file of the engine and the catalogue, by path from the root."""
    paths = [path for top in ("edgelr", "exporters") for path in (ROOT / top).rglob("*.py")]
    names = {path.relative_to(ROOT).as_posix(): path for path in sorted(paths)}
    return {
        name: ast.parse(path.read_text(encoding="utf-8"))
        for name, path in names.items()
        if not name.startswith(SNIPPETS)
    }


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(node: ast.AST) -> Iterator[str]:
    """List the dotted names that run-time imports reach, inside functions too."""
    for child in ast.iter_child_nodes(node):
        if is_for_types_only(child):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        yield from imports(child)


@cache
def edges() -> tuple[tuple[str, str, str], ...]:
    """List ``(file, its part, imported dotted name)``."""
    return tuple(
        (path, part(path), name) for path, tree in sources().items() for name in imports(tree)
    )


def engine_part(name: str) -> str | None:
    """Name the part of the engine that an import reaches, if it reaches one."""
    found = re.match(r"edgelr\.(?!__)(\w+)", name)
    return found[1] if found else None


def test_every_module_has_a_layer() -> None:
    parts = {part(path) for path in sources()} - {"__init__", "exporters"}
    assert sorted(parts - LAYER.keys()) == [], "name the new modules in LAYERS"


def test_imports_point_one_way() -> None:
    wrong = [
        f"{path} imports {name}"
        for path, own, name in edges()
        if own in LAYER and (other := engine_part(name)) and LAYER.get(other, 0) > LAYER[own]
    ]
    assert wrong == []


def test_graph_and_runtime_never_import_each_other() -> None:
    pairs = {(own, engine_part(name)) for _, own, name in edges()}
    assert not pairs & {("graph", "runtime"), ("runtime", "graph")}


def test_the_engine_knows_no_catalogue_and_the_catalogue_only_values() -> None:
    highest = LAYER["exporter"]
    for path, own, name in edges():
        if own != "exporters":
            assert name.split(".")[0] != "exporters", f"{path} imports {name}"
        elif other := engine_part(name):
            assert LAYER[other] <= highest, f"{path} imports {name}"


@pytest.mark.parametrize("library", sorted(DOORS))
def test_heavy_libraries_have_one_door(library: str) -> None:
    doors = DOORS[library].split()
    users = {path: own for path, own, name in edges() if name.split(".")[0] == library}
    assert [path for path, own in users.items() if own not in doors] == []


def test_only_reports_and_the_command_line_print() -> None:
    printing = [
        path
        for path, tree in sources().items()
        if part(path) not in ("cli", "report")
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
