"""Commands that run a finished bundle: validate, measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from edgelr.cli.app import app
from edgelr.cli.common import listener_of, print_json, run_of
from edgelr.cli.options import AsJson, Folder, Provider, Threads, Verbose, option
from edgelr.core.errors import BudgetError, GateError, InputError
from edgelr.core.units import drop, read_option


@app.command()
def validate(
    folder: Folder,
    against: Annotated[
        str | None,
        option("Original model, or its dense export.", default="the bundle's source"),
    ] = None,
    data: Annotated[
        Path | None,
        option(
            ".txt or .jsonl file, which may hold true labels or targets. Models of images or "
            "sounds: a folder of them (of images, also one for each label), or sounds with what is "
            "said in them (.jsonl).",
            default="English that ships with Python",
        ),
    ] = None,
    max_drop: Annotated[
        str | None,
        option(
            "Largest loss of accuracy: 0.05 or 5% of perplexity, cosine or labels.",
            default="the bundle's gate",
            metavar="<share>",
        ),
    ] = None,
    provider: Provider = "cpu",
    under_cap: Annotated[
        bool,
        option(
            "Run it with no more memory than its device leaves, instead of comparing; exit code 4 "
            "where that is too little.",
            "--under-cap",
        ),
    ] = False,
    profile: Annotated[
        str | None,
        option("With --under-cap: the device.", default="the bundle's", known="profiles"),
    ] = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Compare a bundle with the original again; exit code 3 where the gate fails.

    On a board without torch or the original: with its own answers at the export.
    """
    if under_cap:
        _run_under_cap(folder, profile, provider, as_json)
        return
    if profile is not None:
        raise InputError(
            "--profile names a device for --under-cap; the gate of a bundle is in its manifest. "
            "Add --under-cap, or leave --profile away."
        )
    from edgelr.commands.validate import validate_again
    from edgelr.core.bundle import read_bundle
    from edgelr.report.terminal import print_metrics

    limit = None if max_drop is None else read_option("--max-drop", drop, max_drop)
    with listener_of(as_json, verbose) as listener:
        found = validate_again(
            read_bundle(folder, verify=True), against, data, limit, provider, run_of(listener)
        )
    if as_json:
        print_json(found)
    else:
        print_metrics(found)
    if found.parity is not None and not found.parity.passed:
        raise GateError(
            f"{folder} does not answer here as it did at the export: see the figures above. Copy "
            f"the folder again, take the ONNX Runtime of the export, or compare with the original."
        )
    if not found.passed:
        undecided = found.gate is not None and found.gate.undecided
        told = "is not surely inside" if undecided else "is outside"
        raise GateError(f"{folder} {told} its accuracy gate: see the figures above.")


def _run_under_cap(folder: Path, profile: str | None, provider: str, as_json: bool) -> None:
    from edgelr.core.bundle import read_bundle
    from edgelr.device.profile import load_profile
    from edgelr.report.terminal import print_cap_check
    from edgelr.runtime.memory_cap import run_under_cap
    from edgelr.runtime.requests import Execution

    bundle = read_bundle(folder)
    name = profile or bundle.manifest.profile
    if name is None:
        raise InputError(f"{folder} was made for no device; name one with --profile.")
    found = run_under_cap(bundle, load_profile(name), Execution(provider))
    if as_json:
        print_json(found)
    else:
        print_cap_check(found)
    if not found.passed:
        raise BudgetError(
            f"{folder} does not run in the memory that {name} leaves: see above. Export it for "
            f"this device, with a shorter --context-tokens, or a lower --precision."
        )


@app.command()
def measure(
    folder: Folder,
    against: Annotated[
        Path | None, option("Another bundle or dense export to measure in turns.")
    ] = None,
    provider: Provider = "cpu",
    threads: Threads = None,
    tokens: Annotated[int, option("Tokens of a prefill.", min=1)] = 128,
    context: Annotated[
        int | None, option("Tokens before a decode.", default="those of the prefill", min=1)
    ] = None,
    repetitions: Annotated[int, option("Timed runs of each phase.", min=3)] = 10,
    operators: Annotated[
        bool,
        option("Show instead on which provider every operator ran, and how long.", "--operators"),
    ] = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Measure latency and memory of a bundle on this machine, in a fresh process."""
    from edgelr.core.bundle import read_bundle
    from edgelr.report.terminal import print_measurements, print_operators
    from edgelr.runtime import calls
    from edgelr.runtime import measure as runtime
    from edgelr.runtime.requests import Execution, PhaseSizes

    bundle, execution = read_bundle(folder), Execution(provider, threads)
    if operators:
        profiled = calls.operators(bundle, tokens, execution, repetitions)
        if as_json:
            print_json(profiled)
        else:
            print_operators(profiled)
        return
    sizes = PhaseSizes((tokens,), (context or tokens,))
    with listener_of(as_json, verbose) as listener:
        options = (execution, sizes, repetitions, listener.progress)
        if against is None:
            found: Any = runtime.measure_one(bundle, *options)
        else:
            found = runtime.measure(read_bundle(against), bundle, *options)
    if as_json:
        print_json(found)
    else:
        print_measurements(found)
