"""Kinds of sources, one per file: models of transformers, and ONNX graphs."""
