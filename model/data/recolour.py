"""Augmentation by class: water, roofs and vegetation of other colours than this training ground's.

Half a dozen places cannot show every colour that water has. Because the map says where it lies, it
can be given others: black lakes, green ponds, brown rivers, grey ones with the sun in them.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from c2gm.model.data.mosaic import Picture
from c2gm.model.maps.classes import CLASSES, SHADES, class_table
from c2gm.model.maps.style import PALETTE

WATER, BUILDING, GREEN, FIELD = 1, 2, 3, 4
_MEMBERS = {
    WATER: CLASSES["water"],
    BUILDING: CLASSES["building"],
    GREEN: ("wood", "wetland"),
    FIELD: ("farmland", "grass", "park", "pitch", "cemetery"),
}

_WATERS: tuple[tuple[tuple[int, int, int], int], ...] = (
    ((22, 28, 30), 14),  # deep and clear, or in shadow
    ((38, 58, 62), 18),
    ((52, 74, 48), 20),  # algae
    ((58, 98, 104), 25),  # glacial
    ((104, 98, 76), 25),  # silt
    ((128, 134, 132), 25),  # sky in it
    ((196, 200, 200), 25),  # sun in it
)
"""Colours of water seen from above, RGB, and how far from each one is drawn."""

_ROOFS: tuple[tuple[int, int, int], ...] = (
    (150, 82, 62),
    (112, 72, 60),
    (86, 86, 90),
    (140, 140, 140),
    (206, 206, 202),
    (176, 160, 136),
    (104, 122, 140),
)

_WATER_SHARE, _ROOF_SHARE, _GREEN_SHARE = 0.5, 0.3, 0.35
_STREAM = 5
"""Strips of water thinner than this, in pixels, are drawn wider than they are: left alone."""


@lru_cache(maxsize=1)
def _groups() -> NDArray[np.uint8]:
    group_of = {name: group for group, names in _MEMBERS.items() for name in names}
    return class_table({name: group_of.get(name, 0) for name in PALETTE})


def recolour(imagery: Picture, target: Picture, rng: Generator) -> Picture:
    """Imagery RGBA (h, w, 4) with classes of its map RGB (h, w, 3) in other colours, or as it is.

    Light and texture stay; where there is no imagery nothing changes.
    """
    chosen = rng.random(3) < (_WATER_SHARE, _ROOF_SHARE, _GREEN_SHARE)
    if not chosen.any():
        return imagery
    red, green, blue = np.moveaxis(target // (256 // SHADES), -1, 0)
    groups = _groups()[red, green, blue]
    colours = imagery[..., :3].astype(np.float32)
    if chosen[0]:
        _blend(colours, _areas(groups == WATER), _another_water, rng)
    if chosen[1]:
        _blend(colours, groups == BUILDING, _another_roof, rng)
    if chosen[2]:
        _blend(colours, groups == (GREEN if rng.random() < 0.5 else FIELD), _another_season, rng)
    varied = np.clip(colours + 0.5, 0, 255).astype(np.uint8)
    return np.concatenate([varied * (imagery[..., 3:] > 0), imagery[..., 3:]], axis=2)


def _picture(mask: NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray((mask * 255).astype(np.uint8))


def _areas(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask without strips thinner than _STREAM."""
    opened = (
        _picture(mask).filter(ImageFilter.MinFilter(_STREAM)).filter(ImageFilter.MaxFilter(_STREAM))
    )
    return np.asarray(opened) > 0


def _blend(
    colours: NDArray[np.float32],
    mask: NDArray[np.bool_],
    change: Callable[[NDArray[np.float32], Generator], NDArray[np.float32]],
    rng: Generator,
) -> None:
    """Put changed colours in the mask, in place, with a soft edge: maps are never quite in place.

    `change` gets the mask's pixels (n, 3) and returns as many.
    """
    if not mask.any():
        return
    blur = ImageFilter.GaussianBlur(float(rng.uniform(0.5, 1.5)))
    soft = np.asarray(_picture(mask).filter(blur))
    inside = soft > 0
    share = soft[inside, None].astype(np.float32) / 255.0
    seen = colours[inside]
    colours[inside] = seen + share * (change(seen, rng) - seen)


def _another_water(seen: NDArray[np.float32], rng: Generator) -> NDArray[np.float32]:
    colour, spread = _WATERS[int(rng.integers(len(_WATERS)))]
    wanted = np.array(colour) + rng.normal(0.0, spread) + rng.normal(0.0, spread / 3, 3)
    texture = (seen - seen.mean(axis=0)) * rng.uniform(0.1, 0.9)
    return np.asarray(np.maximum(wanted, 4.0) + texture, dtype=np.float32)


def _another_roof(seen: NDArray[np.float32], rng: Generator) -> NDArray[np.float32]:
    wanted = np.array(_ROOFS[int(rng.integers(len(_ROOFS)))]) + rng.normal(0.0, 12.0, 3)
    light = seen.mean(axis=1, keepdims=True) / max(float(seen.mean()), 1.0)
    return np.asarray(seen + rng.uniform(0.2, 0.7) * (wanted * light - seen), dtype=np.float32)


def _another_season(seen: NDArray[np.float32], rng: Generator) -> NDArray[np.float32]:
    gain = np.exp(rng.normal(0.0, 0.2) + rng.normal(0.0, 0.12, 3))
    return np.asarray(seen * gain, dtype=np.float32)
