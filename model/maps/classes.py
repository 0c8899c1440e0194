"""The classes of a map in our style, and reading them back from its pixels by their colours."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from c2gm.model.maps.style import PALETTE

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

SHADES = 64
"""Per channel of `class_table`; palette colours are at least 12 of 256 apart."""


def class_table(group_of: Mapping[str, int]) -> NDArray[np.uint8]:
    """A number for every colour (SHADES, SHADES, SHADES), red first: the nearest PALETTE colour's.

    `group_of`: the number of every PALETTE name. Quicker than `read_classes` and about as good,
    for training.
    """
    colours = np.array(list(PALETTE.values()), dtype=np.float32)
    middle = (np.arange(SHADES, dtype=np.float32) + 0.5) * (256 / SHADES)
    grid = np.stack(np.meshgrid(middle, middle, middle, indexing="ij"), axis=-1).reshape(-1, 3)
    distance = (colours**2).sum(axis=1) - 2.0 * (grid @ colours.T)
    groups = np.array([group_of[name] for name in PALETTE], dtype=np.uint8)
    return np.asarray(groups[distance.argmin(axis=1)].reshape(SHADES, SHADES, SHADES))


@lru_cache(maxsize=1)
def _palette() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Colours (n, 3), and of each its place in CLASSES, from 1; 0 is none of them."""
    class_of = {name: k + 1 for k, names in enumerate(CLASSES.values()) for name in names}
    colours = np.array(list(PALETTE.values()), dtype=np.float32)
    return colours, np.array([class_of.get(name, 0) for name in PALETTE], dtype=np.uint8)


def read_classes(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
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
