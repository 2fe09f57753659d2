"""Modalities: task and input name one, and all that is keyed by it is there."""

from __future__ import annotations

import pytest

from edgelr.core.errors import InputError
from edgelr.core.modality import MODALITIES, TENSORS, modality_of
from edgelr.core.tasks import TASKS
from edgelr.model.losses import LOSSES
from edgelr.report.usage import USAGES
from edgelr.runtime.runners import RUNNERS
from edgelr.stages.transformers.rows import ROWS

every_modality = pytest.mark.parametrize("name", MODALITIES.names())


def test_every_task_belongs_to_a_modality() -> None:
    assert {task for _, each in MODALITIES.items() for task in each.tasks} == set(TASKS.names())


@every_modality
def test_a_modality_has_a_runner_and_a_program_for_each_of_its_tasks(name: str) -> None:
    assert RUNNERS.get(name)
    assert set(USAGES.get(name)) == set(MODALITIES.get(name).tasks)


@every_modality
def test_a_modality_of_models_has_losses_and_rows(name: str) -> None:
    if name != TENSORS:  # a graph has no model in torch
        assert LOSSES.get(name)
        assert ROWS.get(name)


@every_modality
def test_task_and_input_lead_back_to_the_modality(name: str) -> None:
    modality = MODALITIES.get(name)
    assert {modality_of(task, modality.main_input) for task in modality.tasks} == {name}


def test_an_input_that_no_modality_of_the_task_reads_is_refused() -> None:
    with pytest.raises(InputError, match=r"Expected one of: pixel_values, input_ids"):
        modality_of("feature-extraction", "point_clouds")
