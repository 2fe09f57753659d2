"""Embeddings of images, with plain onnxruntime: python embed_image.py FOLDER IMAGE..."""

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


def embed(folder: Path, paths: list[str]) -> Any:
    """Return one vector of length 1 per image, so that a dot product is a cosine similarity."""
    manifest = json.loads((folder / "edgelr" / "manifest.json").read_text(encoding="utf-8"))
    providers = [name for name in PROVIDERS if name in ort.get_available_providers()]
    session = ort.InferenceSession(str(folder / manifest["model_file"]), providers=providers)
    dtype = np.float16 if session.get_inputs()[0].type == "tensor(float16)" else np.float32
    vectors = []
    for path in paths:
        pixels = prepare(path, manifest["image"]).astype(dtype)
        hidden = session.run(["last_hidden_state"], {"pixel_values": pixels})[0]
        tokens = hidden[0].astype(np.float32)
        vectors.append(tokens[0] if manifest["pooling"] == "cls" else tokens.mean(0))
    return np.array([vector / np.linalg.norm(vector) for vector in vectors])


if __name__ == "__main__":
    found = embed(Path(sys.argv[1]), sys.argv[2:])
    print(f"{len(found)} vectors of {found.shape[1]} numbers; cosine similarities:")
    print(np.round(found @ found.T, 4))
