"""A chat in the terminal with onnxruntime-genai: python chat_genai.py FOLDER [NEW_TOKENS].

An empty line ends the chat.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import onnxruntime_genai as og


def has_template(folder: Path) -> bool:
    """Whether the model has a chat template; without one, messages are lines."""
    settings = folder / "tokenizer_config.json"
    told = settings.read_text(encoding="utf-8") if settings.exists() else "{}"
    return (folder / "chat_template.jinja").exists() or "chat_template" in json.loads(told)


def render(tokenizer: og.Tokenizer, folder: Path, messages: list[dict[str, str]]) -> str:
    """Write a conversation as the model expects it."""
    if not has_template(folder):
        return "".join(f"{message['content']}\n" for message in messages)
    told = tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True)
    return str(told)


def end_tokens(folder: Path) -> set[int]:
    """Read the ids that end a text."""
    told = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    ends = told["model"].get("eos_token_id", [])
    return set(ends) if isinstance(ends, list) else {ends}


def answer(model: og.Model, ids: list[int], new_tokens: int, ends: set[int]) -> Iterator[int]:
    """Yield the likeliest tokens until the text ends or enough are there."""
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(do_sample=False, max_length=len(ids) + new_tokens)
    generator = og.Generator(model, parameters)
    generator.append_tokens(ids)
    while not generator.is_done():
        generator.generate_next_token()
        token = int(generator.get_next_tokens()[0])
        if token in ends:
            return
        yield token


def main(folder: Path, new_tokens: int) -> None:
    """Answer line after line, each with all that was said before."""
    model = og.Model(str(folder))
    tokenizer = og.Tokenizer(model)
    messages: list[dict[str, str]] = []
    while line := input("> "):
        messages.append({"role": "user", "content": line})
        ids = [int(token) for token in tokenizer.encode(render(tokenizer, folder, messages))]
        stream, shown = tokenizer.create_stream(), ""
        for token in answer(model, ids, new_tokens, end_tokens(folder)):
            piece = stream.decode(token)
            print(piece, end="", flush=True)
            shown += piece
        print()
        messages.append({"role": "assistant", "content": shown})


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 256)
    except (EOFError, KeyboardInterrupt):
        print()
