"""PMTiles version 3: one file for web maps that read ranges over HTTP."""

import tempfile
from pathlib import Path
from typing import Any, cast

from pmtiles.tile import Compression, TileType, zxy_to_tileid
from pmtiles.writer import Writer

from c2gm.runtime.publish.facts import Facts, extension
from c2gm.runtime.publish.tileset import TileSet

_TYPES = {"png": TileType.PNG, "webp": TileType.WEBP, "jpg": TileType.JPEG}


def write_pmtiles(path: Path, tiles: TileSet, facts: Facts) -> None:
    """Write a new file, tiles in the order of their ids (clustered). Raises OutputError, OSError.

    The same map and options give the same bytes.
    """
    ordered = sorted(
        (tile for level in tiles.levels for tile in tiles.tiles(level)),
        key=lambda tile: zxy_to_tileid(tile.z, tile.x, tile.y),
    )
    with path.open("wb") as file:
        writer = cast(Any, Writer)(file)
        # The writer keeps the tiles aside until it knows their number: here, not in the system's
        # folder for such files, which may be small or in memory.
        writer.tile_f.close()
        with tempfile.TemporaryFile(dir=path.parent) as writer.tile_f:
            for tile, data in tiles.encoded(ordered):
                writer.write_tile(zxy_to_tileid(tile.z, tile.x, tile.y), data)
            writer.finalize(_header(facts), facts.json())


def _header(facts: Facts) -> dict[str, Any]:
    west, south, east, north = (round(value * 1e7) for value in facts.bounds)
    x, y, level = facts.center
    return {
        "tile_type": _TYPES[extension(facts.options)],
        "tile_compression": Compression.NONE,
        "min_lon_e7": west,
        "min_lat_e7": south,
        "max_lon_e7": east,
        "max_lat_e7": north,
        "center_zoom": level,
        "center_lon_e7": round(x * 1e7),
        "center_lat_e7": round(y * 1e7),
    }
