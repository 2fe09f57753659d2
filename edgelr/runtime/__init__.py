"""Run, check and time finished bundles: the only package that knows ONNX Runtime. No torch here."""
