"""The finished map that is published: its tiles and what it says about itself."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mercantile import Tile

from c2gm.runtime.errors import OutputError
from c2gm.runtime.mbtiles import tms_address, translated
from c2gm.runtime.verify import PUBLISHED, SEAL, read_only, verify_file


class FinishedMap:
    """A sealed MBTiles file, read through a connection that stays the caller's.

    `levels`: ascending; `metadata`: all rows of its metadata table; `seal`: what it holds (JSON).
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self.metadata: dict[str, str] = dict(
            connection.execute("SELECT name, value FROM metadata ORDER BY name")
        )
        self.seal = self.metadata[SEAL]
        self.levels = tuple(sorted(int(level) for level in json.loads(self.seal)["tiles"]))

    def tiles(self, level: int) -> list[Tile]:
        """The tiles of a level, row by row from the north."""
        rows = self._connection.execute(
            "SELECT tile_column, tile_row FROM tiles WHERE zoom_level=? "
            "ORDER BY tile_row DESC, tile_column",
            (level,),
        )
        last = (1 << level) - 1
        return [Tile(column, last - row, level) for column, row in rows]

    def data(self, tile: Tile) -> bytes | None:
        """PNG of a tile, 256 px; None where there is none. Raises OutputError."""
        with translated(self.path):
            row = self._connection.execute(
                "SELECT tile_data FROM tiles WHERE zoom_level=? AND tile_column=? AND tile_row=?",
                tms_address(tile),
            ).fetchone()
        return None if row is None else bytes(row[0])


@contextmanager
def open_finished(path: Path) -> Iterator[FinishedMap]:
    """Verify a finished map and open it. Raises OutputError for anything but a whole original."""
    verify_file(path)
    with translated(path), closing(read_only(path)) as connection:
        found = FinishedMap(path, connection)
        if PUBLISHED in found.metadata:
            raise OutputError(
                f"{path} was itself published with other tiles; give the map as c2gm-infer made it "
                "(--format mbtiles, --tile-format png)"
            )
        if not found.levels:
            raise OutputError(f"{path} holds no tiles; there is nothing to publish")
        yield found
