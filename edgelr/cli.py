"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperGroup

from edgelr import __version__
from edgelr.errors import BudgetError, EdgelrError, GateError, InputError

if TYPE_CHECKING:
    from edgelr.cache import Cache
    from edgelr.settings import Settings


class _Commands(TyperGroup):
    """Turns errors into messages and exit codes; those of the options are typer's own."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            with _interruptible():
                return super().invoke(ctx)
        except EdgelrError as error:
            typer.secho(f"error: {error}", fg="red", err=True)
            raise typer.Exit(error.exit_code) from error
        except (KeyboardInterrupt, typer.Abort):
            typer.echo(
                "Interrupted. Run the same command again: finished stages are kept.", err=True
            )
            raise typer.Exit(130) from None


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let an interrupt be one, whatever it looks like when it arrives.

    Native libraries that are inside a call of Python's turn it into an error of their own.
    """
    interrupts: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    plain = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if plain:  # a background job of a shell ignores it, and shall
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if interrupts:
            raise KeyboardInterrupt from error
        raise
    finally:
        if plain:
            signal.signal(signal.SIGINT, signal.default_int_handler)


app = typer.Typer(
    name="edgelr",
    cls=_Commands,
    help="Put a model on an edge device, smaller and faster, with proof.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
profiles_app = typer.Typer(help="Device profiles.", no_args_is_help=True)
app.add_typer(profiles_app, name="profiles")
bench_app = typer.Typer(help="Comparisons on one model.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

# Optional[...] and not "| None": typer reads the annotations, on Python 3.10 as well.
Model = Annotated[
    Optional[str],  # noqa: UP045
    typer.Argument(help="Hub id, model folder, .gguf file, or package.module:factory."),
]
Profile = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--profile", help="Device: a name from 'edgelr list profiles', or a .yaml file."),
]
Recipe = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Named combination of the axes below ('edgelr list recipes')."),
]
Grouping = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="What is factorized together: one, input, blocks, tied, or any that pays."),
]
Method = Annotated[Optional[str], typer.Option(help="Decomposition, instead of the recipe's.")]  # noqa: UP045
Allocator = Annotated[Optional[str], typer.Option(help="Allocation, instead of the recipe's.")]  # noqa: UP045
Forms = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Allowed forms, for instance dense,low_rank (all: dense,low_rank,pivoted)."),
]
TaskName = Annotated[Optional[str], typer.Option("--task", help="Task, where it is not plain.")]  # noqa: UP045
PrecisionName = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--precision",
        help="fp32 or fp16; int8 or int4 for the weights of linears and embeddings; auto chooses "
        "for each. Default: the profile's.",
    ),
]
Keep = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Share of the factorizable weights to keep, such as 0.8."),
]
MaxSize = Annotated[Optional[str], typer.Option(help="Largest graph file, such as 60MB.")]  # noqa: UP045
MaxLatency = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        help="Longest predicted time of a decoded token, or of an encoder's forward pass, in ms."
    ),
]
MaxDrop = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Largest loss of accuracy: 0.05 is 5 % of perplexity, or 0.05 of cosine."),
]
CalibrationTexts = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--calibration",
        help=".txt or .jsonl file, or 'self': text that the model writes. Give several to mix.",
    ),
]
CalibrationTokens = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Tokens to calibrate on (default 16384): more text loses less accuracy."),
]
CalibrationLength = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Tokens of one calibration row."),
]
Evaluation = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help=".txt or .jsonl file to judge on; default: English that ships with Python."),
]
ContextTokens = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--context-tokens", "--context", help="Longest sequence to leave memory for."),
]
Rounds = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Plan again on the model that the last plan compressed (default 1: once)."),
]
HealSteps = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Train the factors to answer like the original, for so many steps."),
]
HealMinutes = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="The same for so many minutes; the best state is kept."),
]
HealSites = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="What heals: all factors, or low_rank (at most half of the full rank)."),
]
HealAdapter = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Train an update instead: lora, loha or lokr; merged before the export."),
]
Seed = Annotated[Optional[int], typer.Option(help="Of sampled text and labels (default 0).")]  # noqa: UP045
Opset = Annotated[Optional[int], typer.Option(help="Newest ONNX operator set to use.")]  # noqa: UP045
Provider = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="cpu or cuda: insist on this provider here (exit code 5 if it is not used)."),
]
Revision = Annotated[Optional[str], typer.Option(help="Branch, tag or commit on the Hub.")]  # noqa: UP045
RemoteCode = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option("--trust-remote-code", help="Run code that comes with the model."),
]
Config = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("-c", "--config", help="edgelr.yaml with any of these options."),
]
Resume = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Use finished stages of earlier runs.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print results only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]
Folder = Annotated[Path, typer.Argument(help="Bundle that 'edgelr export' wrote.")]


