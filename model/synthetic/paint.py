"""Imagery painted over a vector map: what a camera would see where the map says what is there."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter

from c2gm.model.maps.vectors import VectorMap
from c2gm.model.synthetic.built import draw_buildings, draw_paths, draw_ways
from c2gm.model.synthetic.canvas import Byte, Canvas
from c2gm.model.synthetic.features import Scene
from c2gm.model.synthetic.finish import expose, illuminate
from c2gm.model.synthetic.ground import (
    draw_forest,
    draw_land,
    draw_pitches,
    draw_single_trees,
    draw_water,
)
from c2gm.model.synthetic.style import PaintStyle
from c2gm.runtime.levels import EARTH_CIRCUMFERENCE_M, TILE_SIZE

# Shadows and crowns reach this far into a window from things outside it.
_REACH_M = 24.0


class Painter:
    """Paints windows of one map in one style; prepares the map once, so that many are fast."""

    def __init__(self, vector_map: VectorMap, style: PaintStyle) -> None:
        self.style = style
        self.scene = Scene(vector_map, style)

    def paint(self, level: int, left: int, top: int, width: int, height: int) -> Byte:
        """Imagery uint8 (height, width, 3) of a window in pixels of the level's grid.

        Windows that overlap agree but for a few grey levels along some edges, which are
        anti-aliased in another way when more features share a path.
        """
        # Compression works on blocks and smooths colour across them: keep blocks where they are
        # whatever the window, and compress one more all around.
        edge = 16 if self.style.jpeg_quality else 0
        x0, y0, x1, y1 = left, top, left + width, top + height
        if edge:
            x0, y0 = (left // edge - 1) * edge, (top // edge - 1) * edge
            x1, y1 = (x1 // edge + 2) * edge, (y1 // edge + 2) * edge
        picture = self._resample(level, x0, y0, x1 - x0, y1 - y0)
        finished = expose(picture, self.style)
        return np.ascontiguousarray(
            finished[top - y0 : top - y0 + height, left - x0 : left - x0 + width]
        )

    def _resample(self, level: int, left: int, top: int, width: int, height: int) -> Byte:
        """Paint at the sensor's own pixels, finer or coarser than the level's, and resample."""
        unit = EARTH_CIRCUMFERENCE_M / (TILE_SIZE << level)
        ground = unit * self.scene.shrink
        native = self.style.native_resolution / self.scene.shrink
        pixel = unit / (4 if ground > 40 else 2 if ground > 8 else 1)
        if native > 1.2 * unit:
            pixel = native
        scale = unit / pixel
        margin = 6 if pixel != unit or self.style.blur else 0
        if ground < 8:
            margin += math.ceil(_REACH_M / (pixel * self.scene.shrink))
        x0, y0 = math.floor(left * scale) - margin, math.floor(top * scale) - margin
        x1 = math.ceil((left + width) * scale) + margin
        y1 = math.ceil((top + height) * scale) + margin
        picture = Image.fromarray(self._paint_grid(pixel, x0, y0, x1 - x0, y1 - y0))
        if self.style.blur:
            picture = picture.filter(ImageFilter.GaussianBlur(self.style.blur))
        if pixel == unit:
            box = (left - x0, top - y0, left - x0 + width, top - y0 + height)
            return np.asarray(picture.crop(box))
        kernel = Image.Resampling.BOX if pixel < unit else Image.Resampling.BICUBIC
        west, north = left * scale - x0, top * scale - y0
        area = (west, north, west + width * scale, north + height * scale)
        return np.asarray(picture.resize((width, height), kernel, box=area))

    def _paint_grid(self, pixel: float, column: int, row: int, width: int, height: int) -> Byte:
        """Paint on a grid of `pixel` projected metres whose origin is the map's north-west end."""
        scene = self.scene
        step = pixel * scene.shrink
        world = (column * step, row * step)
        canvas = Canvas(world[0] - scene.offset[0], world[1] - scene.offset[1], step, width, height)
        draw_land(canvas, scene)
        draw_pitches(canvas, scene)
        draw_paths(canvas, scene)
        draw_forest(canvas, scene)
        draw_water(canvas, scene)
        draw_ways(canvas, scene)
        draw_buildings(canvas, scene)
        draw_single_trees(canvas, scene)
        return illuminate(canvas, self.style, world, (column, row))


def paint(
    vector_map: VectorMap,
    level: int,
    left: int,
    top: int,
    width: int,
    height: int,
    style: PaintStyle,
) -> Byte:
    """Paint one window, uint8 (height, width, 3); for many windows keep a `Painter`.

    `left`, `top`, `width`, `height` are in pixels of the level's web-mercator grid.
    """
    return Painter(vector_map, style).paint(level, left, top, width, height)
