"""Two kinds of error in one unit: what a corrected prediction says is what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from edgelr.compress.compressed_model import loss_increase
from edgelr.compress.spectra import SpectrumTable
from edgelr.compress.statistics import StatisticsStore
from edgelr.core.cache import Cache
from edgelr.core.plan import Plan
from edgelr.core.run import Run
from edgelr.device.profile import load_profile
from edgelr.model.loaded import LoadedModel
from edgelr.planning.allocate import Search
from edgelr.planning.search import smallest_within
from edgelr.stages.subject import make_search
from edgelr.stages.transformers import calibration_data
from edgelr.stages.transformers.calibration_data import selection
from edgelr.stages.transformers.cost_model import spectra, statistics
from edgelr.stages.transformers.factorize import measured_loss
from edgelr.stages.transformers.loss_correction import LEAST_FACTOR, corrected
from edgelr.stages.transformers.subject import ModelSubject, examine
from tests.conftest import random_rows
from tests.helpers.run_exports import Recorder, quick_settings

FEW = 1024  # tokens that plans are measured on
WEIGHTS = ("float32", "int4")


@dataclass(frozen=True)
class Priced:
    """An encoder that may have int4 beside float32, and its losses as they are predicted.

    What a tiny decoder loses on text that it never learned may have either sign.
    """

    subject: ModelSubject
    statistics: StatisticsStore
    spectra: SpectrumTable
    cache: Cache

    def corrected(self, run: Run | None = None) -> SpectrumTable:
        run = run or Run(self.cache, Recorder())
        return corrected(self.subject, self.statistics, self.spectra, run)

    def measured(self, plan: Plan) -> float:
        increase = loss_increase(self.subject.model, selection(self.subject))
        return measured_loss(self.subject, self.statistics, self.spectra, plan, increase)

    def searches(self, table: SpectrumTable) -> tuple[Search, Search]:
        """Searches that only drop components, and that only round."""
        dropping, rounding = (make_search(self.subject, table, (each,)) for each in WEIGHTS)
        return dropping, rounding


@pytest.fixture(scope="module")
def priced(tiny_encoder: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Priced]:
    cache, texts = Cache(tmp_path_factory.mktemp("cache")), [random_rows(tiny_encoder, 16, 16)]
    settings = quick_settings(tiny_encoder.folder, precision="int4")  # which alone is not corrected
    subject, run = examine(tiny_encoder, settings, load_profile("generic-cpu")), Run(cache)
    store, key = statistics(subject, texts, run)
    plain = spectra(subject, (store, key), run, texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration_data, "SELECTION_TOKENS", FEW)
        yield Priced(replace(subject, weights=WEIGHTS), store, plain, cache)


def test_a_corrected_prediction_is_what_was_measured_of_either_kind(priced: Priced) -> None:
    dropping, rounding = priced.searches(priced.spectra)
    coarse = rounding.plan(rounding.dense_bytes)
    small = smallest_within(dropping, coarse.predicted_loss)
    found = priced.corrected()
    for plan, search in zip((small, coarse), priced.searches(found), strict=True):
        again = search.plan(plan.budget_bytes)
        assert [site.candidate.rank for site in again.sites] == [
            site.candidate.rank for site in plan.sites
        ]
        assert again.predicted_loss == pytest.approx(priced.measured(plan), rel=1e-6)
        assert again.predicted_loss != pytest.approx(plan.predicted_loss, rel=0.01)


def test_each_kind_is_scaled_by_one_factor_everywhere(priced: Priced) -> None:
    found, plain = priced.corrected(), priced.spectra
    inside = {name: (loss > 0) & np.isfinite(loss) for name, loss in plain.loss.items()}
    dropped = np.concatenate(
        [found.loss[name][where] / plain.loss[name][where] for name, where in inside.items()]
    )
    rounded = np.array(
        [found.quantized[name]["int4"].dense / each["int4"].dense
         for name, each in plain.quantized.items()]
    )  # fmt: skip
    for factors in (dropped, rounded):
        np.testing.assert_allclose(factors, factors[0], rtol=1e-6)
    assert dropped[0] != pytest.approx(rounded[0], rel=0.01)


def test_factors_are_told_and_measured_once(priced: Priced, tmp_path: Path) -> None:
    own, told = replace(priced, cache=Cache(tmp_path)), []
    for worked in (True, False):
        recorder = Recorder()
        own.corrected(Run(own.cache, recorder))
        assert ("correction" in recorder.stages) == worked
        told.append(recorder.notes)
    ((note,), again) = told
    assert again == [note]
    (folder,) = tmp_path.iterdir()
    dropping, rounding = json.loads((folder / "factors.json").read_text())
    assert note == (
        f"Measured over predicted loss: {dropping:.2f} for dropped components, {rounding:.2f} for "
        f"weights in int4. Plans are made with these factors."
    )


def test_a_loss_that_falls_is_no_reason_to_drop_everything(priced: Priced, tmp_path: Path) -> None:
    """A factor of held-out text may be below zero by chance; no plan is made with it."""
    own = replace(priced, cache=Cache(tmp_path))
    own.corrected()
    (folder,) = tmp_path.iterdir()
    (folder / "factors.json").write_text("[-0.5, 0.01]")
    found, (name, *_) = own.corrected(), priced.spectra.loss
    np.testing.assert_allclose(found.loss[name], LEAST_FACTOR * priced.spectra.loss[name])
    rounded, before = (each.quantized[name]["int4"].dense for each in (found, priced.spectra))
    assert rounded == pytest.approx(LEAST_FACTOR * before)
