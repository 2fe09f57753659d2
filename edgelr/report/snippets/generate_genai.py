"""Greedy generation with onnxruntime-genai: python generate_genai.py FOLDER PROMPT [NEW_TOKENS]."""

import sys

import onnxruntime_genai as og


def generate(model: og.Model, prompt_ids: list[int], new_tokens: int) -> list[int]:
    """Append the likeliest token until a text ends or ``new_tokens`` are there."""
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(do_sample=False, max_length=len(prompt_ids) + new_tokens)
    generator = og.Generator(model, parameters)
    generator.append_tokens(prompt_ids)
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)[len(prompt_ids) :]]


if __name__ == "__main__":
    bundle, prompt = sys.argv[1], sys.argv[2]
    limit = int(sys.argv[3]) if len(sys.argv) > 3 else 64
    language_model = og.Model(bundle)
    tokenizer = og.Tokenizer(language_model)
    ids = [int(token) for token in tokenizer.encode(prompt)]
    print(prompt + tokenizer.decode(generate(language_model, ids, limit)))
