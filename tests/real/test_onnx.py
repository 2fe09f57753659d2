"""Real .onnx files from installed packages: a sentence encoder, and a reader of text lines."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image, ImageDraw, ImageFont
from tokenizers import Tokenizer

from edgelr.core.report import Report
from edgelr.data.text import read_text, split_sentences
from edgelr.report.schema import from_json
from tests.real.test_decoder import edgelr, model_path

pytestmark = pytest.mark.real

TOKENS = 64
WIDTH, HEIGHT, MARGIN = 320, 48, 8  # pixels; the height is the graph's
LINES = 240  # half of them calibrate
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf")


def report_of(folder: Path) -> Report:
    (path,) = (folder / "reports").glob("*.json")
    return from_json(path.read_text())


def exported(name: str, inputs: dict[str, np.ndarray], folder: Path) -> Path:
    """Export a packaged graph at a share of 0.8, through the command line."""
    calibration, out = folder / "inputs.npz", folder / "bundle"
    np.savez(calibration, **inputs)  # type: ignore[arg-type]
    options = ["--profile", "generic-cpu", "--keep", "0.8", "--calibration", str(calibration)]
    edgelr(folder / "cache", "export", model_path(name), *options, "--out", str(out))
    return out


def run(path: Path | str, output: str | None, **inputs: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options)
    found: np.ndarray = session.run([output] if output else None, inputs)[0]
    return found


# --- paraphrase-MiniLM-L3 ------------------------------------------------------------------------


def tokenized(texts: list[str]) -> dict[str, np.ndarray]:
    """Rows of ids and masks ``(texts, TOKENS)``; MiniLM models share one vocabulary."""
    tokenizer = Tokenizer.from_file(str(Path(model_path("minilm")) / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    encodings = tokenizer.encode_batch(texts)
    return {
        "input_ids": np.array([each.ids for each in encodings], np.int64),
        "attention_mask": np.array([each.attention_mask for each in encodings], np.int64),
    }


@pytest.fixture(scope="module")
def paraphrase(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = split_sentences(read_text(None), 256)
    return exported("paraphrase", tokenized(texts), tmp_path_factory.mktemp("paraphrase"))


def test_a_sentence_encoder_embeds_like_the_original(paraphrase: Path) -> None:
    report = report_of(paraphrase)
    assert 0.78 <= report.plan.kept <= 0.8
    assert report.validation is not None
    assert report.validation.passed
    texts = split_sentences(read_text(None), 400)[256:]
    before, after = (
        run(path, "461", **tokenized(texts))
        for path in (model_path("paraphrase"), paraphrase / "onnx" / "model.onnx")
    )
    lengths = np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
    assert ((before * after).sum(-1) / lengths).mean() >= 0.98


def test_meanings_stay_apart(paraphrase: Path) -> None:
    rows = tokenized(["A dog runs.", "A puppy is running.", "Interest rates rose again."])
    vectors = run(paraphrase / "onnx" / "model.onnx", "461", **rows)
    first, second, other = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    assert first @ second > first @ other + 0.3


# --- PP-OCR --------------------------------------------------------------------------------------


def rendered(text: str, seed: int) -> np.ndarray:
    """Draw a line of text as the graph reads it: ``(3, HEIGHT, WIDTH)`` in [-1, 1], BGR."""
    generator = np.random.default_rng(seed)
    paper, ink = generator.integers(200, 256, 3), generator.integers(0, 90, 3)
    image = Image.new("RGB", (WIDTH, HEIGHT), tuple(int(value) for value in paper))
    place, color = (MARGIN, MARGIN), tuple(int(value) for value in ink)
    ImageDraw.Draw(image).text(place, text, fill=color, font=font(seed))
    pixels = np.asarray(image)[:, :, ::-1] + generator.normal(0, 4, (HEIGHT, WIDTH, 3))
    drawn: np.ndarray = (pixels / 127.5 - 1).transpose(2, 0, 1).astype(np.float32)
    return drawn


def font(seed: int) -> Any:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / FONTS[seed % len(FONTS)]), 26)


def fitting(text: str, seed: int) -> str:
    """Take the first words that fit into the line."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if font(seed).getlength(longer) > WIDTH - 2 * MARGIN:
            break
        line = longer
    return line


@pytest.fixture(scope="module")
def lines() -> list[str]:
    sentences = [text for text in split_sentences(read_text(None), 2000) if text.isascii()]
    chosen = np.random.default_rng(0).permutation(len(sentences))[:LINES]
    return [fitting(sentences[place], seed) for seed, place in enumerate(chosen)]


@pytest.fixture(scope="module")
def images(lines: list[str]) -> np.ndarray:
    return np.stack([rendered(text, seed) for seed, text in enumerate(lines)])


@pytest.fixture(scope="module")
def reader(images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported("pp-ocr", {"x": images}, tmp_path_factory.mktemp("reader"))


def read(path: Path | str, images: np.ndarray) -> list[str]:
    """Recognize lines: the likeliest character of every place, repetitions and blanks removed."""
    (characters,) = (
        entry.value for entry in onnx.load(model_path("pp-ocr")).metadata_props
    )  # the only entry of the graph
    alphabet = ["", *characters.splitlines(), " "]
    found = run(path, None, x=images).argmax(-1)  # (lines, places)
    return ["".join(alphabet[place] for place, _ in groupby(row)) for row in found]


def test_the_same_text_is_read(reader: Path, images: np.ndarray, lines: list[str]) -> None:
    report = report_of(reader)
    assert 0.7 <= report.plan.kept <= 0.8
    held_out = slice(LINES // 2, LINES)
    before = read(model_path("pp-ocr"), images[held_out])
    after = read(reader / "onnx" / "model.onnx", images[held_out])
    right = [
        sum(text == line for text, line in zip(texts, lines[held_out], strict=True))
        for texts in (before, after)
    ]
    assert right[0] >= 0.8 * LINES / 2  # the original itself must read what is drawn
    assert right[1] >= 0.9 * right[0]  # 101 against 109 when this was written
    assert sum(map(str.__eq__, before, after)) >= 0.85 * LINES / 2
