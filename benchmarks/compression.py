"""How long a plan takes, against the bare passes through the model that it needs.

From the statistics to the plan: input Grams over ``--tokens``, and two Fisher passes over
``--gradient-tokens``, one for the Grams of gradients, one for the components. The bare passes read
the same batches, with nothing watched.

    python benchmarks/compression.py MODEL TEXT
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from edgelr import pipeline
from edgelr.compress import statistics
from edgelr.compress.gradient_pass import batches, fisher_pass
from edgelr.core.cache import Cache
from edgelr.core.listener import Clock
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.data import calibration
from edgelr.device.profile import load_profile
from edgelr.model.losses import named_inputs
from edgelr.stages.sources.transformers import ModelSource
from edgelr.stages.transformers.calibration_data import calibrate
from edgelr.stages.transformers.dense import dense_export
from edgelr.stages.transformers.subject import ModelSubject, examine, load_model


def bare_passes(subject: ModelSubject, parts: list[calibration.Calibration], clock: Clock) -> None:
    """Read the texts as the statistics do, and watch nothing."""
    model = subject.model
    base = getattr(model.module, "base_model", model.module)
    with clock.time("bare forward"), torch.no_grad():
        for inputs, mask in batches(parts, statistics.INPUT_BATCH_TOKENS):
            base(**named_inputs(model, inputs, mask))
    spread = calibration.spread(parts, statistics.GRADIENT_TOKENS)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        with clock.time("bare forward and backward, twice"):
            fisher_pass(model, {}, lambda *_: None, spread, generator, "", lambda *_: None)


def main() -> None:
    """Time both, and print what every stage took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--tokens", type=int, default=32 * 1024)
    parser.add_argument("--gradient-tokens", type=int, default=12 * 1024)
    given = parser.parse_args()
    statistics.GRADIENT_TOKENS = given.gradient_tokens
    settings = make_settings(
        model=given.model,
        profile="generic-cpu",
        keep=0.8,
        calibration=(given.text,),
        calibration_tokens=given.tokens,
    )
    needed = Clock()
    with TemporaryDirectory() as folder:
        run = Run(Cache(Path(folder)))
        device = load_profile(settings.profile)
        subject = examine(load_model(settings, run), settings, device)
        dense = dense_export(subject.model, run)
        parts = calibrate(subject, dense, run)
        bare_passes(subject, parts, needed)
        pipeline.plan(settings, device, run, source=ModelSource(subject.model))
    for stage, seconds in {**needed.seconds, **run.clock.seconds}.items():
        print(f"{stage:40} {seconds:7.1f} s")
    stages = ("statistics", "decomposition", "allocation")
    spent_seconds = sum(run.clock.seconds[stage] for stage in stages)
    needed_seconds = sum(needed.seconds.values())
    print(f"from statistics to plan: {spent_seconds / needed_seconds:.2f} x the bare passes")


if __name__ == "__main__":
    main()
