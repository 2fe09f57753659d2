"""What was proven for every family and task, in writing: docs/families.md.

``python -m tests.helpers.tiny_models`` holds every family to the contract of
tests/exporters/test_exporters.py, for every task that it declares, and writes the file again, after
a family or a task was added. With names of families, it measures those and keeps the other rows.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import torch

from edgelr.compress.compressed_model import installed
from edgelr.core.cache import Cache
from edgelr.core.run import Run
from edgelr.core.vocabulary import Task
from edgelr.model.exporter import EXPORTERS
from edgelr.model.load import load
from edgelr.model.loaded import LoadedModel
from edgelr.stages.subject import DenseExport
from edgelr.stages.transformers.dense import dense_export
from tests.conftest import write_tiny
from tests.helpers.method_contract import (
    LIMIT,
    errors,
    factors_of,
    fusions,
    longest_error,
    steps_error,
    write_graph,
)
from tests.helpers.paths import ROOT
from tests.helpers.run_exports import CASES, Recorder

TABLE = ROOT / "docs" / "families.md"
INTRODUCTION = """# What is proven for every family

Written by `python -m tests.helpers.tiny_models`, which does what
`tests/exporters/test_exporters.py` does: it makes a small model with random weights of every
family, for every task that the family declares, exports it, and compares ONNX Runtime with torch.
The figures are the largest differences of all outputs, in float32; none may be above 1e-4.
[models.md](models.md) has the model types and examples.

| column | what is compared |
|:--|:--|
| tests | which of the tests it is in: `quick` and `breadth` run in CI, `slow` on demand |
| dense | the exported graph, and the model |
| full rank | the graph in which every linear is two products of full rank, and the model |
| half rank | the graph of half of the ranks, every second linear with pivots, and that model |
| padded | batches with a padded text; of decoders also token by token, beside a longer text |
| sizes | one token, three longer texts, the longest text; graphs are traced with two short ones |
| fused | ONNX Runtime's own operators in the dense graph; the factorized one has as many |

An image or a sound is never padded and has one size: its `sizes` are one of them, and three.

| family | task | tests | dense | full rank | half rank | padded | sizes | fused |
|:--|:--|:--|--:|--:|--:|--:|--:|:--|
"""
Ran = Literal["quick", "breadth", "slow"]


@dataclass(frozen=True)
class Case:
    """A family, a task, and in which of the tests they are."""

    family: str
    task: Task
    ran: Ran

    @property
    def words(self) -> str:
        return f"| `{self.family}` | {self.task} | {self.ran} |"


def declared() -> set[tuple[str, Task]]:
    """List every family with every task that it declares."""
    return {(family, task) for family, each in EXPORTERS.items() for task in each.tasks}


def cases() -> list[Case]:
    """List what the contract tests run on."""
    return [_case(each) for each in CASES]


def _case(given: Any) -> Case:
    name, marks = (given, ()) if isinstance(given, str) else (given.values[0], given.marks)
    family, _, task = name.partition(":")
    (ran,) = [mark.name for mark in marks if mark.name in get_args(Ran)] or ["quick"]
    return Case(family, task or EXPORTERS.get(family).tasks[0], ran)


def rows() -> dict[str, str]:
    """Read the rows that are there, by their first columns."""
    found = re.findall(r"^((\| `\w+` \| [\w-]+ \| \w+ \|).*)$", TABLE.read_text("utf-8"), re.M)
    return {words: row for row, words in found}


def figures(row: str) -> list[float]:
    """Read the figures of a row."""
    return [float(cell) for cell in re.findall(r" (\de[+-]\d+) ", row)]


def measured(case: Case) -> str:
    """Hold a family to its contract; return its row.

    Raises:
        AssertionError: it does not keep it.
    """
    name = None if case.task == EXPORTERS.get(case.family).tasks[0] else case.task
    with TemporaryDirectory() as temporary:
        folder, cache = Path(temporary), Cache(Path(temporary) / "cache")
        model = load(str(write_tiny(folder / "model", case.family, name)), cache)
        found, fused = _compared(model, dense_export(model, Run(cache, Recorder())), folder)
    assert max(found) <= LIMIT, (case, found)
    cells = [f"{each:.0e}" for each in found]
    if model.matching is None and (model.image or model.sound):
        cells[3] = "–"
    operators = ", ".join(f"{name} {count}" for name, count in sorted(fused.items()))
    return f"{case.words} {' | '.join(cells)} | {operators or '–'} |"


def _compared(
    model: LoadedModel, dense: DenseExport, folder: Path
) -> tuple[list[float], Counter[str]]:
    """Measure the columns of figures, and count the fused operators."""
    plain, half = dense.bundle.model_path, factors_of(model, 0.5)
    graphs = [
        errors(model, plain),
        errors(model, write_graph(model, dense, factors_of(model, 1), folder)),
    ]
    small = write_graph(model, dense, half, folder)
    with installed(model.module, half):
        graphs.append(errors(model, small))
    assert fusions(small) == fusions(plain), model.source
    padded = [each.pop("padded") for each in graphs]
    sizes = [max(each.values()) for each in graphs]
    found = [max(pair) for pair in zip(padded, sizes, strict=True)]
    if model.task == "text-generation":
        padded.append(steps_error(model, dense))
    return [*found, max(padded), max(*sizes, longest_error(model, plain))], fusions(plain)


def table(families: list[str]) -> str:
    """Write the document, with a process for every core; without families, measure all."""
    ordered = sorted(cases(), key=lambda each: (each.task, each.family))
    asked = [each for each in ordered if not families or each.family in families]
    workers = ProcessPoolExecutor(
        mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )
    with workers:
        new = zip(asked, workers.map(measured, asked), strict=True)
        found = rows() | {case.words: row for case, row in new}
    return INTRODUCTION + "".join(
        f"{found[each.words]}\n" for each in ordered if each.words in found
    )


if __name__ == "__main__":
    TABLE.write_text(table(sys.argv[1:]), encoding="utf-8")
