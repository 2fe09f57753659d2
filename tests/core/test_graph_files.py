"""Names of graph files: one for a model, or two that are found from each other."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from edgelr.core.graph_files import BESIDE, encoder_beside, encoder_file, graph_file
from edgelr.core.tasks import TASKS
from edgelr.core.vocabulary import Precision, Task

every_task = pytest.mark.parametrize("task", get_args(Task))
every_precision = pytest.mark.parametrize("precision", get_args(Precision))


@every_task
@every_precision
def test_two_graphs_are_beside_each_other_where_a_task_has_two(
    task: Task, precision: Precision
) -> None:
    name, beside = graph_file(task, precision), encoder_file(task, precision)
    traits = TASKS.get(task)
    has_two = traits is not None and (traits.has_pairs or traits.matches)
    assert (beside is not None) == has_two
    assert beside != name
    folder = Path("bundle") / "onnx"
    assert encoder_beside(folder / name) == (None if beside is None else folder / beside)


@every_task
def test_a_precision_has_a_file_of_its_own(task: Task) -> None:
    full, half = (graph_file(task, each) for each in get_args(Precision))
    assert half == full.replace(".onnx", "_fp16.onnx") != full


def test_no_graph_is_beside_the_encoder_itself() -> None:
    assert [encoder_beside(Path(f"{stem}.onnx")) for stem in BESIDE.values()] == [None, None]
