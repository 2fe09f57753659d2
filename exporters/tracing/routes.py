"""Routes from a loaded model to a dense float32 ONNX graph."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelr.core.errors import EdgelrError, EnvironmentProblem, InputError
from edgelr.core.problems import (
    UNTRACEABLE,
    install_command,
    last_line,
    library_call,
    machine_problem,
)
from edgelr.core.quiet import quiet

if TYPE_CHECKING:
    from torch import nn

UNMASKED = "sdpa_without_mask"


def trace_with_genai_builder(
    module: nn.Module, folder: Path, out: Path, example: dict[str, Any]
) -> None:
    """Build a decoder with onnxruntime-genai: one graph for prefill and decode.

    Attention is GroupQueryAttention by construction, nothing is traced, and nodes carry the
    modules' paths. The builder loads the weights itself and never gives memory back, so it runs
    in a child process.
    """
    del module, example
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    command += ["-i", str(folder), "-o", str(out), "-p", "fp32", "-e", "cpu"]
    command += ["-c", str(out / "cache"), "--extra_options", "fuse_qkv=false", "hf_token=false"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise _builders_problem(done.returncode, done.stderr, folder)


def _builders_problem(code: int, said: str, folder: Path) -> EdgelrError:
    """Tell why the builder ended: with the last line of what it said."""
    if find_spec("onnxruntime_genai") is None:
        command = install_command("onnxruntime_genai")
        return EnvironmentProblem(
            f"The package onnxruntime_genai is not installed. Install it: {command}"
        )
    error = RuntimeError(said)
    return machine_problem(error) or InputError(
        f"onnxruntime-genai's builder ended with {code} on {folder}: {last_line(error)} Expected "
        f"a decoder that it knows."
    )


def trace_with_transformers(module: Any, folder: Path, out: Path, example: dict[str, Any]) -> None:
    """Trace an encoder through transformers' exporter, unfused, so that scopes bind its linears."""
    del folder
    _trace(module, example, out, dynamic=True)


def trace_images_with_transformers(
    module: Any, folder: Path, out: Path, example: dict[str, Any]
) -> None:
    """Trace a model that reads images of one size: only the number of images varies.

    Nothing is padded.
    """
    with without_mask(module):
        trace_pixels_with_transformers(module, folder, out, example)


@contextmanager
def without_mask(module: Any) -> Iterator[None]:
    """Let a model attend without any mask while the block runs.

    An attention that transformers knows no mask for is given none; its own would be one of zeros,
    made anew for every batch.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register(UNMASKED, sdpa_attention_forward)
    before = module.config._attn_implementation
    module.set_attn_implementation(UNMASKED)
    try:
        yield
    finally:
        module.set_attn_implementation(before)


def trace_decoder(module: Any, folder: Path, out: Path, example: dict[str, Any]) -> None:
    """Trace a decoder that no builder knows, with GroupQueryAttention in the place of its own."""
    del folder, example
    from .decoder import export_decoder

    with quiet():
        export_decoder(module, out / "model.onnx")


def trace_pixels_with_transformers(
    module: Any, folder: Path, out: Path, example: dict[str, Any]
) -> None:
    """Trace a model of images that has no attention."""
    del folder
    from torch.export import Dim

    _trace(module, example, out, dynamic_shapes={"pixel_values": {0: Dim.DYNAMIC}})


def _trace(module: Any, example: dict[str, Any], out: Path, **shapes: Any) -> None:
    with quiet():
        traced_by_transformers(module, example, **shapes).save_pretrained(out)


def traced_by_transformers(module: Any, example: dict[str, Any], **shapes: Any) -> Any:
    """Trace a module; ``shapes`` are arguments of ``OnnxConfig``."""
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    config = OnnxConfig(opset_version=18, **shapes)  # 18: what every fusion pattern expects
    with library_call(f"transformers cannot trace {type(module).__name__}", UNTRACEABLE):
        return OnnxExporter().export(module, example, config=config)


def fuse_with_transformers(model: Any) -> None:
    """Fuse an ``onnx_ir.Model`` into ONNX Runtime's operators, in place.

    The steps for CUDA are the ones that form MultiHeadAttention, which the CPU runs as well.
    """
    from transformers.exporters.onnxruntime_fusions import fuse_for_onnxruntime

    with quiet(), library_call("transformers cannot fuse the traced graph", UNTRACEABLE):
        fuse_for_onnxruntime(model, "cuda")
