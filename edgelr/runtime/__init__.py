"""Everything that knows ONNX Runtime: answers, accuracy, latency, memory and its cap."""
