"""PyTorch: what C2GM computes and how it learns."""
