"""Stage 2's references: the maps that a model itself draws of the training ground.

A model that was trained on true references alone trusts them too much: in a cascade it meets its
own mistakes. So its cascade is run over every area once, and training reads references from there.
Validation ground is invalid in the imagery that the cascade sees, as everywhere in training.
"""

import os
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import numpy as np

from c2gm.model.data.mosaic import Area, Extent, Picture, crop, open_areas
from c2gm.model.data.pairs import Window, imagery_of
from c2gm.model.maps.cartography import BACKGROUND
from c2gm.model.pipeline import ReadImagery, generate_cascade
from c2gm.model.sgdm import SGDM
from c2gm.runtime.levels import SPANS, TILE_SIZE

TILE_LEVELS = TILE_SIZE.bit_length() - 1
"""Levels from a tile's pixels up to the one pixel that covers it."""


def draw_own_references(
    dataset: Path, model: SGDM, steps: int, seed: int, redraw: bool = False
) -> Iterator[str]:
    """Write `generated_{z}.npy` into the areas of a dataset folder, yielding a line an area.

    Levels that serve as a 4X reference are drawn, by the reference cascade in `steps` DDIM steps.
    Finished areas are left as they are unless `redraw`. Raises DataError if there are no areas.
    """
    for area in open_areas(dataset):
        levels = [z for z in area.levels if z <= max(area.targets) - max(SPANS)]
        missing = [z for z in levels if redraw or area.generated(z) is None]
        if not missing:
            yield f"{area.name}: already drawn"
            continue
        maps = generate_cascade(
            model,
            _imagery_of(area),
            {z: astuple(_whole_tiles(area.levels[z])) for z in levels},
            seed=seed,
            steps=steps,
        )
        for level, picture in maps.items():
            _write(area, level, picture)
        tiles = sum(p.shape[0] * p.shape[1] for p in maps.values()) // TILE_SIZE**2
        yield f"{area.name}: levels {min(levels)}-{max(levels)}, at most {tiles} tiles"


def _imagery_of(area: Area) -> ReadImagery:
    """The area's training imagery, as the cascade asks for it."""

    def read(level: int, left: int, top: int, width: int, height: int) -> Picture:
        return imagery_of(Window(area, level, Extent(left, top, width, height)), "train")

    return read


def _whole_tiles(extent: Extent) -> Extent:
    """The tiles that cover an extent: a tile is a pixel, TILE_LEVELS up."""
    return extent.coarser(TILE_LEVELS).finer(TILE_LEVELS)


def _write(area: Area, level: int, picture: Picture) -> None:
    """The area's part of a level's map, whole or not at all; background where nothing is drawn."""
    colours = np.where(picture[..., 3:] > 0, picture[..., :3], np.array(BACKGROUND, np.uint8))
    extent = area.levels[level]
    drawn = crop(colours, _whole_tiles(extent), extent)
    target = area.path / f"generated_{level}.npy"
    part = target.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, drawn)
    os.replace(part, target)
