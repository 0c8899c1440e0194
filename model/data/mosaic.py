"""An area of training data on disk: imagery and maps of several levels, memory-mapped.

An area is a folder on the level pixel grid:

    area.json          name, kind, credit, licence, extent of every level, validation ground
    imagery_{z}.npy    uint8 (h, w, 4): RGB and validity (0 or 255)
    map_{z}.npy        uint8 (h, w, 3)
    cells_{z}.npy      float32 (3, h/32, w/32): what the sampler knows of 32 px cells (CellIndex)
    generated_{z}.npy  uint8 (h, w, 3): the map as a model drew it, for stage 2 (own_references.py)
"""

import json
from dataclasses import asdict, dataclass, field
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from c2gm.model.maps.cartography import BACKGROUND
from c2gm.runtime.errors import DataError
from c2gm.runtime.levels import EARTH_CIRCUMFERENCE_M, LEVELS, TILE_SIZE

Picture = NDArray[np.uint8]
Kind = Literal["real", "painted", "dubai"]

CELL = 32
"""Side of an index cell in pixels of its own level."""

GROUND_LEVEL = min(LEVELS)
"""Validation ground is measured in pixels of this level, so that it is whole pixels at any."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A rectangle of a level's pixel grid, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def coarser(self, levels: int) -> "Extent":
        """The same ground `levels` levels up; rounds outward."""
        left, top = self.left >> levels, self.top >> levels
        right = -(-(self.left + self.width) >> levels)
        bottom = -(-(self.top + self.height) >> levels)
        return Extent(left, top, right - left, bottom - top)

    def finer(self, levels: int) -> "Extent":
        """The same ground `levels` levels down."""
        return Extent(
            self.left << levels, self.top << levels, self.width << levels, self.height << levels
        )

    def at(self, level: int, target: int) -> "Extent":
        """The same ground at another level, rounded outward when that is coarser."""
        return self.coarser(level - target) if target < level else self.finer(target - level)

    def within(self, other: "Extent") -> tuple[slice, slice]:
        """Rows and columns of `other`'s array that lie in this rectangle."""
        top, left = max(self.top - other.top, 0), max(self.left - other.left, 0)
        bottom = max(self.top + self.height - other.top, top)
        right = max(self.left + self.width - other.left, left)
        return slice(top, min(bottom, other.height)), slice(left, min(right, other.width))

    def overlaps(self, other: "Extent") -> bool:
        """Whether two rectangles of one level have a pixel in common."""
        rows, columns = self.within(other)
        return bool(rows.stop > rows.start and columns.stop > columns.start)


@dataclass(frozen=True)
class CellIndex:
    """Per cell of 32 x 32 px, float32 (rows, columns) each.

    `valid`: share of valid imagery; `detail`: how much the map has to say (mean absolute luma
    gradient, plus a little for water); `doubtful`: share of pixels where the map is plain
    background and the imagery dark green, most likely forest that nobody has mapped.
    """

    valid: NDArray[np.float32]
    detail: NDArray[np.float32]
    doubtful: NDArray[np.float32]


