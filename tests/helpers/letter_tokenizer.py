"""A small real classifier of images: letters in matplotlib's fonts, which every export brings."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
import torch
import transformers
from PIL import Image, ImageDraw, ImageFont
from tokenizers import Tokenizer, models, pre_tokenizers, processors

LETTERS = "ABCDEFGHKM"
TEMPLATE = "the letter {}"
PROMPTS = tuple(TEMPLATE.format(letter) for letter in LETTERS)
SIDE, CANVAS = 32, 40
TRAINED, EPOCHS, BATCH = 3000, 9, 50
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": SIDE, "width": SIDE},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def draw(letter: str, rng: np.random.Generator) -> Image.Image:
    """A bright letter on a dark ground: any of five fonts and sizes, moved, turned and noisy."""
    fonts = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVuS*-Bold.ttf"))
    font = ImageFont.truetype(str(fonts[rng.integers(len(fonts))]), int(rng.integers(20, 29)))
    ground, ink = (int(rng.integers(*shades)) for shades in ((0, 60), (180, 256)))
    picture = Image.new("RGB", (CANVAS, CANVAS), (ground,) * 3)
    middle = tuple(CANVAS // 2 + int(shift) for shift in rng.integers(-2, 3, 2))
    ImageDraw.Draw(picture).text(middle, letter, font=font, fill=(ink,) * 3, anchor="mm")
    turned = picture.rotate(
        float(rng.uniform(-10, 10)), Image.Resampling.BILINEAR, fillcolor=(ground,) * 3
    )
    noisy = np.asarray(turned) + rng.normal(0, 10, (CANVAS, CANVAS, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def letters(count: int, seed: int) -> tuple[list[Image.Image], np.ndarray]:
    """Images, and the place of each one's letter in the alphabet."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(LETTERS), size=count)
    return [draw(LETTERS[label], rng) for label in labels], labels


def write_images(folder: Path, count: int, seed: int) -> dict[Path, int]:
    """Write images into a sub-folder for each letter; return their labels."""
    found = {}
    for index, (picture, label) in enumerate(zip(*letters(count, seed), strict=True)):
        path = folder / LETTERS[label] / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        found[path] = int(label)
    return found


def write_classifier(folder: Path, family: str) -> None:
    """Train a vision transformer or a ResNet, in about twenty seconds, and write its folder."""
    torch.manual_seed(0)
    named = {
        "id2label": dict(enumerate(LETTERS)),
        "label2id": {letter: label for label, letter in enumerate(LETTERS)},
    }
    if family == "resnet":
        sizes = {"embedding_size": 32, "hidden_sizes": [48, 64, 96], "depths": [1, 1, 1]}
        config = transformers.ResNetConfig(**sizes, layer_type="basic", **named)
        train(model := transformers.ResNetForImageClassification(config), epochs=4)
    else:
        config = transformers.ViTConfig(
            image_size=SIDE,
            patch_size=8,
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            initializer_range=0.06,  # it learns sooner than from the usual 0.02
            **named,
        )
        train(model := transformers.ViTForImageClassification(config), EPOCHS)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))


def write_matcher(folder: Path) -> None:
    """Train a CLIP to tell which of ten prompts fits an image, and write its folder."""
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4}
    texts = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 6 + len(LETTERS)}
    images = {"hidden_size": 96, "intermediate_size": 192, "image_size": SIDE, "patch_size": 8}
    config = transformers.CLIPConfig(
        text_config={**texts, **sizes, **special, "max_position_embeddings": 12},
        vision_config={**images, **sizes},
        projection_dim=48,
    )
    tokenizer = make_word_tokenizer()
    tokenizer.enable_padding()
    ids = torch.tensor([each.ids for each in tokenizer.encode_batch(list(PROMPTS))])
    train(model := transformers.CLIPModel(config), EPOCHS, input_ids=ids)
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))


def make_word_tokenizer() -> Tokenizer:
    """Give every word of the prompts a token."""
    words = ("<pad>", "<unk>", "<s>", "</s>", *TEMPLATE.split()[:-1], *LETTERS)
    tokens = {word: place for place, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(tokens, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return tokenizer


def train(model: transformers.PreTrainedModel, epochs: int, **beside: torch.Tensor) -> None:
    """Learn the letters; ``beside`` are further arguments, the same for every image."""
    pictures, labels = letters(TRAINED, seed=0)
    small = (each.resize((SIDE, SIDE), Image.Resampling.BILINEAR) for each in pictures)
    pixels = torch.tensor(np.stack([np.asarray(each) for each in small])).permute(0, 3, 1, 2)
    inputs, targets = pixels / 127.5 - 1, torch.tensor(labels)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = epochs * TRAINED // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(TRAINED).split(BATCH):
            optimizer.zero_grad()
            output = model(pixel_values=inputs[rows], **beside)
            logits = output.logits_per_image if beside else output.logits
            torch.nn.functional.cross_entropy(logits, targets[rows]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
