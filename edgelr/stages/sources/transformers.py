"""Models of transformers: of the Hub, a folder, a GGUF file or a factory, or in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgelr.core.bundle import ExportBundle
from edgelr.core.measurement import Prediction
from edgelr.core.plan import Budget, Plan
from edgelr.core.results import Parity
from edgelr.core.run import Run
from edgelr.core.settings import Settings
from edgelr.core.sites import LinearSite
from edgelr.core.vocabulary import LAYOUTS, Precision, WeightPrecision
from edgelr.device.latency import PhaseSize, Workload
from edgelr.device.profile import DeviceProfile
from edgelr.stages.source import DEFAULT, SOURCES, SourceKind, Written
from edgelr.stages.staging import Staging
from edgelr.stages.subject import DenseExport

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgelr.model.loaded import LoadedModel
    from edgelr.stages.transformers.subject import ModelCosts, ModelPlanned, ModelSubject


class ModelSource:
    """A model in torch. It is loaded once, and stays in memory as long as its source does.

    Args:
        model: loaded model; None loads the one that the settings name.
    """

    def __init__(self, model: LoadedModel | None = None) -> None:
        self._model = model

    def model(self, settings: Settings, run: Run) -> LoadedModel:
        """Load the model, if it is not loaded yet."""
        from edgelr.model.first_look import require_exportable

        if self._model is None:
            folder = Path(settings.model)
            if folder.is_dir():
                require_exportable(folder, settings.task)  # before torch is imported
            from edgelr.stages.transformers.subject import load_model

            self._model = load_model(settings, run)
        return self._model

    def subject(self, settings: Settings, device: DeviceProfile, run: Run) -> ModelSubject:
        """Load the model, and resolve the settings for it and a device."""
        model = self.model(settings, run)
        from edgelr.stages.transformers.subject import examine

        return examine(model, settings, device)

    def dense(self, subject: ModelSubject, run: Run) -> tuple[ModelSubject, DenseExport]:
        """Export the model as it is, or find the export; it is compared with torch."""
        from edgelr.stages.transformers.dense import as_exported, dense_export

        dense = dense_export(subject.model, run)
        return replace(subject, model=as_exported(subject.model, dense)), dense

    def dense_bundle(self, settings: Settings, run: Run) -> ExportBundle:
        """Export the model as it is, for no device."""
        from edgelr.stages.transformers.dense import dense_export

        return dense_export(self.model(settings, run), run).bundle

    def costs(
        self, subject: ModelSubject, dense: DenseExport, run: Run, before: ModelPlanned | None
    ) -> ModelCosts:
        """Calibrate, collect statistics and decompose."""
        from edgelr.stages.transformers.calibration_data import calibrate
        from edgelr.stages.transformers.cost_model import spectra, statistics
        from edgelr.stages.transformers.subject import ModelCosts

        with run.time("calibration text"):
            rows = before.costs.calibration if before else calibrate(subject, dense, run)
        with run.time("statistics"):
            store, key = statistics(subject, rows, run, before)
        with run.time("decomposition"):
            table = spectra(subject, (store, key), run, rows, before)
        return ModelCosts(rows, store, table)

    def budget(self, subject: ModelSubject, dense: DenseExport) -> Budget:
        """Compute the bytes that the device leaves for the planned weights."""
        from edgelr.device.budget import weight_budget
        from edgelr.stages.transformers.subject import fixed_residency

        return weight_budget(
            subject.device,
            subject.shape,
            fixed_residency(subject, dense),
            subject.context_tokens,
            subject.precision,
            subject.model.longest_text,
        )

    def workload(self, subject: ModelSubject, bundle: ExportBundle) -> Workload:
        """List what the graph that answers computes for every token."""
        from edgelr.graph.workload import read_workload

        image = subject.model.image
        return read_workload(bundle.model_path, None if image is None else image.tokens)

    def prediction(
        self,
        subject: ModelSubject,
        dense: ExportBundle,
        bundle: ExportBundle,
        phases: list[PhaseSize],
        resident_bytes: int,
    ) -> Prediction | None:
        """Predict the latency of both graphs on the device."""
        from edgelr.stages.transformers.report import predicted_latency

        return predicted_latency(subject, dense, bundle, phases, resident_bytes)

    def measured_loss(
        self, subject: ModelSubject, costs: ModelCosts, run: Run
    ) -> Callable[[Plan], float]:
        """Measure plans on the selection text, with factors as they are truncated and rounded."""
        del run
        from edgelr.compress.compressed_model import gate_increase
        from edgelr.stages.transformers.calibration_data import selection
        from edgelr.stages.transformers.factorize import measured_loss

        increase = gate_increase(subject.model, selection(subject))
        return lambda plan: measured_loss(subject, costs.statistics, costs.spectra, plan, increase)

    def write(self, made: ModelPlanned, place: Staging, run: Run) -> Written:
        """Make the factors, refined and healed as asked, and write the graph."""
        from edgelr.stages.transformers.bundle import write_bundle
        from edgelr.stages.transformers.factorize import make_factors

        with run.time("factors"):
            factored = make_factors(made, run)
        with run.time("graph"):
            return write_bundle(made, factored, place)

    def parity(self, made: ModelPlanned, written: Written, place: Staging) -> Parity:
        """Compare ONNX Runtime with the compressed model in torch."""
        del made
        from edgelr.stages.transformers.bundle import compare_with_torch

        return compare_with_torch(written, place)

    def baseline(
        self,
        subject: ModelSubject,
        dense: DenseExport,
        weights: WeightPrecision,
        values: Precision,
        run: Run,
    ) -> ExportBundle | None:
        """Export the original at full rank; convolutions in int8 and int4 have no kernel."""
        if weights in LAYOUTS and any(site.kernel for site in subject.sites):
            return None
        from edgelr.stages.transformers.baselines import dense_in

        return dense_in(subject.model, dense, weights, subject.device, run, values)

    def require_one_graph(self, subject: ModelSubject, command: str) -> None:
        """Refuse a model of two graphs, for a command that takes none of these."""
        from edgelr.stages.transformers.checks import require_one_graph

        require_one_graph(subject.model, command)

    def calibrated_on(self, subject: ModelSubject, dense: DenseExport, run: Run) -> tuple[str, ...]:
        """Name the texts that calibrate, and their tokens."""
        from edgelr.stages.transformers.calibration_data import calibrate

        rows = calibrate(subject, dense, run)
        return tuple(f"{each.description} ({each.tokens:,} tokens)" for each in rows)

    def notes(self, made: ModelPlanned) -> tuple[str, ...]:
        """Say what the model was calibrated on."""
        from edgelr.stages.transformers.report import calibration_notes

        return calibration_notes(made)

    def lock(self, made: ModelPlanned) -> dict[str, object]:
        """Name the model and its calibration, with their hashes."""
        from edgelr.stages.transformers.report import origin

        return origin(made)

    def singular_values(
        self, settings: Settings, run: Run
    ) -> tuple[tuple[LinearSite, ...], Callable[[LinearSite], NDArray[np.float64]]]:
        """List the linears, and what computes the singular values of each."""
        from edgelr.model.sites import singular_values

        model = self.model(settings, run)
        return model.sites, lambda site: singular_values(model, site.name)


SOURCES.register(DEFAULT)(
    SourceKind(lambda _: True, ModelSource, ("torch", "transformers", "onnx_ir"))
)
