"""What is compressed, for what device, on which inputs: everything before any computation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgelr.core.bundle import ExportBundle
from edgelr.core.cache import digest
from edgelr.core.dimensions import ModelShape
from edgelr.core.errors import InputError
from edgelr.core.modality import TENSORS
from edgelr.core.run import Run
from edgelr.core.settings import Settings
from edgelr.core.sites import LinearSite, SiteGroup
from edgelr.core.vocabulary import Precision, Task
from edgelr.data.tensors import (
    GraphInput,
    Samples,
    count,
    feeds,
    random_samples,
    read_samples,
    take,
    write_samples,
)
from edgelr.device.latency import PhaseSize
from edgelr.device.profile import DeviceProfile
from edgelr.graph.inputs import read_inputs
from edgelr.graph.linears import Linears, find_linears
from edgelr.graph.open import open_foreign
from edgelr.graph.workload import read_positions
from edgelr.planning.recipes import Recipe
from edgelr.runtime.runners.tensors import open_tensors
from edgelr.stages.onnx.graph import open_graph
from edgelr.stages.onnx.original import dense_bundle, digest_of, in_one_precision
from edgelr.stages.subject import Subject

SELECTED = 0.25  # share of the deciding samples that judge plans while they are made
RANDOM = "random inputs"
RANDOM_NOTE = (
    "No inputs were given: they were drawn at random from the shapes of the graph. The accuracy on "
    "real inputs is another one; give some with --calibration."
)
NAMED = 10  # linears that are left, in a note
RECIPE = Recipe(
    name="onnx",
    grouping="one",
    method="svd_llm",
    allocator="lagrangian",
    forms=("dense", "low_rank"),
    summary="Whitened SVD; ranks by the measured effect of every linear on the outputs.",
)
FOREIGN = (
    "recipe", "grouping", "method", "allocator", "calibration_tokens",
    "calibration_length", "context_tokens", "rounds", "heal_steps", "heal_minutes", "heal_sites",
    "heal_adapter", "labels", "revision", "trust_remote_code",
)  # fmt: skip


NO_SIZES = ModelShape(0, 0, 0, 0, 0, 0, 0)  # a graph has products and nodes, and no known layers


@dataclass(frozen=True)
class GraphSubject(Subject):
    """A graph that came from anywhere, and what to do with it.

    Attributes:
        given: graph file as it was given.
        original: graph as a bundle.
        linears: linears of the graph; those of another precision are refused.
        calibration: inputs whose Grams whiten the weights.
        selection: inputs on which linears and plans are judged while the plan is made.
        held_out: inputs on which the result is judged.
        calibrated_on: name of the inputs that calibrate and select.
        held_out_name: name of the inputs that judge.
        drawn: whether the inputs are random.
    """

    given: Path
    original: ExportBundle
    linears: Linears
    calibration: Samples
    selection: Samples
    held_out: Samples
    calibrated_on: str
    held_out_name: str
    drawn: bool

    @property
    def task(self) -> Task:
        return TENSORS

    @property
    def digest(self) -> str:
        return self.original.manifest.digest

    @property
    def sites(self) -> tuple[LinearSite, ...]:
        return tuple(group.sites[0] for group in self.groups)

    @property
    def runs(self) -> list[PhaseSize]:
        return [PhaseSize(1, 1, 1)]  # a sample counts as one token

    @property
    def node_bytes(self) -> int:
        return 512  # names are short

    @property
    def room(self) -> tuple[int, int]:
        whole = self.original.weight_bytes
        return 3 * whole, 2 * whole  # full-rank factors; what is written

    @property
    def judged_on(self) -> str:
        return self.held_out_name

    @property
    def judged_key(self) -> str:
        return digest_of(self.held_out)

    @property
    def predicts_loss(self) -> bool:
        return True  # losses are measured cosine distances, see ``sensitivity``

    def write_judged(self, folder: Path) -> Path:
        path = folder / "held_out.npz"
        write_samples(path, self.held_out)
        return path

    @property
    def key(self) -> str:
        """Hash of the graph and the inputs that decide."""
        deciding = (self.calibration, self.selection)
        return digest(self.digest, *map(digest_of, deciding))


def examine(settings: Settings, device: DeviceProfile, run: Run) -> GraphSubject:
    """Open the graph, choose its inputs, and write it as a bundle to compare with.

    Raises:
        InputError: a setting does not fit an ONNX graph, the graph has no linear that can be
            factorized, or the inputs do not fit it.
    """
    _require_settings(settings)
    graph = open_graph(settings.model, run)
    path, inputs = graph.path, read_inputs(open_foreign(graph.path))
    deciding, held_out, names = choose_samples(settings, inputs, graph.inputs)
    drawn = names[0].startswith(RANDOM)
    calibration, selection = divide(deciding)
    dense = dense_bundle(path, run)
    open_tensors(dense.model_path).outputs(feeds(held_out, 0))  # what it refuses, no bundle takes
    precision, linears = _linears_of(settings, dense, run)
    if drawn:
        run.note(RANDOM_NOTE)
    return GraphSubject(
        settings=settings,
        device=device,
        recipe=RECIPE if settings.forms is None else replace(RECIPE, forms=settings.forms),
        precision=precision,
        weights=(precision,),
        groups=[SiteGroup(site.name, (site,)) for site in _counted(linears, dense)],
        shape=NO_SIZES,
        context_tokens=0,
        given=path,
        original=dense,
        linears=linears,
        calibration=calibration,
        selection=selection,
        held_out=held_out,
        calibrated_on=f"{names[0]} ({count(deciding)} samples)",
        held_out_name=f"{names[1]} ({count(held_out)} samples)",
        drawn=drawn,
    )


def _linears_of(settings: Settings, dense: ExportBundle, run: Run) -> tuple[Precision, Linears]:
    """Find the linears of the precision that most weights have.

    Raises:
        InputError: there are none, or another precision is asked for.
    """
    linears = find_linears(open_foreign(dense.model_path))
    if not linears.found:
        left = f" Left as they are: {told(linears.refused)}." if linears.refused else ""
        raise InputError(
            f"{settings.model} has no linear that can be factorized.{left} Expected MatMul, Gemm "
            f"or Conv nodes with constant weights in float32 or float16. Give the graph as it was "
            f"before its weights were quantized."
        )
    precision, linears = in_one_precision(linears)
    if settings.precision not in (None, precision):
        raise InputError(
            f"--precision is {settings.precision}, and the weights of {settings.model} are "
            f"{precision}. A graph keeps its precision: leave --precision away."
        )
    if linears.refused:
        run.note(f"Left as they are: {told(linears.refused)}.")
    return precision, linears


def _counted(linears: Linears, dense: ExportBundle) -> list[LinearSite]:
    """Give every site the positions that it multiplies in one run; a run counts as one token."""
    rows = read_positions(dense.model_path)
    return [
        replace(each.site, positions_per_token=float(rows.get(each.weight.name or "", 1)))
        for each in linears.found
    ]


def choose_samples(
    settings: Settings, inputs: list[GraphInput], own: Path | None = None
) -> tuple[Samples, Samples, tuple[str, str]]:
    """Read or draw inputs: those to calibrate on, those to judge on, and what both are called.

    One file serves both, a half each; ``evaluation`` names another one to judge on. Where none is
    given, a module's ``own`` are taken.
    """
    if not settings.calibration and own is not None:
        samples, origin = read_samples(own, inputs), "the module's inputs"
    elif not settings.calibration:
        samples, origin = random_samples(inputs, settings.seed), RANDOM
    elif len(settings.calibration) == 1:
        path = Path(settings.calibration[0])
        samples, origin = read_samples(path, inputs), path.name
    else:
        raise InputError(
            f"--calibration is given {len(settings.calibration)} times. Expected one .npz file for "
            f"an ONNX graph. Put all samples into one file."
        )
    if settings.evaluation is not None:
        judged = Path(settings.evaluation)
        return samples, read_samples(judged, inputs), (origin, judged.name)
    half = count(samples) // 2
    if not half:
        raise InputError(
            f"{origin} holds one sample. Expected at least two: one half calibrates, the other is "
            f"held out to judge the result. Save more samples, or give others with --evaluation."
        )
    names = (f"{origin}, first half", f"{origin}, second half")
    return take(samples, 0, half), take(samples, half, count(samples)), names


def divide(deciding: Samples) -> tuple[Samples, Samples]:
    """Divide samples into those for Grams and, behind them, those that judge plans.

    A sample alone is both.
    """
    whole = count(deciding)
    first = max(1, round((1 - SELECTED) * whole))
    return take(deciding, 0, first), take(deciding, min(first, whole - 1), whole)


def _require_settings(settings: Settings) -> None:
    if settings.task not in (None, "tensors"):
        raise InputError(f"--task is {settings.task}, and an ONNX graph has the task tensors.")
    given = [name for name in FOREIGN if name in settings.given()]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(
            f"{names} cannot be used with an ONNX graph as source. Expected --keep, --max-size, "
            f"--max-drop or --max-latency, --forms, --calibration and --evaluation. Leave the "
            f"others away, or give the model that the graph was exported from."
        )
    if settings.forms is not None and not {"dense", "low_rank"}.issuperset(settings.forms):
        raise InputError(
            f"--forms is {','.join(settings.forms)}; linears of an ONNX graph can be dense or "
            f"low_rank."
        )


def told(refused: dict[str, str]) -> str:
    """Name linears that are left as they are, each with its reason: the first of them, and all."""
    named = [f"{name} ({why})" for name, why in list(refused.items())[:NAMED]]
    more = len(refused) - NAMED
    return ", ".join(named) + (f", and {more} more of {len(refused)}" if more > 0 else "")