@dataclass(frozen=True)
class Area:
    """One area, opened for reading. `validation` is ground in pixels of level 10."""

    path: Path
    name: str
    kind: Kind
    credit: str
    licence: str
    levels: dict[int, Extent]
    targets: tuple[int, ...]
    validation: tuple[Extent, ...]
    _open: dict[str, NDArray[Any]] = field(default_factory=dict, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # memory maps must not travel to worker processes

    def imagery(self, level: int) -> Picture:
        """uint8 (h, w, 4) of the whole area, memory-mapped."""
        return self._array(f"imagery_{level}.npy")

    def map(self, level: int) -> Picture:
        """uint8 (h, w, 3) of the whole area, memory-mapped."""
        return self._array(f"map_{level}.npy")

    def generated(self, level: int) -> Picture | None:
        """uint8 (h, w, 3), memory-mapped: what a model drew of the area; None if nothing yet."""
        name = f"generated_{level}.npy"
        return self._array(name) if (self.path / name).is_file() else None

    def cells(self, level: int) -> CellIndex:
        """What is known about the cells of a level."""
        return CellIndex(*self._array(f"cells_{level}.npy"))

    def ground(self, level: int) -> NDArray[np.bool_]:
        """(h, w), true where the ground is for validation only. Costs memory: for small areas."""
        extent = self.levels[level]
        mask = np.zeros((extent.height, extent.width), dtype=bool)
        for rectangle in self.validation:
            mask[rectangle.finer(level - GROUND_LEVEL).within(extent)] = True
        return mask

    def _array(self, name: str) -> NDArray[Any]:
        if name not in self._open:
            try:
                self._open[name] = np.load(self.path / name, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise DataError(
                    f"cannot read {self.path / name}: {error}; build it again"
                ) from None
        return self._open[name]


Bounds = tuple[float, float, float, float]


def unit(level: int) -> float:
    """Side of a pixel of the level pixel grid, EPSG:3857 metres."""
    return EARTH_CIRCUMFERENCE_M / (TILE_SIZE << level)


def extent_of(bounds: Bounds, level: int, coarsest: int) -> Extent:
    """Smallest extent at `level` around bounds (w, s, e, n) that is whole pixels at `coarsest`."""
    west, south, east, north = bounds
    half, size = EARTH_CIRCUMFERENCE_M / 2, unit(coarsest)
    # A thousandth of a pixel of slack, so that exact bounds stay exact.
    left, top = floor((west + half) / size + 1e-3), floor((half - north) / size + 1e-3)
    right, bottom = ceil((east + half) / size - 1e-3), ceil((half - south) / size - 1e-3)
    return Extent(left, top, right - left, bottom - top).finer(level - coarsest)


def tiles_extent(x: int, y: int, columns: int, rows: int, zoom: int, level: int) -> Extent:
    """A block of tiles of `zoom` (its north-west tile is x, y) at `level`."""
    tile = Extent(x * TILE_SIZE, y * TILE_SIZE, columns * TILE_SIZE, rows * TILE_SIZE)
    return tile.at(zoom, level)


def write_area_json(area: Area, path: Path) -> None:
    """Write `area.json` of an area into the folder `path`."""
    content = {
        "name": area.name,
        "kind": area.kind,
        "credit": area.credit,
        "licence": area.licence,
        "levels": {level: asdict(extent) for level, extent in area.levels.items()},
        "targets": list(area.targets),
        "validation": [asdict(extent) for extent in area.validation],
    }
    (path / "area.json").write_text(json.dumps(content, indent=1) + "\n")


def open_area(path: Path) -> Area:
    """Open an area folder. Raises DataError if `area.json` is missing or malformed."""
    file = path / "area.json"
    try:
        content = json.loads(file.read_text())
        return Area(
            path=path,
            name=content["name"],
            kind=content["kind"],
            credit=content["credit"],
            licence=content["licence"],
            levels={int(level): Extent(**extent) for level, extent in content["levels"].items()},
            targets=tuple(content["targets"]),
            validation=tuple(Extent(**extent) for extent in content["validation"]),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file} is not a readable area ({error!r}); build it again with c2gm-dataset build"
        ) from None


def open_areas(dataset: Path) -> list[Area]:
    """All finished areas of a dataset folder, by name. Raises DataError if there is none."""
    paths = sorted(
        file.parent for file in dataset.glob("*/area.json") if "." not in file.parent.name
    )
    if not paths:
        raise DataError(f"no areas in {dataset}; make some with c2gm-dataset build")
    return [open_area(path) for path in paths]


def crop(array: Picture, extent: Extent, window: Extent) -> Picture:
    """The window out of an area's array; outside the area 0 (RGBA) or the background (RGB).

    `array` has shape (extent.height, extent.width, 3 or 4); the result (window.height,
    window.width, same), always a fresh array.
    """
    rows, columns = window.within(extent)
    part = array[rows, columns]
    if part.shape[:2] == (window.height, window.width):
        return part.copy()
    picture = np.zeros((window.height, window.width, array.shape[2]), dtype=np.uint8)
    if array.shape[2] == 3:
        picture[:] = BACKGROUND
    top, left = rows.start + extent.top - window.top, columns.start + extent.left - window.left
    picture[top : top + part.shape[0], left : left + part.shape[1]] = part
    return picture
