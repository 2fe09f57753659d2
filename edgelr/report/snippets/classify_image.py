"""Labels of images, with plain onnxruntime: python classify_image.py FOLDER IMAGE..."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image, ImageOps

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def prepare(path: str, image: Any) -> Any:
    """Turn a file into ``(1, 3, side, side)``, as ``image`` in the manifest says."""
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    edges = image["resized"]
    if len(edges) == 1:  # the shorter edge, and the longer in proportion
        edges = [int(edges[0] * edge / min(picture.size)) for edge in reversed(picture.size)]
    height, width = edges
    resized = picture.resize((width, height), Image.Resampling[image["resample"].upper()])
    top, left = ((edge - image["side"]) // 2 for edge in (height, width))  # 0 where it fits
    pixels = np.asarray(resized)[top : top + image["side"], left : left + image["side"]]
    values = (pixels * image["scale"] - np.array(image["mean"])) / np.array(image["std"])
    return values.transpose(2, 0, 1)[None]


def probabilities(logits: Any, config: Any) -> Any:
    """Turn logits ``(labels,)`` into probabilities: of one label, or of each of several."""
    several = config.get("problem_type") == "multi_label_classification"
    if several or len(logits) == 1:
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def classify(folder: Path, paths: list[str], best: int = 3) -> list[list[tuple[str, float]]]:
    """Return the ``(label, probability)`` of every image's most probable labels."""
    manifest = json.loads((folder / "edgelr" / "manifest.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    providers = [name for name in PROVIDERS if name in ort.get_available_providers()]
    session = ort.InferenceSession(str(folder / manifest["model_file"]), providers=providers)
    dtype = np.float16 if session.get_inputs()[0].type == "tensor(float16)" else np.float32
    found = []
    for path in paths:
        pixels = prepare(path, manifest["image"]).astype(dtype)
        logits = session.run(None, {"pixel_values": pixels})[0][0].astype(np.float64)
        chances = probabilities(logits, config)
        order = chances.argsort()[::-1][:best]
        found.append([(config["id2label"][str(label)], float(chances[label])) for label in order])
    return found


if __name__ == "__main__":
    for name, labelled in zip(sys.argv[2:], classify(Path(sys.argv[1]), sys.argv[2:]), strict=True):
        print(name, *(f"{probability:7.2%} {label}" for label, probability in labelled), sep="  ")
