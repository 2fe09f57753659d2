"""Everything that knows ONNX."""
