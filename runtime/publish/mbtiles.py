"""MBTiles 1.3 with other tiles than the run made: written in one go, in order, and sealed."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from c2gm.runtime.mbtiles import APPLICATION_ID, TILE_TABLES, tms_address
from c2gm.runtime.publish.facts import Facts
from c2gm.runtime.publish.tileset import TileSet
from c2gm.runtime.verify import SEAL, seal


def write_mbtiles(path: Path, tiles: TileSet, facts: Facts) -> None:
    """Write a new file. The same map and options give the same bytes. Raises OutputError."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # The file has no name of its own yet: after a crash it is begun anew.
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute("BEGIN")
        for statement in TILE_TABLES:
            connection.execute(statement)
        rows = sorted(facts.mbtiles().items())
        connection.executemany("INSERT INTO metadata VALUES (?, ?)", rows)
        for level in tiles.levels:
            connection.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", _rows(tiles, level))
        connection.execute("INSERT INTO metadata VALUES (?, ?)", (SEAL, seal(connection).text()))
        connection.execute("COMMIT")


def _rows(tiles: TileSet, level: int) -> Iterator[tuple[int, int, int, bytes]]:
    for tile, data in tiles.encoded(tiles.tiles(level)):
        yield (*tms_address(tile), data)
