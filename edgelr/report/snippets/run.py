"""A graph on the sample that came with it, with plain onnxruntime: python run.py FOLDER."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def run(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return every output by its name."""
    manifest = json.loads((folder / "edgelr" / "manifest.json").read_text(encoding="utf-8"))
    providers = [name for name in PROVIDERS if name in ort.get_available_providers()]
    options = ort.SessionOptions()
    options.enable_mem_pattern = False  # as fast, in less memory
    session = ort.InferenceSession(
        str(folder / manifest["model_file"]), options, providers=providers
    )
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def first_sample(folder: Path) -> dict[str, Any]:
    """Read the first of the samples in the bundle: one array for every input."""
    with np.load(folder / "edgelr" / "inputs.npz") as file:
        return {name: file[name][0, ...] for name in file.files}


if __name__ == "__main__":
    FOLDER = Path(sys.argv[1])
    for name, values in run(FOLDER, first_sample(FOLDER)).items():
        print(name, values.dtype, values.shape)
