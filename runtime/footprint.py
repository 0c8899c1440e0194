"""Where something is on the web-mercator world, coarsely: data of a scene, an area of interest.

*World units*: the square web-mercator world, x east and y south, both from 0 to 1 from its
north-west corner; the borders of tiles are exact in floating point there, and world units times
256 * 2**level are level pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from c2gm.runtime.errors import OptionError

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees (west > east where a box crosses the antimeridian)."""

MAX_LATITUDE = 85.0511287798066
"""Latitude of the web-mercator world's north edge, degrees."""

MAX_TILES = 10_000_000
"""Most tiles of one run: more is a typing error in the levels or an area by mistake."""

_TOLERANCE = 1e-10  # of the world, 4 mm: borders that touch do not overlap


def world_from_degrees(longitude: float, latitude: float) -> tuple[float, float]:
    """World units of a point; latitudes beyond the world's edge are clamped to it."""
    sine = math.sin(math.radians(max(-MAX_LATITUDE, min(MAX_LATITUDE, latitude))))
    return longitude / 360 + 0.5, 0.5 - math.atanh(sine) / (2 * math.pi)


def degrees_from_world(x: float, y: float) -> tuple[float, float]:
    """Longitude and latitude of world units."""
    return (x - 0.5) * 360, math.degrees(math.atan(math.sinh((0.5 - y) * 2 * math.pi)))


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where something is, coarsely: a mask over a rectangle in world units.

    `mask` (height, width), bool, covers left..right and top..bottom. It errs on the side of true.
    A footprint that crosses the antimeridian is two of these.
    """

    left: float
    top: float
    right: float
    bottom: float
    mask: NDArray[np.bool_] = field(repr=False)
    _sums: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        height, width = self.mask.shape
        sums = np.zeros((height + 1, width + 1), dtype=np.int64)
        sums[1:, 1:] = self.mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
        object.__setattr__(self, "_sums", sums)

    def touched(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which cells of a grid overlap the footprint, shape (len(y) - 1, len(x) - 1).

        `x` and `y` are the grid's borders in world units, ascending.
        """
        height, width = self.mask.shape
        x0, x1 = _cells(x, self.left, self.right, width)
        y0, y1 = _cells(y, self.top, self.bottom, height)
        sums = self._sums
        count = sums[y1][:, x1] - sums[y0][:, x1] - sums[y1][:, x0] + sums[y0][:, x0]
        return np.asarray(count > 0)

    def tiles(self, level: int) -> NDArray[np.int64]:
        """Keys (see `Plan`) of the tiles of a level that overlap the footprint, ascending.

        Raises OptionError for more than MAX_TILES.
        """
        scale = 1 << level
        edge = 0.5 * _TOLERANCE * scale
        columns = np.arange(
            max(math.floor(self.left * scale + edge), 0),
            min(math.ceil(self.right * scale - edge), scale) + 1,
        )
        first = max(math.floor(self.top * scale + edge), 0)
        last = min(math.ceil(self.bottom * scale - edge), scale)
        chunk = max(1, (1 << 22) // len(columns)) if len(columns) else 1
        found: list[NDArray[np.int64]] = []
        for start in range(first, last, chunk):
            rows = np.arange(start, min(start + chunk, last) + 1)
            row, column = np.nonzero(self.touched(columns / scale, rows / scale))
            found.append((rows[row] << 32) | columns[column])
            if sum(map(len, found)) > MAX_TILES:
                raise OptionError(
                    f"level {level} has over {MAX_TILES:,} tiles; choose coarser levels or a "
                    "smaller area (--bounds, --aoi)"
                )
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)

    def intersection(self, other: "Footprint") -> "Footprint | None":
        """What both cover, as finely as the finer of both; None where they are apart."""
        left, right = max(self.left, other.left), min(self.right, other.right)
        top, bottom = max(self.top, other.top), min(self.bottom, other.bottom)
        if right - left <= _TOLERANCE or bottom - top <= _TOLERANCE:
            return None
        cell = min(
            min((part.right - part.left) / part.mask.shape[1] for part in (self, other)),
            min((part.bottom - part.top) / part.mask.shape[0] for part in (self, other)),
        )
        x = np.linspace(left, right, 1 + min(1024, math.ceil((right - left) / cell)))
        y = np.linspace(top, bottom, 1 + min(1024, math.ceil((bottom - top) / cell)))
        mask = self.touched(x, y) & other.touched(x, y)
        return Footprint(left, top, right, bottom, mask) if mask.any() else None


def snapped(box: Box, side: int) -> Box:
    """The smallest box of whole pixels around a box, both in degrees; the world has `side` pixels.

    GDAL lays an MBTiles file's raster on the borders that its metadata name, and takes pixels from
    the nearest place of the tiles' grid: off that grid everything is up to half a pixel away.
    """
    west, north = world_from_degrees(box[0], box[3])
    east, south = world_from_degrees(box[2], box[1])
    slack = 1e-3  # of a pixel: what is on the grid stays there
    left, top = (math.floor(value * side + slack) / side for value in (west, north))
    right, bottom = (math.ceil(value * side - slack) / side for value in (east, south))
    (west, north), (east, south) = degrees_from_world(left, top), degrees_from_world(right, bottom)
    return west, south, east, north


def _cells(
    borders: NDArray[np.float64], start: float, end: float, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First cell and cell after the last one, of `count` from start to end, between borders."""
    scale = count / (end - start)
    first = np.floor((borders[:-1] + _TOLERANCE - start) * scale).clip(0, count)
    after = np.ceil((borders[1:] - _TOLERANCE - start) * scale).clip(0, count)
    return first.astype(np.int64), np.maximum(first, after).astype(np.int64)


def intersect(footprints: Sequence[Footprint], area: Sequence[Footprint]) -> tuple[Footprint, ...]:
    """The part of the footprints inside an area; empty where the area misses them."""
    pairs = (ours.intersection(theirs) for ours in footprints for theirs in area)
    return tuple(part for part in pairs if part is not None)


def bounds(footprints: Sequence[Footprint]) -> Box:
    """Bounding box in degrees; -180 to 180 where the footprints lie on both sides of it."""
    west, north = degrees_from_world(
        min(part.left for part in footprints), min(part.top for part in footprints)
    )
    east, south = degrees_from_world(
        max(part.right for part in footprints), max(part.bottom for part in footprints)
    )
    return west, south, east, north
