"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# Optional[...] and not "| None": typer reads the annotations, on Python 3.10 as well.
Model = Annotated[
    Optional[str],  # noqa: UP045
    typer.Argument(help="Hub id, model folder, .gguf or .onnx file, or package.module:factory."),
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
TaskName = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--task",
        help="What the model is for, if its configuration does not tell; tensors: any module.",
    ),
]
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
    typer.Option(help="Largest loss of accuracy: 0.05 is 5 % of perplexity, cosine or labels."),
]
CalibrationTexts = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--calibration",
        help=".txt or .jsonl file, or 'self': text that the model writes; give several to mix. "
        "Models of images or sounds: a folder of them. An .onnx file: .npz of its inputs.",
    ),
]
CalibrationTokens = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        help="Tokens to calibrate on (default 16384, 256 images or 128 sounds): more lose less "
        "accuracy."
    ),
]
CalibrationLength = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Tokens of one calibration row."),
]
Evaluation = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help=".txt or .jsonl file to judge on, which may hold true labels or targets; default: "
        "English that ships with Python. Models of images or sounds: a folder of them, or sounds "
        "with what is said in them (.jsonl). An .onnx file: .npz of its inputs. Default of these: "
        "half of the calibration's."
    ),
]
Labels = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Models that compare images with texts: a file with one label a line, among which one "
        "is chosen. Default: the names of the sub-folders of images."
    ),
]
LabelTemplate = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="The sentence that a label is put into (default 'a photo of a {}'); '{}' takes labels "
        "as they are."
    ),
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
WithTests = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option("--with-tests", help="Write tests into the bundle: pytest DIR/tests."),
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
