"""Everything that knows ONNX: graphs opened, their linears split, weights stored."""
