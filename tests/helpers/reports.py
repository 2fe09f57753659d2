"""A report to draw, with figures that nothing else has."""

from __future__ import annotations

import dataclasses

from edgelr.core.measurement import (
    Comparison,
    Measurement,
    MemoryUse,
    PhaseLatency,
    PredictedPhase,
    Prediction,
)
from edgelr.core.plan import Budget, Candidate, Plan, SitePlan
from edgelr.core.report import LossCheck, Report, Rival, Rivals
from edgelr.core.results import DenseParity, Gate, Interval, Metric, Parity, Validation
from edgelr.core.vocabulary import Form, WeightPrecision

MIB = 2**20
SURE = Interval(23.1, 23.8, 128)


def site(name: str, form: Form, size: int, reason: str) -> SitePlan:
    candidate = Candidate(form, 7, "float16", size, 2 * size, 0.125)
    return SitePlan(name, 24, 40, candidate, 20 * MIB, reason, resident_bytes=size)


def measurement(name: str, milliseconds: float) -> Measurement:
    phases = (
        PhaseLatency("prefill", 1, 128, 0, 9, milliseconds, 101.5, 102.5, 640.0),
        PhaseLatency("decode", 1, 1, 512, 9, milliseconds / 4, 31.5, 32.5, 40.0),
    )
    memory = MemoryUse(300 * MIB, 77 * MIB, 411 * MIB, 33 * MIB)
    return Measurement(name, "CPUExecutionProvider", "float32", 2, 90 * MIB, 812.0, phases, memory)


def rival(
    precision: WeightPrecision, size: int, perplexity: float, prefill_ms: float = 20.125
) -> Rival:
    """The original in int8 or int4, at a time of 33.5 ms in the original."""
    sure = Interval(perplexity - 0.25, perplexity + 0.25, 128)
    return Rival(
        precision,
        size,
        fits=True,
        metrics=(Metric("perplexity", perplexity, 22.55, 16384, "", sure),),
        gate=Gate("perplexity", perplexity, 24.125, higher_is_better=False, worst=sure.high),
        prediction=Prediction((PredictedPhase("prefill 128", 33.5, prefill_ms),), 470 * MIB),
    )


def make_report() -> Report:
    """A report in which every section has figures."""
    plan = Plan(
        sites=(
            site("model.layers.0.self_attn.q_proj", "low_rank", 11 * MIB, "lowest loss per byte"),
            site("model.layers.1.self_attn.q_proj", "pivoted", 12 * MIB, "lowest loss per byte"),
            site("model.layers.0.mlp.up_proj", "dense", 20 * MIB, "dense is smaller"),
        ),
        recipe="default",
        allocator="lagrangian",
        budget_bytes=55 * MIB,
        planned_bytes=43 * MIB,
        predicted_loss=0.375,
    )
    return Report(
        schema_version=1,
        created="2031-05-06T07:08:09Z",
        command='edgelr export "models/tiny" --profile jetson',
        source="owner/tiny-model",
        digest="sha256:abc",
        task="text-generation",
        profile="jetson",
        profile_title="Jetson Orin Nano 8 GB",
        recipe="default",
        fits=True,
        headroom_bytes=1234 * MIB,
        dense_file_bytes=150 * MIB,
        bundle_file_bytes=90 * MIB,
        budget=Budget(*(size * MIB for size in (7620, 819, 400, 108, 64, 45)), context_tokens=2048),
        plan=plan,
        validation=Validation(
            parity=Parity(1.5e-4, 1e-3, 2.5e-4, 8, 7, 32, 0.0125, 0.05),
            metrics=(Metric("perplexity", 23.45, 22.55, 16384, "", SURE),),
            gate=Gate("perplexity", 23.45, 24.125, higher_is_better=False, worst=23.8),
            precision="float16",
            provider="CPUExecutionProvider",
            text="a text | of its own",
            dense_parity=DenseParity("torch", 3, 4.5e-5, 3.5e-5, 32.0, 1024),
        ),
        comparison=Comparison(
            measurement("dense", 98.5),
            measurement("bundle", 67.5),
            {"prefill 128": 0.6875, "decode 512": 0.7125},
        ),
        prediction=Prediction(
            (
                PredictedPhase("prefill 128", 33.5, 22.75),
                PredictedPhase("decode 512", 9.25, 6.125),
            ),
            512 * MIB,
        ),
        host_is_device=False,
        seconds={"statistics": 12.5},
        peak_bytes=2048 * MIB,
        environment={"onnxruntime": "1.31.1"},
        notes=("Calibrated on text sampled from the model itself.",),
        loss=LossCheck(0.375, 0.0391, "nats per token"),
        spectra={
            "model.layers.0.self_attn.q_proj": tuple(0.5**part for part in range(1, 10)),
            "model.layers.1.self_attn.q_proj": tuple(0.7**part for part in range(1, 10)),
        },
        rivals=Rivals(
            (rival("int8", 97 * MIB, 22.75), rival("int4", 52 * MIB, 27.25)),
            original_fits=True,
            ship="bundle",
            told="Ship the bundle, as it is made up here.",
        ),
    )


def unmeasured(report: Report) -> Report:
    return dataclasses.replace(
        report, validation=None, comparison=None, prediction=None, rivals=None
    )


def wide(report: Report, layers: int = 12) -> Report:
    """Give the report many layers, of another rank each, and long names."""
    roles = ("self_attn.q_proj", "self_attn.k_proj", "mlp.down_projection_with_a_long_name")
    sites = tuple(
        dataclasses.replace(
            site(f"model.layers.{layer}.{role}", "low_rank", (layer + 1) * MIB, "lowest loss"),
            candidate=Candidate(
                "low_rank", (7 * layer + 3 * index) % 24 + 1, "float16", (layer + 1) * MIB, 1, 0.1
            ),
        )
        for layer in range(layers)
        for index, role in enumerate(roles)
    )
    plan = dataclasses.replace(report.plan, sites=sites)
    spectra = {each.name: tuple(0.6**part for part in range(1, 10)) for each in sites}
    return dataclasses.replace(report, plan=plan, spectra=spectra)
