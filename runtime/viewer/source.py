"""What the viewer shows: tiles by address, wherever they come from."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from mercantile import Tile
from numpy.typing import NDArray

from c2gm.runtime.footprint import Box

Keys = NDArray[np.int64]
"""Tiles of a level as row << 32 | column, rows from the north, ascending (as `Plan.keys`)."""

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", 0, "png"),
    (b"\xff\xd8\xff", 0, "jpg"),
    (b"WEBP", 8, "webp"),
)

MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
"""Of the pictures that browsers draw and MBTiles 1.3 (section "Metadata", `format`) names."""


@dataclass(frozen=True, slots=True)
class About:
    """What a map says of itself; texts are plain, empty where it does not say.

    `brief`, `more`: labels and values of its provenance, what a click shows and the rest;
    `caution`: what everybody who looks at the map must know.
    """

    name: str
    description: str
    attribution: str
    caution: str
    brief: tuple[tuple[str, str], ...]
    more: tuple[tuple[str, str], ...]


class TileSource(Protocol):
    """Tiles of 256 x 256 px on the web-mercator grid; any thread may call."""

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels that hold a tile, ascending."""
        ...

    @property
    def suffix(self) -> str:
        """Kind of picture, a key of MEDIA_TYPES."""
        ...

    def keys(self, level: int) -> Keys:
        """All tiles of a level."""
        ...

    def get_tile(self, tile: Tile) -> bytes | None:
        """An encoded tile, None where there is none. Raises C2GMError where it cannot be read."""
        ...

    def size_bytes(self) -> int:
        """All tiles together; exact, or estimated from some."""
        ...

    def close(self) -> None:
        """Close all files."""
        ...


class MapSource(TileSource, Protocol):
    """Tiles that know where they come from: a result of any kind."""

    @property
    def about(self) -> About:
        """What the result says of itself."""
        ...

    @property
    def bounds(self) -> Box:
        """Where its tiles are, degrees."""
        ...


def picture_suffix(data: bytes) -> str | None:
    """Kind of an encoded picture by its first bytes; None for what browsers do not draw."""
    for signature, place, suffix in _SIGNATURES:
        if data[place : place + len(signature)] == signature:
            return suffix
    return None


def count_tiles(source: TileSource) -> int:
    """Tiles of all levels."""
    return sum(len(source.keys(level)) for level in source.levels)


def tile_of(key: int, level: int) -> Tile:
    """The tile that a key names."""
    return Tile(key & 0xFFFFFFFF, key >> 32, level)