@app.command()
def export(
    ctx: typer.Context,
    model: Model = None,
    profile: Profile = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder of the bundle.")] = None,  # noqa: UP045
    recipe: Recipe = None,
    grouping: Grouping = None,
    method: Method = None,
    allocator: Allocator = None,
    forms: Forms = None,
    task: TaskName = None,
    precision: PrecisionName = None,
    keep: Keep = None,
    max_size: MaxSize = None,
    max_drop: MaxDrop = None,
    max_latency: MaxLatency = None,
    calibration: CalibrationTexts = None,
    calibration_tokens: CalibrationTokens = None,
    calibration_length: CalibrationLength = None,
    evaluation: Evaluation = None,
    context_tokens: ContextTokens = None,
    rounds: Rounds = None,
    heal_steps: HealSteps = None,
    heal_minutes: HealMinutes = None,
    heal_sites: HealSites = None,
    heal_adapter: HealAdapter = None,
    seed: Seed = None,
    opset: Opset = None,
    provider: Provider = None,
    revision: Revision = None,
    trust_remote_code: RemoteCode = None,
    config: Config = None,
    plan: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--plan", help="Follow this plan.json instead of making one."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stop at the plan; write edgelr.yaml beside it.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle in --out.")] = False,
    resume: Resume = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compress MODEL for a device, prove that it works, and write a bundle."""
    from edgelr.device import load_profile

    settings = _settings(ctx, config)
    folder = Path(settings.out or f"{_stem(settings.model)}-{Path(settings.profile).stem}")
    device = load_profile(settings.profile)
    from edgelr import pipeline
    from edgelr.report.schema import to_json
    from edgelr.report.terminal import print_report

    with _listener(quiet or as_json) as listener:
        if dry_run:
            from edgelr.settings import write_settings

            made = pipeline.plan(
                settings, device, _cache(resume), listener, pipeline.Clock(), given_plan=plan
            )
            write_settings(settings, Path("edgelr.yaml"))
            if as_json:
                typer.echo(json.dumps(asdict(made.plan), indent=2))
            else:
                typer.echo("Nothing was exported. Next: edgelr export -c edgelr.yaml")
            return
        report = pipeline.export(
            settings, device, folder, _cache(resume), listener, _command(), force, plan
        )
    if as_json:
        typer.echo(to_json(report))
    else:
        print_report(report)
        typer.echo(f"{folder}  Next: edgelr report {shlex.quote(str(folder))}")
    validation = report.validation
    if validation is not None and not validation.passed:
        raise GateError(_why_failed(folder, report.profile))


@app.command()
def plan(
    ctx: typer.Context,
    model: Model = None,
    profile: Profile = None,
    out: Annotated[Path, typer.Option(help="Where to write the plan.")] = Path("plan.json"),
    recipe: Recipe = None,
    grouping: Grouping = None,
    method: Method = None,
    allocator: Allocator = None,
    forms: Forms = None,
    precision: PrecisionName = None,
    keep: Keep = None,
    max_size: MaxSize = None,
    max_drop: MaxDrop = None,
    max_latency: MaxLatency = None,
    calibration: CalibrationTexts = None,
    calibration_tokens: CalibrationTokens = None,
    calibration_length: CalibrationLength = None,
    evaluation: Evaluation = None,
    context_tokens: ContextTokens = None,
    rounds: Rounds = None,
    seed: Seed = None,
    revision: Revision = None,
    trust_remote_code: RemoteCode = None,
    config: Config = None,
    resume: Resume = True,
    quiet: Quiet = False,
) -> None:
    """Decide what every linear becomes, and write plan.json to be read, edited and exported."""
    from edgelr.device import load_profile

    settings = _settings(ctx, config)
    device = load_profile(settings.profile)
    from edgelr import pipeline
    from edgelr.allocate import write_plan

    with _listener(quiet) as listener:
        made = pipeline.plan(settings, device, _cache(resume), listener, pipeline.Clock())
    write_plan(made.plan, out)
    source = shlex.quote(settings.model)
    typer.echo(f"{out}  Next: edgelr export {source} --profile {settings.profile} --plan {out}")


@app.command()
def inspect(
    ctx: typer.Context,
    model: Model = None,
    keep: Keep = None,
    revision: Revision = None,
    trust_remote_code: RemoteCode = None,
    resume: Resume = True,
    as_json: AsJson = False,
) -> None:
    """Show the linears of MODEL: shapes, shared inputs, spectra, and which are low-rank."""
    settings = _settings(ctx, None)
    from edgelr.inspection import inspect_sites
    from edgelr.report.terminal import print_sites

    rows = inspect_sites(settings, _cache(resume))
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print_sites(rows)


@app.command()
def validate(
    folder: Folder,
    against: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Original model, or its dense export; default: the bundle's source."),
    ] = None,
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help=".txt or .jsonl file; default: English that ships with Python."),
    ] = None,
    max_drop: MaxDrop = None,
    provider: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    under_cap: Annotated[
        bool,
        typer.Option(
            "--under-cap",
            help="Run it with no more memory than its device leaves, instead of comparing; exit "
            "code 4 where that is too little.",
        ),
    ] = False,
    profile: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="With --under-cap: the device; default: the bundle's."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a bundle with the original again; exit code 3 where the gate fails."""
    if under_cap:
        _run_under_cap(folder, profile, as_json)
        return
    if profile is not None:
        raise InputError(
            "--profile names a device for --under-cap; the gate of a bundle is in its manifest. "
            "Add --under-cap, or leave --profile away."
        )
    from edgelr.recheck import validate_again
    from edgelr.report.terminal import print_metrics
    from edgelr.runtime.bundle import read_bundle

    with _listener(as_json) as listener:
        found = validate_again(
            read_bundle(folder, verify=True), against, data, max_drop, provider, listener
        )
    if as_json:
        from pydantic import TypeAdapter

        typer.echo(TypeAdapter(type(found)).dump_json(found, indent=2).decode())
    else:
        print_metrics(found)
    if not found.passed:
        raise GateError(f"{folder} is outside its accuracy gate: see the figures above.")


