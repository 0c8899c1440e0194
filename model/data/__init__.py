"""Training and validation pairs: from sources on disk to batches."""
