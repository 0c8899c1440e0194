"""Reading the tiles of an MBTiles file back, past our own code."""

import io
import sqlite3
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TileKey = tuple[int, int, int]


def tiles_of(path: Path) -> dict[TileKey, bytes]:
    """Encoded tiles by zoom level, column and row (TMS: rows count from the south)."""
    with sqlite3.connect(path) as file:
        rows = file.execute("SELECT zoom_level, tile_column, tile_row, tile_data FROM tiles")
        return {(z, x, y): data for z, x, y, data in rows}


def pixels_of(data: bytes) -> NDArray[np.int16]:
    """RGBA (256, 256, 4) of an encoded tile, signed so that differences are right."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).astype(np.int16)
