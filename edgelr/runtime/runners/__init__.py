"""One runner per modality: a graph in ONNX Runtime that answers."""
