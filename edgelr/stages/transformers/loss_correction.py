"""What the prediction makes of each kind of error, measured once: dropped components, rounding.

Errors of rounding are independent, and their losses add up as predicted. What truncation drops has
a direction, in which the errors of layers help each other: all-MiniLM-L6-v2 loses 3 times what is
predicted, and 1.15 times for rounding. A common factor would change no plan; where one kind can be
traded for the other, both are needed in one unit.
"""

from __future__ import annotations

import json
from pathlib import Path

from edgelr.compress.compressed_model import loss_increase
from edgelr.compress.spectra import SpectrumTable
from edgelr.compress.statistics import StatisticsStore
from edgelr.core.plan import Plan
from edgelr.core.run import Run
from edgelr.core.vocabulary import WeightPrecision
from edgelr.planning.search import smallest_within
from edgelr.stages.subject import make_search
from edgelr.stages.transformers.calibration_data import selection
from edgelr.stages.transformers.factorize import measured_loss
from edgelr.stages.transformers.subject import ModelSubject

TYPICAL: WeightPrecision = "int4"  # losses of fewer bits, everywhere, are beyond the prediction
LEAST_FACTOR = 0.1  # of a measured over a predicted loss: held-out text is a sample
_FILE = "factors.json"


def corrected(
    subject: ModelSubject,
    statistics: StatisticsStore,
    spectra: SpectrumTable,
    run: Run,
) -> SpectrumTable:
    """Scale the predictions of both kinds, by one measured plan for each.

    One plan rounds everything to int4, or to the lowest precision, the other drops components
    until the same loss is predicted. Both are measured on held-out text.
    """
    lowest = next((each for each in subject.weights if each == TYPICAL), subject.weights[-1])
    held_out = selection(subject)

    def write(folder: Path) -> None:
        whole = make_search(subject, spectra, (lowest,))
        rounding = whole.plan(whole.dense_bytes)
        floating = make_search(subject, spectra, (subject.precision,))
        dropping = smallest_within(floating, rounding.predicted_loss)
        increase = loss_increase(subject.model, held_out)

        def factor(plan: Plan) -> float:
            measured = measured_loss(subject, statistics, spectra, plan, increase)
            return measured / plan.predicted_loss if plan.predicted_loss else 1.0

        found = []
        for done, plan in enumerate((dropping, rounding), start=1):
            found.append(factor(plan))
            run.progress("correction", done, 2)
        (folder / _FILE).write_text(json.dumps(found))

    groups = [group.name for group in subject.planned_groups]
    parts = (
        spectra.folder.name, groups, subject.recipe.forms, subject.weights,
        subject.device.rank_multiple, held_out.key,
    )  # fmt: skip
    folder = run.stage("correction", parts, write)
    dropping, rounding = json.loads((folder / _FILE).read_text())
    run.note(
        f"Measured over predicted loss: {dropping:.2f} for dropped components, {rounding:.2f} for "
        f"weights in {lowest}. Plans are made with these factors."
    )
    return spectra.scaled(max(dropping, LEAST_FACTOR), max(rounding, LEAST_FACTOR))
