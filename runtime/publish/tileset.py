"""The tiles that are published: which there are, and their bytes, encoded on all cores."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from mercantile import Tile

from c2gm.runtime.cpu import available_cores
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.publish.encoding import encode
from c2gm.runtime.publish.options import PublishOptions
from c2gm.runtime.publish.source import FinishedMap

_AT_A_TIME = 128


class TileSet:
    """A map's tiles in a size and an encoding.

    A tile of 512 px shows four tiles of 256 px of the level below: its level is one less, the
    ground that a pixel shows is the same.
    """

    def __init__(self, source: FinishedMap, options: PublishOptions) -> None:
        self._source = source
        self._options = options
        self._shift = 1 if options.tile_size > TILE_SIZE else 0
        self.levels = tuple(level - self._shift for level in source.levels)

    def tiles(self, level: int) -> list[Tile]:
        """The tiles of a level, row by row from the north."""
        found = self._source.tiles(level + self._shift)
        if not self._shift:
            return found
        places = {(tile.y >> 1, tile.x >> 1) for tile in found}
        return [Tile(x, y, level) for y, x in sorted(places)]

    def encoded(self, tiles: Sequence[Tile]) -> Iterator[tuple[Tile, bytes]]:
        """Tiles with their bytes, in the order given. Raises OutputError."""
        with ThreadPoolExecutor(available_cores(), "c2gm-publish") as threads:
            for start in range(0, len(tiles), _AT_A_TIME):
                some = tiles[start : start + _AT_A_TIME]
                parts = [self._parts(tile) for tile in some]
                options = (self._options,) * len(parts)
                yield from zip(some, threads.map(encode, options, parts), strict=True)

    def _parts(self, tile: Tile) -> tuple[bytes | None, ...]:
        x, y, level = tile
        if not self._shift:
            return (self._source.data(tile),)
        return tuple(
            self._source.data(Tile(2 * x + dx, 2 * y + dy, level + 1))
            for dy in (0, 1)
            for dx in (0, 1)
        )
