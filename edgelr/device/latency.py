"""Latency on a device, predicted node by node: a roofline, or tables measured on the device.

A product ``(M, K) @ (K, N)`` takes the longer of its arithmetic and of reading its weight::

    max(2 M K N / peak, bytes / bandwidth)

Where ``edgelr profiles detect`` has measured products of several shapes, the time is interpolated
between them instead, in the logarithms of M, K and N. Attention multiplies every new token with the
context; every other node moves its values through memory, and costs what a node costs.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

from edgelr.core.dimensions import ModelShape
from edgelr.core.measurement import PredictedPhase, Prediction
from edgelr.core.measurement import phase_key as key_of
from edgelr.core.plan import Candidate
from edgelr.core.sites import SiteGroup
from edgelr.core.vocabulary import PRECISION_BYTES, Form, Precision, WeightPrecision
from edgelr.device.kernels import measured_as
from edgelr.device.profile import DeviceProfile, Kernels
from edgelr.device.storage import matrix_bytes, stored

TIME_WEIGHT = 0.25  # in the price of a candidate; bytes are the rest
FURTHER_NODES: dict[Form, int] = {"pivoted": 3, "kronecker": 3, "tied": 1}  # beside products
_MOVED = 3  # values of one token that a node reads and writes: two inputs, one output


@dataclass(frozen=True, slots=True)
class Product:
    """A product of every token, or position, with one constant matrix ``(inputs, outputs)``."""

    inputs: int
    outputs: int
    weights: WeightPrecision
    positions_per_token: float = 1.0


@dataclass(frozen=True, slots=True)
class Workload:
    """What a graph computes: its products, and how many nodes there are beside them."""

    products: tuple[Product, ...]
    other_nodes: int

    def in_precision(self, values: Precision) -> Workload:
        """The same with float weights in another precision."""
        products = (
            replace(each, weights=values) if each.weights in PRECISION_BYTES else each
            for each in self.products
        )
        return replace(self, products=tuple(products))


@dataclass(frozen=True, slots=True)
class PhaseSize:
    """One call: ``tokens`` new ones of each sequence, which attend to ``context_tokens``."""

    batch: int
    tokens: int
    context_tokens: int


class LatencyModel:
    """Predicts how long a device computes.

    Args:
        device: profile with rates, and with tables where it was measured.
        shape: sizes of the model.
        values: precision of the arithmetic; without any in it, the device's float32 rate counts.

    Raises:
        ValueError: the device has neither rates nor tables; ask ``can_predict`` before.
    """

    def __init__(self, device: DeviceProfile, shape: ModelShape, values: Precision) -> None:
        if not can_predict(device):
            raise ValueError(f"the profile {device.id} has no rates")
        self._device, self._shape, self.values = device, shape, values

    def milliseconds(self, workload: Workload, run: PhaseSize) -> float:
        """Predict one run of a graph."""
        rows = run.batch * run.tokens
        products = sum(self.product_seconds(product, rows) for product in workload.products)
        moved = round(rows * self._shape.positions_per_token)
        others = workload.other_nodes * self._node_seconds(moved)
        return 1e3 * (products + others + self._attention_seconds(run))

    def product_seconds(self, product: Product, rows: int) -> float:
        """Predict one product of ``rows`` tokens."""
        rows = round(rows * product.positions_per_token)
        if self._tables is not None:
            return self._tables.seconds(product, rows)
        size = matrix_bytes((product.inputs, product.outputs), product.weights, self.values)
        flops = 2 * rows * product.inputs * product.outputs
        return max(flops / self._peak, size / self._bandwidth)

    def group_seconds(self, group: SiteGroup, candidate: Candidate, rows: int) -> float:
        """Predict the products of what a group may become, and the nodes that a form adds."""
        if group.kind == "table":  # which is gathered from, and not multiplied with
            return 0.0
        kept = stored(candidate.form, group, candidate.rank)
        again = len(group.sites) if group.kind in ("blocks", "tied") else 1
        matrices = [*kept.shared * again, *(shape for own in kept.own for shape in own)]
        often = group.sites[0].positions_per_token
        products = (Product(*shape, candidate.precision, often) for shape in matrices)
        nodes = FURTHER_NODES.get(candidate.form, 0) * len(group.sites)
        seconds = sum(self.product_seconds(product, rows) for product in products)
        return seconds + nodes * self._node_seconds(round(rows * often))

    def _attention_seconds(self, run: PhaseSize) -> float:
        shape, width = self._shape, 4 if self.values == "float32" else 2
        heads = shape.layers * shape.head_size
        attended = run.context_tokens + shape.source_tokens
        pairs = run.tokens * shape.positions_per_token * (shape.window or attended)
        flops = 4 * run.batch * pairs * heads * shape.attention_heads
        cache = 2 * run.batch * attended * heads * shape.kv_heads * width
        kernels = self._device.kernels
        if kernels is None:
            return max(flops / self._peak, cache / self._bandwidth)
        nodes = shape.layers * kernels.attention_node.value * 1e-6
        return nodes + max(flops / (kernels.attention.value * 1e12), cache / self._bandwidth)

    def _node_seconds(self, rows: int) -> float:
        width = 4 if self.values == "float32" else 2
        moved = _MOVED * rows * self._shape.hidden_size * width
        kernels = self._device.kernels
        if kernels is None:
            return moved / self._bandwidth
        return kernels.node.value * 1e-6 + moved / (kernels.vector.value * 1e9)

    @cached_property
    def _tables(self) -> _Tables | None:
        return None if self._device.kernels is None else _Tables(self._device.kernels)

    @cached_property
    def _bandwidth(self) -> float:
        found = self._device.bandwidth_bytes_per_second
        assert found is not None
        return found

    @cached_property
    def _peak(self) -> float:
        peaks = (self._device.flops_per_second(each) for each in (self.values, "float32"))
        found = next((peak for peak in peaks if peak is not None), None)
        assert found is not None
        return found


class _Tables:
    """Measured products: for each precision a grid over rows, inputs and outputs."""

    def __init__(self, kernels: Kernels) -> None:
        self._times = {
            (weights, rows, inputs, outputs): microseconds * 1e-6
            for weights, rows, inputs, outputs, microseconds in kernels.products
        }
        self._precisions = {row[0] for row in kernels.products}
        self._rows = sorted({row[1] for row in kernels.products})
        self._sizes = sorted({row[2] for row in kernels.products})

    def seconds(self, product: Product, rows: int) -> float:
        """Interpolate between the neighbours; beyond the grid, time follows the arithmetic."""
        total, weights = 0.0, measured_as(product.weights, self._precisions)
        for row, row_share in _neighbours(self._rows, rows):
            for inputs, inputs_share in _neighbours(self._sizes, product.inputs):
                for outputs, outputs_share in _neighbours(self._sizes, product.outputs):
                    measured = self._times[weights, row, inputs, outputs]
                    share = row_share * inputs_share * outputs_share
                    total += share * math.log(measured / (row * inputs * outputs))
        return math.exp(total) * rows * product.inputs * product.outputs


def _neighbours(grid: list[int], value: int) -> Iterable[tuple[int, float]]:
    """The two points around a value and their shares, by logarithm; one at the ends."""
    above = bisect_right(grid, value)
    if above in (0, len(grid)):
        return [(grid[max(0, above - 1)], 1.0)]
    low, high = grid[above - 1], grid[above]
    share = math.log(value / low) / math.log(high / low)
    return [(low, 1 - share), (high, share)]


def can_predict(device: DeviceProfile) -> bool:
    """Whether a profile has the rates that a prediction needs."""
    rates = (device.bandwidth_bytes_per_second, device.flops_per_second("float32"))
    return None not in rates


def predict(
    device: DeviceProfile,
    shape: ModelShape,
    values: Precision,
    dense: Workload,
    bundle: Workload,
    runs: Iterable[PhaseSize],
    resident_bytes: int,
) -> Prediction | None:
    """Predict the latency of two graphs on a device, and the memory of one; never a measurement.

    Args:
        device: profile whose rates count.
        shape: sizes of the model; encoders have no cache.
        values: precision of the arithmetic.
        dense: the graph of the original.
        bundle: the graph of the bundle.
        runs: sizes of the calls; one token in a decoder with a cache is a decode, others a
            prefill or forward.
        resident_bytes: memory of the process with the bundle loaded.

    Returns:
        None when the profile has no bandwidth or no peak rate.
    """
    if not can_predict(device):
        return None
    clock = LatencyModel(device, shape, values)
    return Prediction(
        phases=tuple(
            PredictedPhase(
                _key(shape, run), clock.milliseconds(dense, run), clock.milliseconds(bundle, run)
            )
            for run in runs
        ),
        resident_bytes=resident_bytes,
    )


def _key(shape: ModelShape, run: PhaseSize) -> str:
    if not shape.kv_heads:
        return key_of("forward", run.batch, run.tokens, 0)
    if run.tokens == 1:
        return key_of("decode", run.batch, 1, run.context_tokens)
    return key_of("prefill", run.batch, run.tokens, 0)


def slower_than_dense(
    clock: LatencyModel, runs: Iterable[PhaseSize]
) -> Callable[[SiteGroup, Candidate], bool]:
    """Return what tells whether a compressed group takes longer than a dense one of its precision.

    It must be as fast in every run: what a prompt gains, each decoded token would lose.

    Args:
        clock: predictor for the device.
        runs: sizes of the calls of the workload.
    """
    counts = [run.batch * run.tokens for run in runs]

    def slower(group: SiteGroup, candidate: Candidate) -> bool:
        dense = replace(candidate, form="dense")
        return any(
            clock.group_seconds(group, candidate, rows) > clock.group_seconds(group, dense, rows)
            for rows in counts
        )

    return slower


def bytes_and_time(
    clock: LatencyModel, runs: Iterable[PhaseSize]
) -> Callable[[SiteGroup, Candidate], int]:
    """Return what a candidate costs a device in bytes and in time, as a number of bytes.

    The time is the share that the group takes of what it takes dense, on average over the runs:
    what saves bytes, and less of the time, costs more than its bytes.

    Args:
        clock: predictor for the device.
        runs: sizes of the calls of the workload.
    """
    counts = [run.batch * run.tokens for run in runs]

    def price(group: SiteGroup, candidate: Candidate) -> int:
        if group.kind == "table":
            return candidate.bytes
        dense = replace(candidate, form="dense", precision=clock.values)
        taken = fmean(
            clock.group_seconds(group, candidate, rows) / clock.group_seconds(group, dense, rows)
            for rows in counts
        )
        dense_bytes = group.parameters * PRECISION_BYTES[clock.values]
        return round(candidate.bytes + TIME_WEIGHT * (taken * dense_bytes - candidate.bytes))

    return price


def device_runs(device: DeviceProfile, shape: ModelShape, context_tokens: int) -> list[PhaseSize]:
    """List what the profile's workload runs: a prefill and, for decoders, a decode."""
    batch, tokens = device.workload.batch.value, device.prefill_tokens
    runs = [PhaseSize(batch, tokens, tokens)]
    return [*runs, PhaseSize(batch, 1, context_tokens)] if shape.kv_heads else runs
