"""What a mapper asks of a map: its classes, read back from the picture by their colours."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from c2gm.model.cartography_style import PALETTE
from c2gm.model.metrics import Pictures, Valid

CLASSES: dict[str, tuple[str, ...]] = {
    "wood": ("wood",),
    "water": ("water",),
    "built_up": ("residential", "commercial", "industrial", "institution"),
    "building": ("building", "building_edge", "block"),
    "road": tuple(
        road + part
        for road in ("street", "secondary", "primary", "motorway")
        for part in ("", "_edge")
    ),
}
"""Classes that are scored, of PALETTE names; every other colour belongs to none of them."""

ROAD_TOLERANCE_PX = 3
"""A road counts as found this near (in rows and columns) to where it should be."""

SHADES = 64
"""Per channel of `class_table`; palette colours are at least 12 of 256 apart."""

Counts = NDArray[np.int64]


def class_table(group_of: Mapping[str, int]) -> NDArray[np.uint8]:
    """A number for every colour of SHADES^3, red first: that of the nearest PALETTE colour.

    `group_of`: the number of every PALETTE name. Quicker than `read_classes` and about as good,
    for training.
    """
    colours = np.array(list(PALETTE.values()), dtype=np.float32)
    middle = (np.arange(SHADES, dtype=np.float32) + 0.5) * (256 / SHADES)
    grid = np.stack(np.meshgrid(middle, middle, middle, indexing="ij"), axis=-1).reshape(-1, 3)
    distance = (colours**2).sum(axis=1) - 2.0 * (grid @ colours.T)
    groups = np.array([group_of[name] for name in PALETTE], dtype=np.uint8)
    return np.asarray(groups[distance.argmin(axis=1)])


@lru_cache(maxsize=1)
def _palette() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Colours (n, 3), and of each its place in CLASSES, from 1; 0 is none of them."""
    class_of = {name: k + 1 for k, names in enumerate(CLASSES.values()) for name in names}
    colours = np.array(list(PALETTE.values()), dtype=np.float32)
    return colours, np.array([class_of.get(name, 0) for name in PALETTE], dtype=np.uint8)


def read_classes(pictures: Pictures) -> NDArray[np.uint8]:
    """Class of each pixel (n, h, w) by the nearest palette colour: place in CLASSES from 1, or 0.

    Blends at an edge may read as a third class, in a true map as in a painted one.
    """
    colours, classes = _palette()
    found = np.empty(pictures.shape[:3], dtype=np.uint8)
    for index, picture in enumerate(pictures):
        # |p - c|^2 without |p|^2, which is the same for all colours.
        distance = (colours**2).sum(axis=1) - 2.0 * (picture.astype(np.float32) @ colours.T)
        found[index] = classes[distance.argmin(axis=-1)]
    return found


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
            counts["road_completeness"] = _pairs(other & _near(one), other)
            counts["road_correctness"] = _pairs(one & _near(other), one)
    return counts


def _pairs(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> Counts:
    sums = [mask.sum(axis=(1, 2), dtype=np.int64) for mask in (part, whole)]
    return np.stack(sums, axis=1)


def _near(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    side = 2 * ROAD_TOLERANCE_PX + 1
    grown = functional.max_pool2d(
        torch.from_numpy(mask.astype(np.float32))[:, None], side, 1, ROAD_TOLERANCE_PX
    )
    return np.asarray(grown[:, 0].numpy() > 0)
