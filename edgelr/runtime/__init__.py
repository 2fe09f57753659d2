"""Everything that knows ONNX Runtime: accuracy, latency, memory and its cap."""
