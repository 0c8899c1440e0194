"""What a mapper asks of a map: are its classes where they should be, and are the roads found."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from c2gm.model.evaluation.metrics import Pictures, Valid
from c2gm.model.maps.classes import CLASSES, read_classes

ROAD_TOLERANCE_PX = 3
"""A road counts as found this near (in rows and columns) to where it should be."""

Counts = NDArray[np.int64]


def class_counts(output: Pictures, truth: Pictures, valid: Valid) -> dict[str, Counts]:
    """What the class scores are made of, per picture: (n, 2) numerators and denominators.

    `iou_CLASS`: pixels of the class in both, in either. `road_completeness`: true road pixels with
    a painted one within ROAD_TOLERANCE_PX, all true ones; `road_correctness`: the same the other
    way round (Heipke et al. 1997). Sets are scored by their sums: tiles without a class are silent.
    """
    read, true = read_classes(output), read_classes(truth)
    counts: dict[str, Counts] = {}
    for number, name in enumerate(CLASSES, start=1):
        one, other = (read == number) & valid, (true == number) & valid
        counts[f"iou_{name}"] = _pairs(one & other, one | other)
        if name == "road":
            counts["road_completeness"] = _pairs(other & near(one, ROAD_TOLERANCE_PX), other)
            counts["road_correctness"] = _pairs(one & near(other, ROAD_TOLERANCE_PX), one)
    return counts


def _pairs(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> Counts:
    sums = [mask.sum(axis=(1, 2), dtype=np.int64) for mask in (part, whole)]
    return np.stack(sums, axis=1)


def near(masks: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """Masks (n, h, w), grown by so many pixels in rows and columns."""
    grown = functional.max_pool2d(
        torch.from_numpy(masks.astype(np.float32))[:, None], 2 * pixels + 1, 1, pixels
    )
    return np.asarray(grown[:, 0].numpy() > 0)
