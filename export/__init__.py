"""PyTorch to ONNX, proven equal and packed into a bundle."""
