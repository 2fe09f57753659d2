"""edgelr: smaller, faster ONNX models for one edge device, with proof."""

__all__ = ["__version__"]

__version__ = "0.1.0"
