"""Tasks: what a loss says of the answers, and what the gate judges."""

from __future__ import annotations

from typing import get_args

import pytest
import transformers

from edgelr.core.tasks import TASKS, Loss, MetricName, decides_each_label
from edgelr.core.vocabulary import Task

every_task = pytest.mark.parametrize("task", TASKS.names())


def test_every_task_but_a_bare_graph_has_a_model_class() -> None:
    assert [name for name, each in TASKS.items() if not each.auto_class] == ["tensors"]
    assert {each.loss for _, each in TASKS.items()} == set(get_args(Loss))
    assert {each.metric for _, each in TASKS.items()} == set(get_args(MetricName))


@every_task
def test_the_class_that_loads_a_task_is_one_of_transformers(task: Task) -> None:
    name = TASKS.get(task).auto_class
    assert not name or hasattr(transformers, name)


@every_task
def test_perplexity_judges_what_writes_tokens_one_after_another(task: Task) -> None:
    writes = TASKS.get(task).answers_tokens and TASKS.get(task).loss != "mask_label"
    assert (TASKS.get(task).metric == "perplexity") == writes


@every_task
def test_a_task_has_one_loss_a_row_or_one_a_token(task: Task) -> None:
    traits = TASKS.get(task)
    assert not (traits.by_row and traits.answers_tokens)


def test_two_tasks_that_share_their_architectures_differ_by_what_they_read() -> None:
    """Text and sounds: the class that loads them tells, and never the architecture alone.

    A head that labels and one that gives a score differ by the number of their labels.
    """
    scores = [each for _, each in TASKS.items() if each.loss == "score"]
    named = [each for _, each in TASKS.items() if each.architecture and each not in scores]
    assert {each.architecture for each in scores} < {each.architecture for each in named}
    keys = {(each.architecture, each.auto_class) for each in named}
    assert len(keys) == len(named) > len({each.architecture for each in named})


@pytest.mark.parametrize(
    ("problem", "labels", "each"),
    [
        (None, 5, False),
        ("single_label_classification", 2, False),
        ("multi_label_classification", 2, True),
        ("regression", 1, True),
        (None, 1, True),
    ],
)
def test_labels_exclude_each_other_unless_they_are_said_not_to(
    problem: str | None, labels: int, each: bool
) -> None:
    assert decides_each_label(problem, labels) is each
