"""Models that ``package.module:factory`` makes; torch modules as ONNX files with example inputs.

A module is traced on its inputs, of which the first axis counts the samples: that axis alone stays
free, where the module lets it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from edgelr.core.errors import InputError
from edgelr.core.quiet import quiet
from edgelr.data.tensors import write_samples

GRAPH, INPUTS, ANSWERS = "model.onnx", "inputs.npz", "answers.npz"
OPSET = 18  # as the graphs of model families
TRACED = 2  # samples: one would be taken for a constant


def call_factory(source: str) -> Any:
    """Import ``package.module:factory`` and call it.

    Raises:
        InputError: it cannot be imported.
    """
    module_name, _, attribute = source.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{source} cannot be imported ({error}); expected package.module:factory, on the "
            f"Python path, where factory() returns (model, tokenizer or image processor), or "
            f"(torch module, example inputs) with --task tensors."
        ) from error
    return factory()


def write_graph(source: str, folder: Path) -> None:
    """Write the module that a factory returns as a graph, with its inputs and its answers.

    Args:
        source: ``package.module:factory``. The factory returns ``(module, inputs)``; the inputs
            are a tensor, a tuple of them in the order of the arguments of ``forward``, or a dict
            by their names. Their first axis counts the samples.
        folder: folder that receives ``model.onnx``, ``inputs.npz`` and, of the first samples alone,
            ``answers.npz`` by the names of the graph's outputs.

    Raises:
        InputError: the factory returns something else, or torch cannot export the module.
    """
    module, inputs = _module_and_inputs(source, call_factory(source))
    module.eval().requires_grad_(False)
    few = {name: torch.cat((each, each))[:TRACED] for name, each in inputs.items()}
    answers = [_answers(module, few, index) for index in range(TRACED)]
    _require_finite(answers, source)
    _export(module, few, list(answers[0]), folder / GRAPH, source)
    write_samples(folder / INPUTS, {name: each.numpy() for name, each in inputs.items()})
    together = {name: torch.stack([each[name] for each in answers]).numpy() for name in answers[0]}
    np.savez(folder / ANSWERS, allow_pickle=False, **together)


def _module_and_inputs(source: str, made: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    """Check the values that a factory returned, and name the inputs."""
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise InputError(
            f"{source}() returned {type(made).__name__}; with --task tensors, expected (torch "
            f"module, example inputs). Let the factory return both."
        )
    module, given = made
    if isinstance(given, Mapping):
        named = dict(given)
    else:
        values = given if isinstance(given, (tuple, list)) else (given,)
        names = list(inspect.signature(module.forward).parameters)
        named = dict(zip(names, values, strict=False))
    lengths = {
        len(each) if isinstance(each, Tensor) and each.ndim else 0 for each in named.values()
    }
    if len(lengths) != 1 or not lengths.pop():
        raise InputError(
            f"The inputs of {source} are {_told(named)}; expected tensors with equally many "
            f"samples along their first axis. Let the factory return some hundred samples."
        )
    return module, {name: each.detach().cpu() for name, each in named.items()}


def _told(named: Mapping[str, Any]) -> str:
    kinds = (
        f"{name} {tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__}"
        for name, each in named.items()
    )
    return ", ".join(kinds) or "none"


def _answers(module: nn.Module, few: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """Run one sample; return the outputs in the graph's order, by the names that they get."""
    with torch.no_grad():
        output: Any = module(**{name: each[[index]] for name, each in few.items()})
    if isinstance(output, Mapping) and all(isinstance(each, Tensor) for each in output.values()):
        return dict(output)
    leaves = [each for each in tree_leaves(output) if isinstance(each, Tensor)]
    return {f"output_{place}": each for place, each in enumerate(leaves)}


def _require_finite(answers: list[dict[str, Tensor]], source: str) -> None:
    for name, each in (pair for found in answers for pair in found.items()):
        if not torch.isfinite(each).all():
            raise InputError(
                f"The module of {source} answers NaN or infinite values in {name} to its own "
                f"inputs; expected finite numbers. Check its weights and the inputs."
            )


def _export(
    module: nn.Module, few: dict[str, Tensor], outputs: list[str], path: Path, source: str
) -> None:
    """Trace with a free number of samples, or else for one sample at a time."""
    free = {name: {0: torch.export.Dim.DYNAMIC} for name in few}
    one = {name: each[:1] for name, each in few.items()}
    failed: Exception | None = None
    for example, shapes in ((few, free), (one, None)):
        try:
            with quiet():
                torch.onnx.export(
                    module,
                    kwargs=example,
                    f=path,
                    dynamo=True,
                    dynamic_shapes=shapes,
                    output_names=outputs,
                    opset_version=OPSET,
                    verbose=False,
                )
        except (torch.onnx.OnnxExporterError, RuntimeError, ValueError) as error:
            failed = failed or error
        else:
            return
    raise InputError(
        f"torch cannot export the module of {source} ({str(failed).splitlines()[0]}). Expected "
        f"one that torch.export can trace, whose outputs are tensors. See what "
        f"torch.onnx.export(module, kwargs=inputs, dynamo=True) says, or give an .onnx file."
    ) from failed
