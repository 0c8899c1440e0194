"""A picture of a result: imagery above, the map that was drawn of it below, one column a level.

python -m c2gm.benchmarks.picture_sheet scene.tif scene.mbtiles sheet.png 13-16
python -m c2gm.benchmarks.picture_sheet scene.tif scene.mbtiles sheet.png 14,16 --whole
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

from c2gm.runtime.command import leave
from c2gm.runtime.errors import C2GMError
from c2gm.runtime.grid import parse_levels
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.scene import Scene

SIDE, GAP, LABEL = 512, 8, 24


def draw_map(
    tiles: Path, level: int, left: int, top: int, width: int = SIDE, height: int = SIDE
) -> Image.Image:
    """The pixels of an MBTiles file from (left, top) of the level pixel grid on."""
    picture = Image.new("RGB", (width, height), "white")
    with closing(sqlite3.connect(f"file:{tiles}?mode=ro", uri=True)) as database:
        for x in range(left // TILE_SIZE, (left + width - 1) // TILE_SIZE + 1):
            for y in range(top // TILE_SIZE, (top + height - 1) // TILE_SIZE + 1):
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
            left, top = (value - SIDE // 2 for value in _pixel(lng, lat, level))
            seen = scene.read(level, left, top, SIDE, SIDE)
            shown = np.where(seen[..., 3:] > 0, seen[..., :3], 255).astype(np.uint8)
            offset = column * (SIDE + GAP)
            pen.text((offset + 4, 2), f"level {level}", fill="black", font=font)
            result.paste(Image.fromarray(shown), (offset, LABEL))
            result.paste(draw_map(tiles, level, left, top), (offset, LABEL + SIDE + GAP))
    return result


def whole_sheet(imagery: Path, tiles: Path, levels: Sequence[int]) -> Image.Image:
    """One column a level: the whole scene, shrunk to SIDE pixels where it is larger."""
    columns: list[tuple[Image.Image, Image.Image]] = []
    with Scene.open(imagery) as scene:
        west, south, east, north = scene.bounds
        for level in levels:
            (left, top), (right, bottom) = (
                _pixel(lng, lat, level) for lng, lat in ((west, north), (east, south))
            )
            width, height = right - left, bottom - top
            seen = scene.read(level, left, top, width, height)
            shown = np.where(seen[..., 3:] > 0, seen[..., :3], 255).astype(np.uint8)
            drawn = draw_map(tiles, level, left, top, width, height)
            scale = SIDE * 2 / max(width, height, SIDE * 2)
            size = max(round(width * scale), 1), max(round(height * scale), 1)
            pair = (Image.fromarray(shown), drawn)
            columns.append((pair[0].resize(size), pair[1].resize(size)))
    width = sum(one.width + GAP for one, _ in columns) - GAP
    tall = max(one.height for one, _ in columns)
    result = Image.new("RGB", (width, 2 * tall + GAP + LABEL), "white")
    pen, font, left = ImageDraw.Draw(result), ImageFont.load_default(16), 0
    for level, (one, other) in zip(levels, columns, strict=True):
        pen.text((left + 4, 2), f"level {level}", fill="black", font=font)
        result.paste(one, (left, LABEL))
        result.paste(other, (left, LABEL + tall + GAP))
        left += one.width + GAP
    return result


def _pixel(lng: float, lat: float, level: int) -> tuple[int, int]:
    """A place on the level pixel grid."""
    x, y = mercantile.xy(lng, lat)
    size = mercantile.CE / (TILE_SIZE << level)
    return round((x + mercantile.CE / 2) / size), round((mercantile.CE / 2 - y) / size)


def main() -> None:
    """Parse, draw, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("imagery", type=Path)
    parser.add_argument("tiles", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("levels", help="as 13-16 or 14,16")
    parser.add_argument("--place", default="0.5,0.5", help="shares of the scene's width, height")
    parser.add_argument("--whole", action="store_true", help="the whole scene, shrunk")
    options = parser.parse_args()
    x, y = (float(part) for part in options.place.split(","))
    try:
        levels = parse_levels(options.levels)
        if options.whole:
            drawn = whole_sheet(options.imagery, options.tiles, levels)
        else:
            drawn = sheet(options.imagery, options.tiles, levels, (x, y))
    except C2GMError as error:
        leave("picture_sheet", str(error), error.exit_code)
    drawn.save(options.output, optimize=True)
    print(options.output)


if __name__ == "__main__":
    main()