def _run_under_cap(folder: Path, profile: str | None, as_json: bool) -> None:
    from pydantic import TypeAdapter

    from edgelr.device import load_profile
    from edgelr.report.terminal import print_cap_check
    from edgelr.runtime.bundle import read_bundle
    from edgelr.runtime.footprint import run_under_cap

    bundle = read_bundle(folder)
    name = profile or bundle.manifest.profile
    if name is None:
        raise InputError(f"{folder} was made for no device; name one with --profile.")
    found = run_under_cap(bundle, load_profile(name))
    if as_json:
        typer.echo(TypeAdapter(type(found)).dump_json(found, indent=2).decode())
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
        Optional[Path],  # noqa: UP045
        typer.Option(help="Another bundle or dense export to measure in turns."),
    ] = None,
    provider: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[Optional[int], typer.Option(help="Threads; default: all cores.")] = None,  # noqa: UP045
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of a prefill.")] = 128,
    context: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Tokens before a decode; default: those of the prefill."),
    ] = None,
    repetitions: Annotated[int, typer.Option(min=3, help="Timed runs of each phase.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Measure latency and memory of a bundle on this machine, in a fresh process."""
    from pydantic import TypeAdapter

    from edgelr.report.terminal import print_measurements
    from edgelr.runtime import measure as runtime
    from edgelr.runtime.bundle import read_bundle

    bundle = read_bundle(folder)
    sizes: dict[str, Any] = {"prefill_tokens": (tokens,), "context_tokens": (context or tokens,)}
    with _listener(as_json) as listener:
        sizes |= {"repetitions": repetitions, "progress": listener.progress}
        if against is None:
            found: Any = runtime.measure_one(bundle, provider, threads, **sizes)
        else:
            found = runtime.measure(read_bundle(against), bundle, provider, threads, **sizes)
    if as_json:
        typer.echo(TypeAdapter(type(found)).dump_json(found, indent=2).decode())
    else:
        print_measurements(found)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Bundles.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the reports of finished bundles."""
    from edgelr.report.markdown import to_markdown
    from edgelr.report.schema import from_json
    from edgelr.report.terminal import print_report

    for folder in folders:
        found = sorted((folder / "reports").glob("*.json"))
        if not found:
            raise InputError(
                f"{folder} has no reports/*.json; expected a bundle that 'edgelr export' finished."
            )
        for path in found:
            text = path.read_text(encoding="utf-8")
            if as_json:
                typer.echo(text)
            elif markdown:
                typer.echo(to_markdown(from_json(text)))
            else:
                print_report(from_json(text))


@app.command("list")
def list_names(
    kind: Annotated[
        str, typer.Argument(help="methods, allocators, recipes, exporters, profiles, evaluators.")
    ],
) -> None:
    """List what can be chosen."""
    from edgelr.catalogue import describe

    for name, summary in describe(kind):
        typer.echo(f"{name:<20} {summary}".rstrip())


@profiles_app.command("show")
def show_profile(
    name: Annotated[str, typer.Argument(help="A profile's name, or a .yaml file.")],
    as_json: AsJson = False,
) -> None:
    """Show every number of a device profile, with its source and whether it was verified."""
    from edgelr.device import load_profile, profile_path

    device = load_profile(name)  # checks it, and resolves what is detected
    if as_json:
        typer.echo(device.model_dump_json(indent=2))
    else:
        path = Path(name) if name.endswith((".yaml", ".yml")) else profile_path(name)
        typer.echo(path.read_text(encoding="utf-8").rstrip())


@profiles_app.command("detect")
def detect_profile(
    out: Annotated[Path, typer.Option(help="A new .yaml file.")] = Path("this-machine.yaml"),
    base: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Profile whose other numbers are kept; default: the one of this board."),
    ] = None,
    provider: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[Optional[int], typer.Option(help="Threads; default: all cores.")] = None,  # noqa: UP045
    quiet: Quiet = False,
) -> None:
    """Measure this machine's memory and kernels, and write a profile of it."""
    from edgelr.detect import detect

    with _listener(quiet) as listener:
        found = detect(base, provider, threads, out, listener)
    compute = found.compute
    typer.echo(
        f"{found.visible_bytes / 2**20:,.0f} MiB of memory, {compute.bandwidth.value:.1f} GB/s, "
        f"{1e3 * (getattr(compute, found.precision).value or 0):.0f} GFLOPS in {found.precision}."
    )
    typer.echo(f"{out}  Next: edgelr export MODEL --profile {shlex.quote(str(out))}")


@bench_app.command("methods")
def bench_methods(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Like the MODEL of 'edgelr export'.")],
    keeps: Annotated[str, typer.Option("--keep", help="Shares to keep, such as 0.9,0.8,0.6,0.5.")],
    recipes: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Recipes to compare, such as edgelr,svd-llm; default: all of them."),
    ] = None,
    evaluations: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--evaluation",
            help=".txt or .jsonl file to judge on, from its beginning. Give several for several "
            "columns; default: English that ships with Python.",
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of each of these texts.")] = 16384,
    length: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=2, help="Tokens of an evaluated row (default for decoders: 1024)."),
    ] = None,
    calibration: CalibrationTexts = None,
    calibration_tokens: CalibrationTokens = None,
    calibration_length: CalibrationLength = None,
    profile: Annotated[
        str, typer.Option(help="Device that decides precision and ranks.")
    ] = "generic-cpu",
    heal_steps: HealSteps = None,
    heal_minutes: HealMinutes = None,
    heal_sites: HealSites = None,
    heal_adapter: HealAdapter = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder of tables and curves.")] = None,  # noqa: UP045
    seed: Seed = None,
    revision: Revision = None,
    trust_remote_code: RemoteCode = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Use finished rows and stages.")
    ] = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare recipes on MODEL: what each loses at the same sizes, on the same texts."""
    from edgelr.device import load_profile

    settings = _settings(ctx, None)
    device = load_profile(settings.profile)
    from edgelr import bench
    from edgelr.report.comparison import to_json
    from edgelr.report.comparison_tables import next_command, print_bench

    question = bench.Question(
        settings,
        bench.read_recipes(recipes),
        bench.read_keeps(keeps),
        tuple(dict.fromkeys(evaluations or ())),
        tokens,
        length,
    )
    folder = out or Path(f"bench-{_stem(model)}")
    with _listener(quiet or as_json) as listener:
        found = bench.bench_methods(question, device, folder, _cache(resume), listener, _command())
    if as_json:
        typer.echo(to_json(found))
    else:
        print_bench(found)
        typer.echo(f"{folder / 'methods.md'}  Next: {next_command(found, settings.profile)}")


@app.command()
def sweep(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Like the MODEL of 'edgelr export'.")],
    profiles: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--profile", help="A device. Give several; default: jetson."),
    ] = None,
    keeps: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--keep",
            help="Shares to keep, such as 0.9,0.8; default: the smallest plan inside the gate.",
        ),
    ] = None,
    precisions: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--precision",
            help="Precisions of the weights, such as fp32,int8,int4,auto; default: the device's.",
        ),
    ] = None,
    rivals: Annotated[
        bool,
        typer.Option("--rivals/--no-rivals", help="Measure the original in int8 and int4, too."),
    ] = True,
    recipe: Recipe = None,
    calibration: CalibrationTexts = None,
    calibration_tokens: CalibrationTokens = None,
    calibration_length: CalibrationLength = None,
    evaluation: Evaluation = None,
    max_drop: MaxDrop = None,
    context_tokens: ContextTokens = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder of bundles and tables.")] = None,  # noqa: UP045
    seed: Seed = None,
    revision: Revision = None,
    trust_remote_code: RemoteCode = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Use finished bundles and stages.")
    ] = True,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compress MODEL for several devices, precisions and sizes, and say what to ship to each."""
    settings = _settings(ctx, None)
    from edgelr import bench
    from edgelr import sweep as sweeps
    from edgelr.report.pareto import to_json
    from edgelr.report.pareto_tables import print_sweep

    question = sweeps.Question(
        settings,
        tuple(dict.fromkeys(profiles or [settings.profile])),
        sweeps.read_precisions(precisions),
        (None,) if keeps is None else bench.read_keeps(keeps),
        rivals,
    )
    folder = out or Path(f"sweep-{_stem(model)}")
    with _listener(quiet or as_json) as listener:
        found = sweeps.sweep(question, folder, _cache(resume), listener, _command())
    if as_json:
        typer.echo(to_json(found))
    else:
        print_sweep(found)
        typer.echo(f"{folder / 'sweep.md'}  Next: edgelr validate {shlex.quote(str(folder))}/...")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"edgelr {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    app()


