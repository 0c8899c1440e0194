"""Make tests/data/town.tif, the example scene: a procedural town as a satellite would deliver it.

Run `python tests/data/make_town.py`; the same picture comes out every time.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject, transform

from c2gm.model.maps.vectors import VectorMap
from c2gm.model.synthetic import PaintStyle, generate_world, paint
from c2gm.runtime.levels import EARTH_CIRCUMFERENCE_M, TILE_SIZE

SEED = 13
LONGITUDE, LATITUDE = 17.8, 46.6  # far from the zone's meridian: the grid is visibly turned
UTM = "EPSG:32633"
PIXEL_M = 2.4
SIDE = 1400
WORLD_M = 6000.0
LEVEL = 16
STYLE = PaintStyle(
    seed=5,
    season="summer",
    roofs="tile",
    water="turquoise",
    sun_azimuth=150.0,
    sun_elevation=48.0,
    relief=0.08,
    haze=0.04,
    noise=1.2,
)


def make_world() -> tuple[VectorMap, tuple[float, float]]:
    """The town's vectors and its centre in EPSG:3857."""
    (x,), (y,) = transform("EPSG:4326", "EPSG:3857", [LONGITUDE], [LATITUDE])
    half = WORLD_M / 2 / math.cos(math.radians(LATITUDE))
    return generate_world(SEED, (x - half, y - half, x + half, y + half)), (x, y)


def make_scene() -> tuple[NDArray[np.uint8], rasterio.Affine]:
    """Bands (4, SIDE, SIDE): RGB and validity, with the transform of their UTM grid."""
    vector_map, (x, y) = make_world()
    unit = EARTH_CIRCUMFERENCE_M / (TILE_SIZE << LEVEL)
    # A square of web-mercator pixels a touch smaller than the scene: its corners stay empty.
    side = round(SIDE * PIXEL_M / math.cos(math.radians(LATITUDE)) / unit)
    left = round((x + EARTH_CIRCUMFERENCE_M / 2) / unit) - side // 2
    top = round((EARTH_CIRCUMFERENCE_M / 2 - y) / unit) - side // 2
    picture = paint(vector_map, LEVEL, left, top, side, side, STYLE)
    source = from_origin(
        left * unit - EARTH_CIRCUMFERENCE_M / 2, EARTH_CIRCUMFERENCE_M / 2 - top * unit, unit, unit
    )
    (east,), (north,) = transform("EPSG:3857", UTM, [x], [y])
    reach = SIDE * PIXEL_M / 2
    grid = from_origin(round(east - reach, 1), round(north + reach, 1), PIXEL_M, PIXEL_M)
    valid = np.full((1, side, side), 255, np.uint8)
    bands = np.concatenate([picture.transpose(2, 0, 1), valid])
    scene = np.zeros((4, SIDE, SIDE), np.uint8)
    for band, target, method in zip(
        bands, scene, (*[Resampling.cubic] * 3, Resampling.nearest), strict=True
    ):
        reproject(
            band,
            target,
            src_transform=source,
            src_crs="EPSG:3857",
            dst_transform=grid,
            dst_crs=UTM,
            resampling=method,
        )
    scene[:3, scene[3] == 0] = 0
    return scene, grid


def write_scene(path: Path) -> None:
    """Write the scene as a tiled JPEG GeoTIFF with an internal mask."""
    scene, grid = make_scene()
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=SIDE,
            height=SIDE,
            count=3,
            dtype="uint8",
            crs=UTM,
            transform=grid,
            tiled=True,
            blockxsize=256,
            blockysize=256,
            compress="JPEG",
            photometric="YCBCR",
            jpeg_quality=90,
        ) as raster,
    ):
        raster.write(scene[:3])
        raster.write_mask(scene[3])
        raster.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


if __name__ == "__main__":
    write_scene(Path(__file__).with_name("town.tif"))
