"""A finished map on disk, to be looked at: any MBTiles file of 256 px tiles."""

import io
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from mercantile import Tile
from PIL import Image, UnidentifiedImageError

from c2gm.runtime.errors import OutputError
from c2gm.runtime.grid import Cascade
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.pixels import Picture
from c2gm.runtime.verify import read_only


class ResultMap:
    """Tiles of an MBTiles file; a context manager.

    `levels`: those that it has; `window`: tiles a side that were made in one piece, `cascade` and
    `guides`, the levels that others were drawn from, as c2gm-infer wrote them down (1, 4x and all
    levels where it did not). Raises OutputError, here and in reading, for a file that is no such
    map.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise OutputError(f"{path} is not a file; give a map made by c2gm-infer (.mbtiles)")
        self.path = path
        self._file = read_only(path)
        try:
            found = self._file.execute("SELECT DISTINCT zoom_level FROM tiles ORDER BY zoom_level")
            self.levels = tuple(level for (level,) in found)
            rows = dict(self._file.execute("SELECT name, value FROM metadata"))
            published = json.loads(rows.get("c2gm_published", "{}"))
            if published.get("size", TILE_SIZE) != TILE_SIZE or rows.get("format") == "jpg":
                raise OutputError(
                    f"{path} was published with other tiles, in which pixels without data or "
                    "borders are lost; give the run's own file"
                )
            origin = json.loads(rows.get("c2gm_fingerprint", "{}"))
            self.window = int(origin.get("window", 1))
            self.cascade: Cascade = "2x" if origin.get("cascade") == "2x" else "4x"
            guides = origin.get("guides", ",".join(map(str, self.levels)))
            self.guides = tuple(int(level) for level in guides.split(",") if level)
        except (sqlite3.Error, ValueError, AttributeError) as error:
            self._file.close()
            raise OutputError(f"{path} is no MBTiles file ({error})") from None
        if not self.levels:
            self._file.close()
            raise OutputError(f"{path} has no tiles")

    def tiles(self, level: int) -> Iterator[tuple[Tile, Picture]]:
        """All tiles of a level, row by row from north to south, RGBA (256, 256, 4)."""
        rows = self._file.execute(
            "SELECT tile_column, tile_row, tile_data FROM tiles WHERE zoom_level=? "
            "ORDER BY tile_row DESC, tile_column",
            (level,),
        )
        for column, row, data in rows:
            tile = Tile(column, (1 << level) - 1 - row, level)
            yield tile, self._picture(tile, data)

    def tile(self, tile: Tile) -> Picture | None:
        """One tile, RGBA (256, 256, 4); None where there is none."""
        found = self._file.execute(
            "SELECT tile_data FROM tiles WHERE zoom_level=? AND tile_column=? AND tile_row=?",
            (tile.z, tile.x, (1 << tile.z) - 1 - tile.y),
        ).fetchone()
        return None if found is None else self._picture(tile, found[0])

    def _picture(self, tile: Tile, data: bytes) -> Picture:
        name = f"{self.path}: tile {tile.z}/{tile.x}/{tile.y}"
        try:
            with Image.open(io.BytesIO(data)) as image:
                picture = np.asarray(image.convert("RGBA"))
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            raise OutputError(f"{name} is no picture ({error})") from None
        if picture.shape[:2] != (TILE_SIZE, TILE_SIZE):
            size = f"{picture.shape[1]} x {picture.shape[0]}"
            raise OutputError(f"{name} is {size} px, expected {TILE_SIZE} x {TILE_SIZE}")
        return picture

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
