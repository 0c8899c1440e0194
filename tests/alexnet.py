"""LPIPS's network with random weights, where the package that brings the real ones is not there."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from c2gm.model.evaluation.lpips import AlexNetFeatures


def lpips_tables(seed: int) -> dict[str, Any]:
    """Random weights in the layout of the package's file."""
    rng = np.random.default_rng(seed)
    shapes = [(11, 3, 64), (5, 64, 192), (3, 192, 384), (3, 384, 256), (3, 256, 256)]
    net, tables = {}, dict[str, Any]()
    for index, (side, inputs, outputs) in enumerate(shapes):
        kernel = rng.normal(0, (side * side * inputs) ** -0.5, (side, side, inputs, outputs))
        net[f"Conv_{index}"] = {
            "kernel": kernel.astype(np.float32),
            "bias": rng.normal(0, 0.1, outputs).astype(np.float32),
        }
        linear = rng.random((1, 1, outputs, 1)).astype(np.float32)
        tables[f"NetLinLayer_{index}"] = {"Conv_0": {"kernel": linear}}
    return {"AlexNet_0": net, **tables}


def random_network(folder: Path) -> AlexNetFeatures:
    """Written to a file as the package has it, and read."""
    file = folder / "alexnet.ckpt"
    file.write_bytes(pickle.dumps(lpips_tables(0), protocol=3))
    return AlexNetFeatures(file)
