"""Tiles, windows and the plan of a run: pure geometry of the quadtree, no input or output.

Positions are *level pixels*, the global pixel grid of a level: 256 * 2**level pixels a side, x east
and y south from the world's north-west corner. Imagery, references and noise share it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from mercantile import Tile
from numpy.typing import NDArray

from c2gm.runtime.errors import AreaError, OptionError
from c2gm.runtime.footprint import MAX_TILES, Box, Footprint, bounds, intersect
from c2gm.runtime.levels import SPANS, TILE_SIZE

Cascade = Literal["4x", "2x"]
WINDOW_SIDES = (1, 2, 4)
"""Tiles a side that a window may have."""

WINDOW_MULTIPLE = 64
"""The graphs take windows whose side is a multiple of this many pixels."""

DEFAULT_HALO = 32
"""Pixels around a window; the least that the graphs allow, and enough (docs/seams.md)."""

DEFAULT_WINDOW_PX = TILE_SIZE + 2 * DEFAULT_HALO
"""Side of a window of one tile with its halo: what c2gm-infer makes maps of."""

CANVAS_TILES, CANVAS_HALO = 2, 64
"""Blended windows are painted on canvases of so many tiles a side at least, with so many pixels
around them that are cut off: what the decoder makes of a border is then the same from both sides,
at no more pixels a tile than a window of one has (docs/seams.md)."""


def parse_levels(text: str) -> tuple[int, ...]:
    """Levels of `10-16`, `10,12,14` or `10-12,15`, sorted and without repeats.

    Raises OptionError for anything else.
    """
    levels: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,2})(?:\s*-\s*(\d{1,2}))?\s*", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            shown = text if len(text) <= 60 else f"{text[:57]}..."
            raise OptionError(
                f"--levels is {shown!r}, expected a range like 10-16 or a list like 10,12,14; "
                "give the coarser level first"
            )
        levels.update(range(first, last + 1))
    return tuple(sorted(levels))


def reference_level(
    level: int, levels: Iterable[int], cascade: Cascade = "4x"
) -> tuple[int, int] | None:
    """Level and span of the reference of `level` in a run over `levels`; None where none exists.

    A 4X cascade takes two levels up where the run has it, else one; a 2X cascade the other way.
    """
    present = set(levels)
    for span in SPANS if cascade == "4x" else tuple(reversed(SPANS)):
        if level - span in present:
            return level - span, span
    return None


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A square of side x side tiles of one level with a halo: what is generated in one piece.

    `column` and `row` count windows, not tiles. `side` is a power of two, `halo` counts pixels.
    Raises OptionError where the whole side in pixels does not suit the graphs.
    """

    level: int
    column: int
    row: int
    side: int = 1
    halo: int = 0

    def __post_init__(self) -> None:
        if self.side < 1 or self.side & (self.side - 1):
            raise OptionError(f"window side is {self.side} tiles, expected 1, 2, 4 or 8")
        if self.halo < 0 or self.size % WINDOW_MULTIPLE:
            raise OptionError(
                f"halo is {self.halo} px, expected a multiple of {WINDOW_MULTIPLE // 2} from 0 on"
            )

    @property
    def size(self) -> int:
        """Side in pixels, halo included."""
        return self.side * TILE_SIZE + 2 * self.halo

    @property
    def canvas(self) -> "Window":
        """What is decoded in one piece to paint this window where it was blended.

        Windows share it, and its place depends on no area that a run may be for.
        """
        if not self.halo:
            return self
        count, halo = max(CANVAS_TILES // self.side, 1), max(self.halo, CANVAS_HALO)
        return Window(self.level, self.column // count, self.row // count, self.side * count, halo)

    def overlapping(self, side: int, halo: int) -> list["Window"]:
        """All windows of this shape that share pixels with this one, row by row.

        Halos count, on both sides. Some may lie outside the world.
        """
        left, top, size, _ = self.pixel_box
        step = side * TILE_SIZE
        columns, rows = (
            range((first - halo) // step, -(-(first + size + halo) // step))
            for first in (left, top)
        )
        return [Window(self.level, column, row, side, halo) for row in rows for column in columns]

    @property
    def pixel_box(self) -> tuple[int, int, int, int]:
        """Left, top, width, height in level pixels, halo included (so that it may be negative)."""
        step = self.side * TILE_SIZE
        return self.column * step - self.halo, self.row * step - self.halo, self.size, self.size

    @property
    def key(self) -> str:
        """Name of the window in the ledger; side and halo are the run's and not repeated."""
        return f"{self.level}/{self.column}/{self.row}"

    def tiles(self) -> list[Tile]:
        """The tiles inside (halo excluded), row by row; fewer where the world is smaller."""
        end = 1 << self.level
        left, top = self.column * self.side, self.row * self.side
        return [
            Tile(x, y, self.level)
            for y in range(top, min(top + self.side, end))
            for x in range(left, min(left + self.side, end))
        ]

    def tile_box(self, tile: Tile) -> tuple[int, int, int, int]:
        """Left, top, width, height of a tile of this window, in pixels of the window's picture."""
        left, top, _, _ = self.pixel_box
        return tile.x * TILE_SIZE - left, tile.y * TILE_SIZE - top, TILE_SIZE, TILE_SIZE

    def parent_box(self, span: int, margin: int = 0) -> tuple[int, int, int, int]:
        """Left, top, width, height of the smallest box at level - span that covers this window.

        `margin` adds as many pixels of that level on every side (for filters that look around).
        """
        left, top, width, height = self.pixel_box
        west, north = (left >> span) - margin, (top >> span) - margin
        east, south = -(-(left + width) >> span) + margin, -(-(top + height) >> span) + margin
        return west, north, east - west, south - north

    def parent_windows(self, span: int, margin: int = 0) -> list["Window"]:
        """Windows of level - span under this window's pixels, clipped at the world's edge."""
        left, top, width, height = self.parent_box(span, margin)
        step, level = self.side * TILE_SIZE, self.level - span
        last = -(-(1 << level) // self.side) - 1
        return [
            Window(level, column, row, self.side, self.halo)
            for row in range(max(top // step, 0), min((top + height - 1) // step, last) + 1)
            for column in range(max(left // step, 0), min((left + width - 1) // step, last) + 1)
        ]


def decoder_sides(side: int) -> tuple[int, ...]:
    """Sides of what may be decoded where windows have `side` pixels: theirs, their canvases'."""
    shapes = [
        Window(0, 0, 0, tiles, (side - tiles * TILE_SIZE) // 2)
        for tiles in WINDOW_SIDES
        if 0 <= side - tiles * TILE_SIZE <= tiles * TILE_SIZE
    ]
    return tuple(sorted({side, *(window.canvas.size for window in shapes)}))


def window_of(tile: Tile, side: int = 1, halo: int = 0) -> Window:
    """The one window that holds a tile."""
    return Window(tile.z, tile.x // side, tile.y // side, side, halo)


@dataclass(frozen=True, slots=True)
class Plan:
    """All tiles of a run. A tile is planned where data lies under it; so are all its ancestors.

    `keys`: per level the tiles as row << 32 | column, ascending (row by row), int64; `beyond`:
    where there is data, also outside the area that the run is for; None where it is for all of it.
    """

    levels: tuple[int, ...]
    side: int
    halo: int
    bounds: Box
    keys: Mapping[int, NDArray[np.int64]] = field(repr=False)
    beyond: tuple[Footprint, ...] | None = field(default=None, repr=False)

    @property
    def canvas_side(self) -> int:
        """Tiles a side that are painted in one piece, where windows are blended."""
        return Window(0, 0, 0, self.side, self.halo).canvas.side

    def tile_count(self, level: int) -> int:
        """Number of planned tiles of a level."""
        return len(self.keys[level])

    def tiles(self, level: int) -> Iterator[Tile]:
        """The planned tiles of a level, row by row."""
        for key in self.keys[level].tolist():
            yield Tile(key & 0xFFFFFFFF, key >> 32, level)

    def window_count(self, level: int) -> int:
        """Number of windows of a level."""
        return len(self._window_keys(level))

    def windows(self, level: int) -> Iterator[Window]:
        """The windows of a level that hold a planned tile, row by row."""
        for key in self._window_keys(level).tolist():
            yield Window(level, key & 0xFFFFFFFF, key >> 32, self.side, self.halo)

    def tiles_of(self, window: Window) -> list[Tile]:
        """The planned tiles of a window, row by row; empty where the window is not planned."""
        tiles = window.tiles()
        keys, wanted = self.keys[window.level], [tile.y << 32 | tile.x for tile in tiles]
        places = np.searchsorted(keys, wanted).clip(max=max(len(keys) - 1, 0))
        return [
            tile
            for tile, place, key in zip(tiles, places, wanted, strict=True)
            if len(keys) and keys[place] == key
        ]

    def data_tiles(self, window: Window) -> list[Tile]:
        """The tiles of a window that a run over all of the data has, planned here or not."""
        planned = self.tiles_of(window)
        if self.beyond is None or len(planned) == len(window.tiles()):
            return planned
        own = set(planned)
        return [tile for tile in window.tiles() if tile in own or self._holds_data(tile)]

    def _holds_data(self, tile: Tile) -> bool:
        scale = 1 << tile.z
        x, y = np.array([tile.x, tile.x + 1]) / scale, np.array([tile.y, tile.y + 1]) / scale
        return any(part.touched(x, y).any() for part in self.beyond or ())

    def _window_keys(self, level: int) -> NDArray[np.int64]:
        return np.unique(window_keys(self.keys[level], self.side))


def window_keys(tiles: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """For every key of a tile (see `Plan`) row << 32 | column of the window that holds it."""
    return (tiles >> 32) // side << 32 | (tiles & 0xFFFFFFFF) // side


def _advice(area: Box, scene: Box) -> str:
    """What to do about an area that misses the scene."""
    west, south, east, north = area
    swapped = max(south, scene[0]) < min(north, scene[2])
    swapped &= max(west, scene[1]) < min(east, scene[3])
    if swapped:
        return "longitude and latitude are swapped, give longitude first"
    return "choose an area inside"


def plan(
    levels: Sequence[int],
    footprints: Sequence[Footprint],
    area: Sequence[Footprint] | None = None,
    side: int = 1,
    halo: int = 0,
) -> Plan:
    """Plan a run over the data's footprints, inside an area if one is given.

    Raises AreaError where the area misses the data, OptionError for too many tiles.
    """
    covered = tuple(footprints) if area is None else intersect(footprints, area)
    if not covered:
        box = bounds(area or ())
        found = " .. ".join(f"{value:.5f}" for value in box)
        there = " .. ".join(f"{value:.5f}" for value in bounds(footprints))
        raise AreaError(
            f"the area {found} misses the scene's data at {there} "
            f"(west .. south .. east .. north, degrees); {_advice(box, bounds(footprints))}"
        )
    Window(0, 0, 0, side, halo)
    ordered = tuple(sorted(set(levels)))
    keys = {
        level: np.unique(np.concatenate([part.tiles(level) for part in covered]))
        for level in ordered
    }
    if sum(map(len, keys.values())) > MAX_TILES:
        raise OptionError(
            f"levels {ordered[0]}-{ordered[-1]} have over {MAX_TILES:,} tiles; choose coarser "
            "levels or a smaller area (--bounds, --aoi)"
        )
    beyond = None if area is None else tuple(footprints)
    return Plan(ordered, side, halo, bounds(covered), keys, beyond)
