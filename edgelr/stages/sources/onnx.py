"""ONNX graphs: an ``.onnx`` file, without torch, or any torch module, which is traced once.

graph ─ samples ─ components (Grams, whitened SVD) ─ sensitivity ─ plan ─ split
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgelr.core.bundle import ExportBundle
from edgelr.core.measurement import Prediction
from edgelr.core.modality import TENSORS
from edgelr.core.plan import Budget, Plan
from edgelr.core.results import Parity
from edgelr.core.run import Run
from edgelr.core.settings import Settings
from edgelr.core.sites import LinearSite
from edgelr.core.vocabulary import Precision, WeightPrecision
from edgelr.device.latency import PhaseSize, Workload
from edgelr.device.profile import DeviceProfile
from edgelr.stages.source import SOURCES, SourceKind, Written
from edgelr.stages.staging import Staging
from edgelr.stages.subject import DenseExport

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgelr.stages.onnx.costs import GraphCosts, GraphPlanned
    from edgelr.stages.onnx.subject import GraphSubject


class GraphSource:
    """A graph, compressed by ONNX Runtime and numpy alone."""

    def subject(self, settings: Settings, device: DeviceProfile, run: Run) -> GraphSubject:
        """Open the graph and choose its inputs."""
        from edgelr.stages.onnx.subject import examine

        return examine(settings, device, run)

    def dense(self, subject: GraphSubject, run: Run) -> tuple[GraphSubject, DenseExport]:
        """Give the original graph as it was opened, compared with the file that was given."""
        del run
        from edgelr.stages.onnx.original import require_equal

        original = subject.original
        parity = require_equal(subject.given, original, subject.held_out)
        return subject, DenseExport(original.folder, original.model_path, original, parity)

    def dense_bundle(self, settings: Settings, run: Run) -> ExportBundle:
        """Write the original graph as a bundle, for no device."""
        from edgelr.stages.onnx.graph import open_graph
        from edgelr.stages.onnx.original import dense_bundle

        return dense_bundle(open_graph(settings.model, run).path, run)

    def costs(
        self, subject: GraphSubject, dense: DenseExport, run: Run, before: GraphPlanned | None
    ) -> GraphCosts:
        """Decompose the linears, and measure what each costs the outputs."""
        del dense, before
        from edgelr.stages.onnx.costs import graph_costs

        return graph_costs(subject, run)

    def budget(self, subject: GraphSubject, dense: DenseExport) -> Budget:
        """Add up the device's memory; what one run takes is measured."""
        del dense
        from edgelr.stages.onnx.costs import graph_budget

        return graph_budget(subject)

    def workload(self, subject: GraphSubject, bundle: ExportBundle) -> Workload:
        """List what the graph computes for a sample, which counts as one token."""
        del subject
        from edgelr.graph.workload import read_workload

        return read_workload(bundle.model_path, tokens=1)

    def prediction(
        self,
        subject: GraphSubject,
        dense: ExportBundle,
        bundle: ExportBundle,
        phases: list[PhaseSize],
        resident_bytes: int,
    ) -> Prediction | None:
        """Predict one run of both graphs on the device."""
        del phases
        from edgelr.stages.onnx.bundle import predicted_run

        before, after = self.workload(subject, dense), self.workload(subject, bundle)
        return predicted_run(subject, before, after, resident_bytes)

    def measured_loss(
        self, subject: GraphSubject, costs: GraphCosts, run: Run
    ) -> Callable[[Plan], float]:
        """Measure plans by the outputs of the graph with truncated weights."""
        del run
        from edgelr.stages.onnx.costs import measured_distance

        return measured_distance(subject, costs.weights)

    def write(self, made: GraphPlanned, place: Staging, run: Run) -> Written:
        """Split the planned linears, and write the graph."""
        from edgelr.stages.onnx.bundle import write_split_graph

        with run.time("graph"):
            return write_split_graph(made, place.bundle)

    def parity(self, made: GraphPlanned, written: Written, place: Staging) -> Parity:
        """Compare the split graph with its factors, multiplied out in the original graph."""
        from edgelr.stages.onnx.bundle import compare_with_factors

        return compare_with_factors(made, written, place)

    def baseline(
        self,
        subject: GraphSubject,
        dense: DenseExport,
        weights: WeightPrecision,
        values: Precision,
        run: Run,
    ) -> ExportBundle | None:
        """Give the original in its own precision; a graph is made in no other."""
        del values, run
        return dense.bundle if weights == subject.precision else None

    def require_one_graph(self, subject: GraphSubject, command: str) -> None:
        """Accept every graph: it is one."""

    def calibrated_on(self, subject: GraphSubject, dense: DenseExport, run: Run) -> tuple[str, ...]:
        """Name the inputs that calibrate, and how many."""
        del dense, run
        return (subject.calibrated_on,)

    def notes(self, made: GraphPlanned) -> tuple[str, ...]:
        """Say what the graph was calibrated on."""
        from edgelr.stages.onnx.bundle import sample_notes

        return sample_notes(made)

    def lock(self, made: GraphPlanned) -> dict[str, object]:
        """Name the graph and its inputs, with their hashes."""
        from edgelr.stages.onnx.bundle import origin

        return origin(made)

    def singular_values(
        self, settings: Settings, run: Run
    ) -> tuple[tuple[LinearSite, ...], Callable[[LinearSite], NDArray[np.float64]]]:
        """List the linears, and what computes the singular values of each."""
        from edgelr.stages.onnx.components import singular_values
        from edgelr.stages.onnx.graph import open_graph

        return singular_values(open_graph(settings.model, run).path)


def accepts(settings: Settings) -> bool:
    """Tell whether settings name an ``.onnx`` file, or ask for a module's tensors."""
    return settings.model.endswith(".onnx") or settings.task == TENSORS


SOURCES.register("onnx")(SourceKind(accepts, GraphSource, ("onnx_ir",)))
