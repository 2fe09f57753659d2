"""Everything that knows ONNX Runtime."""
