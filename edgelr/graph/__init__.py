"""Everything that knows ONNX: trace, tidy, bind, rewrite, fuse, precision, save."""
