"""Options of the commands: those made of the fields of ``Settings``, and those several share."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from edgelr.cli.app import VERBOSE
from edgelr.core.errors import InputError, did_you_mean
from edgelr.core.settings import Settings, choices, make_settings, read_settings, setting_types

Command = Callable[..., None]


def option(
    text: str, *flags: str, default: str = "", known: str | Iterable[str] = (), **rest: Any
) -> Any:
    """Make an option.

    Args:
        text: help of the option.
        flags: names of the option; without any, that of the parameter.
        default: default in words.
        known: words that complete it, or the kind of ``edgelr list`` that lists them.
        rest: further arguments of typer's option.
    """
    rest |= {"show_default": default or True, "autocompletion": complete(known) if known else None}
    return typer.Option(*flags, help=text, **rest)


def complete(known: str | Iterable[str]) -> Callable[[str], list[str]]:
    """Complete one of some words, or of a kind of ``edgelr list``; it may stand behind commas."""

    def completed(incomplete: str) -> list[str]:
        before = incomplete[: incomplete.rfind(",") + 1]
        words = _names(known) if isinstance(known, str) else known
        return [before + word for word in words if (before + word).startswith(incomplete)]

    return completed


def one_of(text: str, *words: str, flag: str, **rest: Any) -> Any:
    """Make an option that takes one of some words."""

    def check(value: str | None) -> str | None:
        if value is None or value in words:
            return value
        expected = f"{flag} is {value!r}; expected one of {', '.join(words)}."
        raise InputError(expected + did_you_mean(value, words))

    return option(text, flag, known=words, callback=check, metavar=_any(words), **rest)


def _any(words: Iterable[str]) -> str:
    return f"<{'|'.join(words)}>"


def _names(kind: str) -> list[str]:
    if kind == "profiles":  # `describe` reads all of them
        from edgelr.device.profile import profile_names

        return profile_names()
    from edgelr.commands.list import describe

    return [name for name, _ in describe(kind)]


# --- settings ------------------------------------------------------------------------------------


def with_settings(
    *taken: str, config: bool = False, **defaults: str
) -> Callable[[Command], Command]:
    """Offer settings as options of a command, and call it with the ``settings`` that were given.

    Args:
        taken: fields of the settings, and panels of them; without any, all are offered.
        config: whether ``edgelr.yaml`` is offered, too; options win over it.
        defaults: defaults that the command has of its own.
    """
    chosen = [
        each
        for each in fields(Settings)
        if not taken or each.name in taken or each.metadata["option"].panel in taken
    ]

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters.values()
        made = [_parameter("context", typer.Context)]
        made += [_offer(each, defaults.get(each.name, each.default), not config) for each in chosen]
        made += [_parameter("config", Config, None)] if config else []
        made += [each.replace(kind=each.KEYWORD_ONLY) for each in own if each.name != "settings"]

        @wraps(command)
        def run(context: typer.Context, **values: Any) -> None:
            told = {each.name: _read(each.name, values.pop(each.name)) for each in chosen}
            given = {name: told[name] for name in told if _is_given(context, name)}
            path = values.pop("config", None)
            command(settings=_settings(path, {**defaults, **given}), **values)

        vars(run)["__signature__"] = inspect.Signature(made)
        run.__annotations__ = {each.name: each.annotation for each in made}
        return run

    return decorate


def _offer(field: Field[Any], default: Any, required: bool) -> inspect.Parameter:
    """Spell a setting for typer; the one without a default is the command's argument."""
    told, (kind, words, several) = field.metadata["option"], _spelling(field.name)
    if field.default is MISSING:
        argument = typer.Argument(help=told.help)
        return _parameter(field.name, Annotated[kind, argument], *([] if required else [None]))
    listed = f" Some of {', '.join(words)}, with commas between." if words and several else ""
    named = () if several else words or tuple(filter(None, [told.unit]))
    made = option(
        told.help + listed,
        _flags(field.name, default),
        *filter(None, [told.flag]),
        default=told.fallback,
        known=words or told.names,
        metavar=_any(named) if named else None,
        rich_help_panel=told.panel,
    )
    spelled = str if words or told.unit else list[str] if several else kind
    return _parameter(field.name, Annotated[spelled, made], default)


def _flags(name: str, default: Any) -> str:
    """Spell the option of a setting; one that is on has a word that switches it off."""
    word = name.replace("_", "-")
    return f"--{word}/--no-{word}" if default is True else f"--{word}"


def _parameter(name: str, kind: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)


def _spelling(name: str) -> tuple[Any, tuple[str, ...], bool]:
    """Look up the type of a setting without None, its choices, and whether it takes several."""
    kind = get_args(setting_types()[name] | None)[0]
    return kind, choices(kind), get_origin(kind) is tuple


def _read(name: str, value: Any) -> Any:
    """Read a value of the command line; several choices are separated by commas."""
    _, words, several = _spelling(name)
    return value.split(",") if value and words and several else value


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _settings(config: Path | None, given: dict[str, Any]) -> Settings:
    if config is not None:
        return read_settings(config, given)
    if "model" not in given:
        raise InputError("No model is given; expected 'edgelr export MODEL', or -c edgelr.yaml.")
    return make_settings(**given)


def spelled(settings: Settings, *left: str) -> str:
    """Spell settings as a command line, the model first.

    Args:
        settings: settings; those with their defaults are not spelled.
        left: names of settings that are left away.
    """
    words = [settings.model]
    for name, value in settings.given().items():
        if name in ("model", *left):
            continue
        told = [",".join(value)] if isinstance(value, list) and _spelling(name)[1] else value
        for each in told if isinstance(told, list) else [told]:
            words += [f"--{name.replace('_', '-')}", *([] if each is True else [str(each)])]
    return shlex.join(words)


# --- what several commands have ------------------------------------------------------------------


def _speak(context: typer.Context, value: bool) -> bool:
    if value:
        from edgelr.core import quiet

        context.meta[VERBOSE] = True
        context.with_resource(quiet.verbose())
    return value


Config = Annotated[Path | None, option("edgelr.yaml with any of these options.", "-c", "--config")]
Resume = Annotated[bool, option("Use finished stages of earlier runs.", "--resume/--no-resume")]
Quiet = Annotated[bool, option("Print results only.", "-q", "--quiet")]
Verbose = Annotated[
    bool,
    option(
        "Print the seconds of every stage, what libraries log, and the traceback of an error.",
        *("-v", "--verbose"),
        callback=_speak,
    ),
]
AsJson = Annotated[bool, option("Print JSON to standard output.", "--json")]
Folder = Annotated[Path, typer.Argument(help="Bundle that 'edgelr export' wrote.")]
Provider = Annotated[str, one_of("What runs the graph.", "cpu", "cuda", flag="--provider")]
Threads = Annotated[int | None, option("Threads of ONNX Runtime.", default="all cores")]
