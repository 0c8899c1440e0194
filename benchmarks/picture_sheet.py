"""A picture of a result: imagery above, the map that was drawn of it below, one column a level.

python -m c2gm.benchmarks.picture_sheet scene.tif scene.mbtiles sheet.png 13,14,15,16
"""

import argparse
import io
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import mercantile
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.scene import Scene

SIDE, GAP, LABEL = 512, 8, 24


def draw_map(tiles: Path, level: int, left: int, top: int) -> Image.Image:
    """The SIDE x SIDE pixels of an MBTiles file at (left, top) of the level pixel grid."""
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    with closing(sqlite3.connect(f"file:{tiles}?mode=ro", uri=True)) as database:
        for x in range(left // TILE_SIZE, (left + SIDE - 1) // TILE_SIZE + 1):
            for y in range(top // TILE_SIZE, (top + SIDE - 1) // TILE_SIZE + 1):
                found = database.execute(
                    "SELECT tile_data FROM tiles WHERE zoom_level=? AND tile_column=? AND "
                    "tile_row=?",
                    (level, x, (1 << level) - 1 - y),
                ).fetchone()
                if found is not None:
                    tile = Image.open(io.BytesIO(found[0])).convert("RGBA")
                    picture.paste(tile, (x * TILE_SIZE - left, y * TILE_SIZE - top), tile)
    return picture


def sheet(
    imagery: Path, tiles: Path, levels: Sequence[int], place: tuple[float, float]
) -> Image.Image:
    """One column a level around a place, given as shares of the scene's width and height."""
    width = len(levels) * (SIDE + GAP) - GAP
    result = Image.new("RGB", (width, 2 * SIDE + GAP + LABEL), "white")
    pen, font = ImageDraw.Draw(result), ImageFont.load_default(16)
    with Scene.open(imagery) as scene:
        west, south, east, north = scene.bounds
        lng, lat = west + place[0] * (east - west), north - place[1] * (north - south)
        for column, level in enumerate(levels):
            x, y = mercantile.xy(lng, lat)
            world = mercantile.CE
            size = world / (TILE_SIZE << level)
            left = round((x + world / 2) / size) - SIDE // 2
            top = round((world / 2 - y) / size) - SIDE // 2
            seen = scene.read(level, left, top, SIDE, SIDE)
            shown = np.where(seen[..., 3:] > 0, seen[..., :3], 255).astype(np.uint8)
            offset = column * (SIDE + GAP)
            pen.text((offset + 4, 2), f"level {level}", fill="black", font=font)
            result.paste(Image.fromarray(shown), (offset, LABEL))
            result.paste(draw_map(tiles, level, left, top), (offset, LABEL + SIDE + GAP))
    return result


def main() -> None:
    """Parse, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("imagery", type=Path)
    parser.add_argument("tiles", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("levels", help="comma-separated")
    parser.add_argument("--place", default="0.5,0.5", help="shares of the scene's width, height")
    options = parser.parse_args()
    x, y = (float(part) for part in options.place.split(","))
    levels = [int(part) for part in options.levels.split(",")]
    sheet(options.imagery, options.tiles, levels, (x, y)).save(options.output, optimize=True)
    print(options.output)


if __name__ == "__main__":
    main()
