"""An existing ``.onnx`` file as source: everything from ONNX Runtime and numpy, no torch.

file ─ open ─ samples ─ components (Grams, whitened SVD) ─ sensitivity ─ plan ─ split ─ proof
"""
