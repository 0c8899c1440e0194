"""Cloud-optimised GeoTIFF: a level's tiles as one raster on the grid of the web map."""

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from mercantile import Tile
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.windows import Window as RasterWindow

from c2gm.runtime.cpu import available_cores
from c2gm.runtime.errors import DiskFullError, OutputError
from c2gm.runtime.levels import EARTH_CIRCUMFERENCE_M, TILE_SIZE
from c2gm.runtime.pixels import Picture
from c2gm.runtime.publish.facts import Facts
from c2gm.runtime.publish.options import PublishOptions
from c2gm.runtime.publish.source import FinishedMap
from c2gm.runtime.pyramid import level_resolution_m
from c2gm.runtime.raster import GDAL_OPTIONS, RASTER_ERRORS
from c2gm.runtime.tile_codec import decode_tile

_AT_A_TIME = 64
_SCRATCH = {"COMPRESS": "DEFLATE", "ZLEVEL": 1, "PREDICTOR": 2, "SPARSE_OK": True}
_LITTLE_BYTES = 64 << 20
"""A write that fails with so little free failed for that: what failed last has been freed."""


def cog_names(stem: str, levels: Sequence[int]) -> list[str]:
    """Names that a map's files may get: one a level, or two where it crosses the antimeridian."""
    return [f"{stem}_z{z}{side}.tif" for z in levels for side in ("", "_east", "_west")]


def write_cog(folder: Path, stem: str, source: FinishedMap, facts: Facts) -> list[tuple[int, str]]:
    """Write a file for every level; returns levels and names. Raises OutputError, DiskFullError.

    Each is in EPSG:3857 with its corner on a corner of tiles, blocks on tiles, alpha 0 where there
    is no data (with jpg: a mask), overviews inside. Read back and compared before it counts.
    """
    made = []
    for level in source.levels:
        for side, tiles in _sides(level, source.tiles(level)):
            name = f"{stem}_z{level}{side}.tif"
            with rasterio.Env(**GDAL_OPTIONS, GDAL_TIFF_INTERNAL_MASK=True, GDAL_PAM_ENABLED=False):
                try:
                    _write(folder / name, level, tiles, source, facts)
                except RASTER_ERRORS as error:
                    raise _failure(folder / name, error) from None
            made.append((level, name))
    return made


def _sides(level: int, tiles: list[Tile]) -> list[tuple[str, list[Tile]]]:
    """One part, or east and west of the antimeridian where half a world lies between."""
    columns = sorted({tile.x for tile in tiles})
    gaps = [(right - left, right) for left, right in zip(columns, columns[1:], strict=False)]
    widest, first = max(gaps, default=(0, 0))
    if widest <= 1 << max(level - 1, 1):
        return [("", tiles)]
    return [
        ("_east", [tile for tile in tiles if tile.x >= first]),
        ("_west", [tile for tile in tiles if tile.x < first]),
    ]


def _write(path: Path, level: int, tiles: list[Tile], source: FinishedMap, facts: Facts) -> None:
    left, top = min(tile.x for tile in tiles), min(tile.y for tile in tiles)
    right, bottom = max(tile.x for tile in tiles) + 1, max(tile.y for tile in tiles) + 1
    size, half = level_resolution_m(level), EARTH_CIRCUMFERENCE_M / 2
    corner = TILE_SIZE * size
    profile: dict[str, Any] = {
        "width": (right - left) * TILE_SIZE,
        "height": (bottom - top) * TILE_SIZE,
        "count": 4,
        "dtype": "uint8",
        "crs": "EPSG:3857",
        "transform": Affine(size, 0, left * corner - half, 0, -size, half - top * corner),
    }
    scratch = path.with_name(path.name + ".scratch")
    blocks = {"tiled": True, "blockxsize": TILE_SIZE, "blockysize": TILE_SIZE}
    colours = {"photometric": "RGB", "BIGTIFF": "IF_SAFER"}
    with rasterio.open(
        scratch, "w", driver="GTiff", **profile, **blocks, **colours, **_SCRATCH
    ) as f:
        f.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
        f.update_tags(**facts.tags(level))
        for tile, picture in _pictures(source, tiles):
            f.write(picture.transpose(2, 0, 1), window=_window(tile, left, top))
    rasterio.shutil.copy(scratch, path, driver="COG", **_creation(facts.options))
    scratch.unlink()
    _compare(path, tiles, source, facts.options, (left, top))


def _creation(options: PublishOptions) -> dict[str, Any]:
    """Creation options of GDAL's COG driver."""
    common = {
        "BLOCKSIZE": options.tile_size,
        "OVERVIEWS": "IGNORE_EXISTING",
        "OVERVIEW_RESAMPLING": "AVERAGE",
        "SPARSE_OK": True,
        "BIGTIFF": "IF_SAFER",
    }
    match options.tile_format:
        case "webp":
            return {"COMPRESS": "WEBP", "QUALITY": options.quality or 100, **common}
        case "jpg":
            return {"COMPRESS": "JPEG", "QUALITY": options.encoder_quality, **common}
    # Level 9 takes six times as long for 10 % fewer bytes.
    return {"COMPRESS": "DEFLATE", "LEVEL": 6, "PREDICTOR": "STANDARD", **common}


def _compare(
    path: Path,
    tiles: list[Tile],
    source: FinishedMap,
    options: PublishOptions,
    corner: tuple[int, int],
) -> None:
    """GDAL may fail to write without a word: look. Raises OutputError."""
    with rasterio.open(path) as file:
        for tile, made in _pictures(source, tiles):
            window = _window(tile, *corner)
            valid = made[..., 3] > 0
            same = np.array_equal(file.dataset_mask(window=window) > 0, valid)
            if same and options.lossless:
                found = file.read((1, 2, 3), window=window).transpose(1, 2, 0)
                same = np.array_equal(found[valid], made[..., :3][valid])
            if not same:
                raise OutputError(
                    f"{path.name} does not show what {source.path} shows at tile "
                    f"{tile.z}/{tile.x}/{tile.y}; check the disk and run the same command again"
                )


def _pictures(source: FinishedMap, tiles: list[Tile]) -> Iterator[tuple[Tile, Picture]]:
    """Tiles as RGBA (256, 256, 4)."""
    with ThreadPoolExecutor(available_cores(), "c2gm-publish") as threads:
        for start in range(0, len(tiles), _AT_A_TIME):
            some = tiles[start : start + _AT_A_TIME]
            data = [source.data(tile) for tile in some]
            yield from zip(some, threads.map(_rgba, data), strict=True)


def _rgba(data: bytes | None) -> Picture:
    assert data is not None  # the tile is on the map's own list
    picture = decode_tile(data)
    if picture.shape[2] == 4:
        return picture
    return np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])


def _window(tile: Tile, left: int, top: int) -> RasterWindow:
    return RasterWindow(
        (tile.x - left) * TILE_SIZE, (tile.y - top) * TILE_SIZE, TILE_SIZE, TILE_SIZE
    )


def _failure(path: Path, error: Exception) -> OutputError:
    text = " ".join(str(error.__cause__ or error).split())
    if "disk space" in text or shutil.disk_usage(path.parent).free < _LITTLE_BYTES:
        return DiskFullError(f"no space left for {path}; free some and run the same command again")
    return OutputError(f"{path} cannot be written ({text}); check folder and disk")
