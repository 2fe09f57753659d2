"""Read how a model's images or sounds are prepared, as transformers understands it.

``preprocessor_config.json`` has many dialects, and what it leaves out differs between families.
transformers resolves them once, here; the manifest of a bundle then says it in one way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import torch
import transformers

from edgelr.core.errors import InputError
from edgelr.core.inputs import ImageInput, SoundInput

HIGHEST_HZ = 8000.0  # where the mel filters of transformers' Whisper end, whatever the rate
Colours: TypeAlias = tuple[float, float, float]
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers


def image_input(module: Any, folder: Path) -> ImageInput:
    """Describe how the images of a model are prepared.

    Args:
        module: transformers model that reads images.
        folder: folder of the model, with its ``preprocessor_config.json``.

    Raises:
        InputError: the file is missing, prepares images in a way that edgelr cannot repeat, or to a
            size that the model does not take.
    """
    options = _options(folder)
    resized = _resized(options, folder)
    cropped = bool(options.get("do_center_crop"))
    side = _side(options, resized, cropped, folder)
    mean, std = _moved(options)
    return ImageInput(
        side=side,
        tokens=_tokens(module, side, folder),
        resized=resized,
        resample=FILTERS[int(options["resample"])],
        cropped=cropped,
        scale=float(options["rescale_factor"]) if options.get("do_rescale") else 1.0,
        mean=mean,
        std=std,
    )


def sound_input(module: Any, folder: Path) -> SoundInput:
    """Describe how the sounds of a model are prepared.

    Args:
        module: transformers model that reads sounds.
        folder: folder of the model, with its ``preprocessor_config.json``.

    Raises:
        InputError: the file is missing, prepares sounds in a way that edgelr cannot repeat, or to
            a size that the model does not take.
    """
    options, config = _sound_options(folder), module.config
    found = SoundInput(
        rate=options["sampling_rate"],
        samples=options["chunk_length"] * options["sampling_rate"],
        window=options["n_fft"],
        hop=options["hop_length"],
        mel_bins=options["feature_size"],
        highest_hz=HIGHEST_HZ,
        tokens=config.max_source_positions,
    )
    wanted = (config.num_mel_bins, module.get_encoder().conv2.stride[0] * found.tokens)
    if (found.mel_bins, found.frames) != wanted or options.get("dither"):
        raise InputError(
            f"{folder}/preprocessor_config.json makes {found.mel_bins} mel bins and "
            f"{found.frames:,} frames of a sound, with dither {options.get('dither', 0.0)}; "
            f"expected {wanted[0]} and {wanted[1]:,}, as the model reads, without dither. Change "
            f"feature_size, chunk_length and dither there."
        )
    return found


def _sound_options(folder: Path) -> dict[str, Any]:
    """Read the configuration of the one extractor that ``audio.log_mel`` repeats."""
    try:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        options: dict[str, Any] = extractor.to_dict()
        problem = f"it names the extractor {options['feature_extractor_type']}"
    except (OSError, ValueError) as error:
        options, problem = {}, str(error)
    if options.get("feature_extractor_type") == "WhisperFeatureExtractor":
        return options
    raise InputError(
        f"{folder} does not tell how its sounds are prepared ({problem}); expected a "
        f"preprocessor_config.json of a WhisperFeatureExtractor. Save it with "
        f"AutoFeatureExtractor.from_pretrained(...).save_pretrained(folder)."
    )


def _options(folder: Path) -> dict[str, Any]:
    """Read the configuration with its family's defaults filled in."""
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, backend="pil"
        )
    except (OSError, ValueError, ImportError) as error:
        raise InputError(
            f"{folder} does not tell how its images are prepared ({error}); expected a "
            f"preprocessor_config.json of an image processor that runs with Pillow. Save it with "
            f"AutoImageProcessor.from_pretrained(...).save_pretrained(folder)."
        ) from error
    options: dict[str, Any] = processor.to_dict()
    return options


def _resized(options: dict[str, Any], folder: Path) -> tuple[int, ...]:
    size = {name: value for name, value in (options.get("size") or {}).items() if value}
    if options.get("do_resize") and not options.get("do_pad"):
        if size.keys() == {"height", "width"}:
            return (size["height"], size["width"])
        if size.keys() == {"shortest_edge"}:
            return (size["shortest_edge"],)
    raise InputError(
        f"{folder}/preprocessor_config.json resizes images to {size} (do_resize "
        f"{options.get('do_resize')}, do_pad {options.get('do_pad')}); expected height and width, "
        f"or shortest_edge, without padding. Give a model that sees images of one size."
    )


def _side(options: dict[str, Any], resized: tuple[int, ...], cropped: bool, folder: Path) -> int:
    """Height and width of the model's input."""
    crop = options.get("crop_size") or {}
    sides = (crop.get("height"), crop.get("width")) if cropped else resized
    if len(sides) == 2 and sides[0] == sides[1] and sides[0] and sides[0] <= min(resized):
        return int(sides[0])
    raise InputError(
        f"{folder}/preprocessor_config.json resizes images to {resized} and "
        f"{f'cuts {sides} out of them' if cropped else 'cuts nothing out of them'}; expected one "
        f"square that lies inside. Change size or crop_size."
    )


def _tokens(module: Any, side: int, folder: Path) -> int:
    """Count the tokens that the model makes of an image, by trying one."""
    try:
        with torch.no_grad():
            tower = getattr(module, "vision_model", module.base_model)
            found = tower(pixel_values=torch.zeros(1, 3, side, side))
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"{folder} prepares images of {side} x {side} pixels, and its model does not take them "
            f"({error}). Expected the size that it was trained with: change "
            f"preprocessor_config.json."
        ) from error
    hidden = found.last_hidden_state  # (1, tokens, features), or (1, features, height, width)
    return int(hidden.shape[1] if hidden.ndim == 3 else hidden[0, 0].numel())


def _moved(options: dict[str, Any]) -> tuple[Colours, Colours]:
    """Read the mean that is subtracted and the deviation to divide by, in one step each.

    EfficientNet's processor may subtract 1 first (``rescale_offset``), and divides once more for
    models with a head (``include_top``).
    """
    normalized = bool(options.get("do_normalize"))
    mean = _colours(options["image_mean"] if normalized else 0.0)
    std = _colours(options["image_std"] if normalized else 1.0)
    if options.get("do_rescale") and options.get("rescale_offset"):
        mean = _colours([1.0 + each for each in mean])
    if options.get("include_top"):
        again = _colours(options["image_std"])
        std = _colours([each * other for each, other in zip(std, again, strict=True)])
    return mean, std


def _colours(values: Any) -> Colours:
    """One number for red, green and blue each; a single one counts for all."""
    red, green, blue = values if isinstance(values, (list, tuple)) else [values] * 3
    return float(red), float(green), float(blue)
