"""What checkpoints hold beside plain weights: adapters, quantized weights, GGUF, tokenizers.

All of it becomes a plain folder, float32 with a ``tokenizer.json``, or is refused by its name.
"""
