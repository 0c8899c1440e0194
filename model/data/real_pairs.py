"""Real pairs: imagery from GeoTIFFs, maps drawn from vectors of the same ground."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags, Resampling
from rasterio.features import sieve
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from c2gm.model.data.mosaic import GROUND_LEVEL, Extent, Picture, extent_of, tiles_extent, unit
from c2gm.model.data.mosaic_build import AreaPlan
from c2gm.model.maps.cartography import read_vectors
from c2gm.runtime.errors import DataError
from c2gm.runtime.levels import EARTH_CIRCUMFERENCE_M, LEVELS, TILE_SIZE

OSM_CREDIT = "OpenStreetMap contributors"

_BLOCK = 8  # side of the blocks in which white patches are looked for


def read_geotiff(path: Path, level: int, extent: Extent) -> Picture:
    """RGBA of an extent of the level pixel grid, averaged or interpolated from any raster.

    A raster that lies exactly on the grid is read unchanged. Raises DataError if the raster cannot
    be read or has no CRS or less than three bands.
    """
    size, half = unit(level), EARTH_CIRCUMFERENCE_M / 2
    transform = rasterio.Affine(
        size, 0.0, extent.left * size - half, 0.0, -size, half - extent.top * size
    )
    try:
        with rasterio.open(path) as source:
            if source.crs is None or source.count < 3:
                raise DataError(f"{path} needs a CRS and three bands (red, green, blue)")
            masked = MaskFlags.all_valid not in source.mask_flag_enums[0]
            finer = source.res[0] * 1.4 < size
            with WarpedVRT(
                source,
                crs="EPSG:3857",
                transform=transform,
                width=extent.width,
                height=extent.height,
                resampling=Resampling.average if finer else Resampling.bilinear,
                add_alpha=not masked or source.nodata is None,
            ) as view:
                window = Window(0, 0, extent.width, extent.height)
                colours = view.read((1, 2, 3), window=window)
                valid = view.dataset_mask(window=window)
    except rasterio.errors.RasterioError as error:
        raise DataError(f"cannot read imagery {path}: {error}") from error
    picture = np.empty((extent.height, extent.width, 4), dtype=np.uint8)
    picture[..., 3] = np.where(valid > 127, 255, 0)
    picture[..., :3] = colours.transpose(1, 2, 0) * (picture[..., 3:] > 0)
    return picture


def without_blanks(picture: Picture) -> Picture:
    """RGBA with white patches made invalid: where SWISSIMAGE has no flight, it is white.

    A patch is at least 24 blocks of 8 x 8 px without a pixel below 248, with its bright rim.
    """
    height, width = picture.shape[0] // _BLOCK, picture.shape[1] // _BLOCK
    inner = picture[: height * _BLOCK, : width * _BLOCK]
    darkest = inner[..., :3].min(axis=2).reshape(height, _BLOCK, width, _BLOCK).min(axis=(1, 3))
    blank = sieve((darkest >= 248).astype(np.uint8), 24, connectivity=8) > 0
    if not blank.any():
        return picture
    near = np.pad(blank, 1)
    near = near[2:, 1:-1] | near[:-2, 1:-1] | near[1:-1, 2:] | near[1:-1, :-2] | blank
    bright = inner[..., :3].min(axis=2) >= 225
    inner[_enlarge(blank) | (_enlarge(near) & bright)] = 0
    return picture


def _enlarge(blocks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return blocks.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)


def geotiff_area(
    name: str,
    imagery: Path,
    vectors: Path,
    *,
    shift_px: tuple[int, int] = (0, 0),
    finest: int = 18,
    white_is_blank: bool = False,
    validation: tuple[Extent, ...] = (),
    credit: str = "",
    licence: str = "",
) -> AreaPlan:
    """A real pair for all levels down to `finest`.

    `shift_px` (dx east, dy south; level-18 pixels) moves the vectors; `white_is_blank` makes white
    patches invalid; `validation` is ground in pixels of level 10. Raises DataError if a file is
    missing or unreadable.
    """
    for path in (imagery, vectors):
        if not path.exists():
            raise DataError(f"{path} does not exist; name a folder that holds it with --data")
    try:
        with rasterio.open(imagery) as source, WarpedVRT(source, crs="EPSG:3857") as view:
            bounds = tuple(view.bounds)
    except rasterio.errors.RasterioError as error:
        raise DataError(f"cannot read imagery {imagery}: {error}") from error

    def read(extent: Extent) -> Picture:
        picture = read_geotiff(imagery, finest, extent)
        return without_blanks(picture) if white_is_blank else picture

    shift = (shift_px[0] * unit(18), -shift_px[1] * unit(18))
    return AreaPlan(
        name=name,
        kind="real",
        credit=credit,
        licence=licence,
        levels=tuple(z for z in LEVELS if z <= finest),
        targets=tuple(z for z in LEVELS if z <= finest),
        extent=extent_of(bounds, finest, GROUND_LEVEL),
        validation=validation,
        vectors=lambda: read_vectors(vectors, shift_m=shift),
        vectors_name=f"{vectors}{shift_px}",
        imagery=read,
    )


@dataclass(frozen=True)
class _Swiss:
    """Shift of the vectors (level-18 pixels) and validation ground (level-15 tile block)."""

    shift_px: tuple[int, int]
    held_out: tuple[int, int, int, int]


# Validation ground: (column, row, columns, rows) in tiles of level 15, from the tile that holds
# the area's north-west corner.
SWISS = {
    "landquart": _Swiss((-4, 0), (5, 0, 1, 5)),
    "ftan": _Swiss((4, 1), (0, 0, 1, 5)),
    "st_antoenien": _Swiss((-6, 3), (1, 3, 3, 2)),
    "brig_west": _Swiss((0, -1), (0, 0, 1, 3)),
}


def swiss(data: Path) -> Iterator[AreaPlan]:
    """SWISSIMAGE of four areas with the OpenStreetMap vectors moved onto it."""
    for name, facts in SWISS.items():
        plan = geotiff_area(
            name,
            data / "swiss" / f"{name}.tif",
            data / "swiss" / f"{name}.gpkg",
            shift_px=facts.shift_px,
            white_is_blank=True,
            credit=f"(c) swisstopo; {OSM_CREDIT}",
            licence="open government data (SWISSIMAGE); ODbL-1.0 (vectors)",
        )
        corner = plan.extent.at(18, 15)
        x, y = corner.left // TILE_SIZE, corner.top // TILE_SIZE
        column, row, columns, rows = facts.held_out
        ground = tiles_extent(x + column, y + row, columns, rows, 15, GROUND_LEVEL)
        yield replace(plan, validation=(ground,))
