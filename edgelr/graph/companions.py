"""The files beside the graph: tokenizer, configurations, and onnxruntime-genai's configuration."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "chat_template*",
    "preprocessor_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
)
MODULES = ("modules.json", "1_Pooling/config.json")
GENAI = "genai_config.json"


def copy_companions(source: Path, out: Path, has_modules: bool = False) -> None:
    """Copy the tokenizer and the configurations of a Hugging Face folder.

    Args:
        source: folder of the model.
        out: folder of the bundle.
        has_modules: whether the graph does what ``modules.json`` names: nobody shall do it again.
    """
    for pattern in COMPANIONS:
        if has_modules and pattern in MODULES:
            continue
        for path in source.glob(pattern):
            target = out / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def write_genai_config(
    traced: Path, out: Path, model_file: str, provider: str, context_tokens: int
) -> None:
    """Adapt the builder's ``genai_config.json`` to a bundle, so that the folder runs in genai too.

    Args:
        traced: folder in which the builder left its file; without one nothing is written.
        out: folder of the bundle.
        model_file: graph file, relative to ``out``.
        provider: ``cpu`` or ``cuda``.
        context_tokens: longest planned sequence, tokens: genai reserves its cache.
    """
    if not (traced / GENAI).exists():
        return
    config = json.loads((traced / GENAI).read_text())
    decoder = config["model"]["decoder"]
    decoder["filename"] = model_file
    decoder["session_options"]["enable_mem_pattern"] = False  # as fast, in less memory
    decoder["session_options"]["provider_options"] = [{"cuda": {}}] if provider == "cuda" else []
    config["search"]["max_length"] = min(config["model"]["context_length"], context_tokens)
    (out / GENAI).write_text(json.dumps(config, indent=4) + "\n")
