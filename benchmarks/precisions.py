"""What linears lose at so many bits per weight, in and out of the domain of the calibration.

Only linears are stored in fewer bits, in the mixture that ``--precision auto`` plans; the table of
embeddings and the activations stay in float32. Perplexities are of torch, without context between
rows of 1,024 tokens.

    python benchmarks/precisions.py SMOLLM2 --bits 5.12,4.6,4.2,3.6 --calibration self \
        --calibration wiki-valid.txt --tokens 65536 --judge wikitext2-test.txt --judge topics.txt
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgelr.compress.compressed_model import mean_loss, multiplied
from edgelr.compress.decompose import truncate
from edgelr.core.cache import Cache, default_root
from edgelr.core.plan import Plan
from edgelr.core.run import Run
from edgelr.core.settings import make_settings
from edgelr.data.calibration import Calibration, from_samples
from edgelr.device.profile import load_profile
from edgelr.stages.subject import make_search
from edgelr.stages.transformers.calibration_data import calibrate
from edgelr.stages.transformers.cost_model import spectra, statistics
from edgelr.stages.transformers.dense import dense_export
from edgelr.stages.transformers.factorize import rounded_as
from edgelr.stages.transformers.subject import ModelCosts, ModelSubject, examine, load_model

ROW = 1024


def judged(subject: ModelSubject, path: str, rows: int) -> Calibration:
    """Cut the beginning of a text into rows."""
    text = Path(path).read_text(encoding="utf-8")
    ids = subject.tokenizer.encode(text, add_special_tokens=False).ids[: rows * ROW]
    return from_samples(np.array(ids).reshape(-1, ROW), path)


def costs_of(subject: ModelSubject, run: Run) -> ModelCosts:
    """Calibrate, and round every linear to every precision."""
    rows = calibrate(subject, dense_export(subject.model, run), run)
    store, key = statistics(subject, rows, run)
    start = time.perf_counter()
    table = spectra(subject, (store, key), run, rows)
    print(f"decomposed, rounded and corrected in {time.perf_counter() - start:.0f} s")
    return ModelCosts(rows, store, table)


def planned(subject: ModelSubject, costs: ModelCosts, bits: float) -> Plan:
    """Spend so many bits per weight on the linears."""
    search = make_search(subject, costs.spectra)
    pairs = list(zip(search.groups, search.options, strict=True))
    kept = [(group, option) for group, option in pairs if not group.kind.endswith("table")]
    linears = replace(
        search, groups=[group for group, _ in kept], options=[option for _, option in kept]
    )
    return linears.plan(int(bits * sum(site.parameters for site in subject.sites) / 8))


def main() -> None:
    """Print a row for every number of bits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--bits", default="5.12,4.6,4.2,3.6", help="bits per weight, with commas")
    parser.add_argument("--calibration", action="append", default=[])
    parser.add_argument("--tokens", type=int, default=65536, help="tokens to calibrate on")
    parser.add_argument("--judge", action="append", required=True, help="text that is judged on")
    parser.add_argument("--rows", type=int, default=4, help="rows of 1,024 tokens of each text")
    given = parser.parse_args()
    settings = make_settings(
        model=given.model,
        profile="generic-cpu",
        precision="auto",
        calibration=tuple(given.calibration),
        calibration_tokens=given.tokens,
    )
    run = Run(Cache(default_root()))
    subject = examine(load_model(settings, run), settings, load_profile(settings.profile))
    costs = costs_of(subject, run)
    texts = {path: judged(subject, path, given.rows) for path in given.judge}
    before = {path: mean_loss(subject.model, text) for path, text in texts.items()}
    print("original", *(f"{path}: {math.exp(loss):.2f}" for path, loss in before.items()))
    for bits in map(float, given.bits.split(",")):
        plan = planned(subject, costs, bits)
        factors = truncate(costs.spectra, plan)
        stored = rounded_as(subject, costs.statistics, costs.spectra, plan, factors).factors
        with multiplied(subject.model.module, stored):
            after = {path: mean_loss(subject.model, text) for path, text in texts.items()}
        kinds = Counter(f"{s.candidate.form} {s.candidate.precision}" for s in plan.sites)
        print(f"{bits} bits, predicted +{plan.predicted_loss:.4f} nats:", dict(kinds))
        for path, loss in after.items():
            added = loss - before[path]
            print(f"    {path}: {math.exp(loss):.2f} ({math.exp(added):.3f}, +{added:.4f} nats)")


if __name__ == "__main__":
    main()
