"""Text from sounds with plain onnxruntime, greedily: python transcribe.py FOLDER SOUND.wav..."""

import json
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def read(path: Path) -> dict[str, Any]:
    """Read a JSON file; one that is not there says nothing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def read_wave(path: str, rate: int) -> Any:
    """Read 16-bit samples, the mean of the channels; other files have to be converted before."""
    with wave.open(path, "rb") as file:
        channels, width, found, frames = file.getparams()[:4]
        content = file.readframes(frames)
    if (width, found) != (2, rate):
        raise SystemExit(f"{path}: ffmpeg -i {path} -ar {rate} -c:a pcm_s16le OTHER.wav")
    return np.frombuffer(content, "<i2").reshape(-1, channels).mean(1) / 32768


def mel_filters(sound: Any) -> Any:
    """Compute triangles ``(mel_bins, frequencies)`` on Slaney's mel scale."""
    bend, step = 15, np.log(6.4) / 27  # linear up to 15 mel, which is 1 kHz
    top = bend + np.log(sound["highest_hz"] / 1000) / step
    mel = np.linspace(0, top, sound["mel_bins"] + 2)
    edges = np.minimum(mel, bend) * 200 / 3 * np.exp(step * np.maximum(mel - bend, 0))
    low, middle, high = (edges[start : start + sound["mel_bins"], None] for start in range(3))
    at = np.linspace(0, sound["rate"] / 2, sound["window"] // 2 + 1)
    sides = np.minimum((at - low) / (middle - low), (high - at) / (high - middle))
    return np.maximum(0, sides) * 2 / (high - low)


def prepare(samples: Any, sound: Any) -> Any:
    """Compute ``(1, mel_bins, frames)``, as ``sound`` in the manifest says."""
    window, hop = sound["window"], sound["hop"]
    samples = samples[: sound["samples"]]
    samples = np.pad(samples, (0, sound["samples"] - len(samples)))
    samples = np.pad(samples, window // 2, mode="reflect")
    parts = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    power = np.abs(np.fft.rfft(parts[: sound["samples"] // hop] * hann)) ** 2
    decades = np.log10(np.maximum(mel_filters(sound) @ power.T, 1e-10))
    return ((np.maximum(decades, decades.max() - 8) + 4) / 4)[None]


def begin(known: dict[str, Any]) -> list[int | None]:
    """List what every text begins with; None stands for the language, which is heard."""
    languages, tasks = known.get("lang_to_id") or {}, known.get("task_to_id") or {}
    language, task = known.get("language"), known.get("task")
    begun: list[int | None] = []
    if language is None and task is None:
        begun = [token for _, token in sorted(known.get("forced_decoder_ids") or [])]
    if language is not None:
        begun.append(languages[language if language in languages else f"<|{language}|>"])
    elif languages and not begun:
        begun.append(None)
    if task or (language and tasks):
        begun.append(tasks[task or "transcribe"])
    untimed = known.get("no_timestamps_token_id")
    begun += [] if untimed is None or untimed in begun else [untimed]
    heard = [each for each in begun if each is not None or languages]
    return [known["decoder_start_token_id"], *heard]


class Transcriber:
    """The two graphs of a folder, on a GPU where onnxruntime has one."""

    def __init__(self, folder: Path) -> None:
        self.manifest = read(folder / "edgelr" / "manifest.json")
        known = read(folder / "config.json") | read(folder / "generation_config.json")
        self.known = {name: value for name, value in known.items() if value is not None}
        providers = [name for name in PROVIDERS if name in ort.get_available_providers()]
        self.encoder, self.decoder = (
            ort.InferenceSession(str(folder / self.manifest[name]), providers=providers)
            for name in ("encoder_file", "model_file")
        )
        self.names = [item.name for item in self.decoder.get_outputs()]

    def hear(self, samples: Any) -> dict[str, Any]:
        """Run the encoder: keys and values of a sound, and those of no token."""
        dtype = NUMPY_TYPES[self.encoder.get_inputs()[0].type]
        features = prepare(samples, self.manifest["sound"]).astype(dtype)
        cross = [each.name for each in self.encoder.get_outputs() if "present." in each.name]
        values = self.encoder.run(cross, {"input_features": features})
        past = {name.replace("present", "past_key_values"): value
                for name, value in zip(cross, values, strict=True)}  # fmt: skip
        for item in self.decoder.get_inputs():
            if ".decoder." in item.name:
                past[item.name] = np.zeros((1, item.shape[1], 0, item.shape[3]), dtype)
        return past

    def step(self, past: dict[str, Any], tokens: list[int]) -> Any:
        """Run the decoder on new tokens; ``past`` grows. Returns the logits that follow."""
        feed = past | {"input_ids": np.array([tokens], np.int64)}
        outputs = dict(zip(self.names, self.decoder.run(self.names, feed), strict=True))
        logits = outputs.pop("logits")[0, -1].astype(np.float32)
        past.update({name.replace("present", "past_key_values"): outputs[name] for name in outputs})
        return logits

    def transcribe(self, samples: Any, new_tokens: int = 224) -> list[int]:
        """Append the likeliest token until the text ends or ``new_tokens`` are there."""
        past, known = self.hear(samples), self.known
        begun = begin(known)
        if None in begun:
            languages = list(known["lang_to_id"].values())
            place = begun.index(None)
            scores = self.step(dict(past), [token for token in begun[:place] if token is not None])
            begun[place] = languages[int(scores[languages].argmax())]
        generated: list[int] = []
        step = [token for token in begun if token is not None]
        ends = known["eos_token_id"]
        ends = ends if isinstance(ends, list) else [ends]
        never = known.get("suppress_tokens", [])
        room = min(new_tokens, self.manifest["context_tokens"] - len(step))
        while len(generated) < room:
            logits = self.step(past, step)
            logits[never + ([] if generated else known.get("begin_suppress_tokens", []))] = -np.inf
            step = [int(logits.argmax())]
            if step[0] in ends:
                break
            generated += step
        return generated


if __name__ == "__main__":
    bundle = Path(sys.argv[1])
    model = Transcriber(bundle)
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    for name in sys.argv[2:]:
        tokens = model.transcribe(read_wave(name, model.manifest["sound"]["rate"]))
        print(name, tokenizer.decode(tokens), sep=": ")