def _settings(ctx: typer.Context, config: Path | None) -> Settings:
    """Collect the options that were given; those of ``config`` stand behind them."""
    from edgelr.settings import SHORT_PRECISIONS, Settings, make_settings, read_settings

    given = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in ctx.params.items()
        if name in Settings.model_fields and value is not None
    }
    if "forms" in given:
        given["forms"] = tuple(given["forms"].split(","))
    if "calibration" in given:
        given["calibration"] = tuple(given["calibration"])
        if not given["calibration"]:
            del given["calibration"]
    if "precision" in given:
        given["precision"] = SHORT_PRECISIONS.get(given["precision"], given["precision"])
    if config is not None:
        return read_settings(config, given)
    if "model" not in given:
        raise InputError("No model is given; expected 'edgelr export MODEL', or -c edgelr.yaml.")
    return make_settings(**given)


def _cache(resume: bool) -> Cache:
    from edgelr.cache import Cache, default_root

    return Cache(default_root(), reuse=resume)


def _stem(model: str) -> str:
    return Path(model.split(":")[-1]).stem.lower() or "model"


def _command() -> str:
    return shlex.join(["edgelr", *sys.argv[1:]])


def _why_failed(folder: Path, profile: str) -> str:
    return (
        f"The bundle is kept in {folder}, and marked: parity or the accuracy gate of {profile} "
        f"failed (see above). Keep more, calibrate on text that is closer, or pass --max-drop."
    )


def _listener(quiet: bool) -> Any:
    from edgelr.report.live import LiveListener

    return LiveListener(quiet)
