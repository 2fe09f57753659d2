"""Which text fits an image, with plain onnxruntime: python match_image.py FOLDER IMAGE TEXT..."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image, ImageOps
from tokenizers import Tokenizer

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


class ImageMatcher:
    """The two graphs of a folder."""

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "edgelr" / "manifest.json").read_text(encoding="utf-8"))
        self.image, self.matching = manifest["image"], manifest["matching"]
        providers = [name for name in PROVIDERS if name in ort.get_available_providers()]
        paths = (manifest["encoder_file"], manifest["model_file"])
        self.texts, self.images = (
            ort.InferenceSession(str(folder / path), providers=providers) for path in paths
        )
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        longest = self.matching["tokens"]
        self.tokenizer.enable_truncation(longest)
        length = longest if self.matching["padded"] else None
        self.tokenizer.enable_padding(pad_id=self.matching["pad_token"], length=length)

    def embed_texts(self, texts: list[str]) -> Any:
        """Return one unit vector for each text, ``(texts, features)``; keep them for all images."""
        read = self.tokenizer.encode_batch(texts)
        feeds = {"input_ids": np.array([each.ids for each in read], np.int64)}
        if not self.matching["padded"]:
            feeds["attention_mask"] = np.array([each.attention_mask for each in read], np.int64)
        return unit(self.texts.run(None, feeds)[0])

    def embed_images(self, paths: list[str]) -> Any:
        """Return one unit vector for each image file, ``(images, features)``."""
        half = self.images.get_inputs()[0].type == "tensor(float16)"
        pixels = np.concatenate([prepare(path, self.image) for path in paths])
        given = pixels.astype(np.float16 if half else np.float32)
        return unit(self.images.run(None, {"pixel_values": given})[0])

    def chances(self, images: Any, texts: Any) -> Any:
        """Return how well each text fits each image, ``(images, texts)``.

        Probabilities that add up to 1; or of every text alone, where it was trained so.
        """
        logits = self.matching["scale"] * (images @ texts.T) + self.matching["bias"]
        if self.matching["padded"]:
            return 1 / (1 + np.exp(-logits))
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)


def unit(vectors: Any) -> Any:
    """Bring every row to the length 1."""
    vectors = vectors.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


if __name__ == "__main__":
    matcher, labels = ImageMatcher(Path(sys.argv[1])), sys.argv[3:]
    found = matcher.chances(matcher.embed_images(sys.argv[2:3]), matcher.embed_texts(labels))[0]
    for place in found.argsort()[::-1]:
        print(f"{found[place]:7.2%}  {labels[place]}")
