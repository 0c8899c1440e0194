"""Plans as large as a benchmark wants, and scenes for them, out of one picture that is mirrored."""

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.errors
import rasterio.windows
from rasterio.transform import Affine

from c2gm.runtime.errors import SceneError
from c2gm.runtime.footprint import Footprint
from c2gm.runtime.grid import Plan, plan
from c2gm.runtime.levels import EARTH_CIRCUMFERENCE_M, TILE_SIZE

PATCH = 4 * TILE_SIZE
"""Side of the part of the picture that is used, from its middle."""

SHEET_LEVELS = range(10, 17)
SHEET_TILES = 441
"""A 1:50,000 sheet as the paper counts it (method, section 8)."""


def sheet_plan(levels: Sequence[int] = SHEET_LEVELS, tiles: int = SHEET_TILES) -> Plan:
    """A square of ground whose tiles come nearest to `tiles`, its corner on a coarsest tile's."""
    finest = 2.0 ** -levels[-1]
    corner = 2.0 ** -levels[0] * round(0.53 * 2 ** levels[0])
    plans = []
    for edge in range(1, 2 ** (levels[-1] - levels[0]) + 1):
        end = corner + (edge - 0.5) * finest
        plans.append(plan(levels, [Footprint(corner, corner, end, end, np.ones((1, 1), bool))]))
        if _count(plans[-1]) >= tiles:
            break
    return min(plans, key=lambda found: abs(_count(found) - tiles))


def _count(planned: Plan) -> int:
    return sum(planned.tile_count(level) for level in planned.levels)


def mirrored_scene(picture: Path, planned: Plan, folder: Path) -> Path:
    """A scene (VRT over a GeoTIFF, both in `folder`) of exactly a plan's finest tiles.

    Its pixels are those of the plan's finest level. Raises SceneError as `middle_of` does.
    """
    patch = middle_of(picture)
    block = np.concatenate([patch, patch[:, :, ::-1]], axis=2)
    block = np.concatenate([block, block[:, ::-1]], axis=1)
    side = block.shape[1]
    level = planned.levels[-1]
    tiles = [window for window in planned.windows(level)]
    left, top = (min(t.pixel_box[axis] for t in tiles) for axis in (0, 1))
    right, bottom = (max(t.pixel_box[a] + t.pixel_box[a + 2] for t in tiles) for a in (0, 1))
    size, half = EARTH_CIRCUMFERENCE_M / (TILE_SIZE << level), EARTH_CIRCUMFERENCE_M / 2
    corner = Affine(size, 0, left * size - half, 0, -size, half - top * size)
    with rasterio.open(
        folder / "block.tif",
        "w",
        driver="GTiff",
        width=side,
        height=side,
        count=3,
        dtype="uint8",
        crs="EPSG:3857",
        transform=corner,
        tiled=True,
        compress="deflate",
        photometric="rgb",
    ) as file:
        file.write(block)
    width, height = right - left, bottom - top
    text = [
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">',
        f"<SRS>EPSG:3857</SRS><GeoTransform>{','.join(map(repr, corner.to_gdal()))}</GeoTransform>",
    ]
    for band, colour in enumerate(("Red", "Green", "Blue"), start=1):
        text.append(
            f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{colour}</ColorInterp>'
        )
        text += [
            f'<SimpleSource><SourceFilename relativeToVRT="1">{escape("block.tif")}'
            f"</SourceFilename><SourceBand>{band}</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="{side}" ySize="{side}"/>'
            f'<DstRect xOff="{x}" yOff="{y}" xSize="{side}" ySize="{side}"/></SimpleSource>'
            for y in range(0, height, side)
            for x in range(0, width, side)
        ]
        text.append("</VRTRasterBand>")
    scene = folder / "scene.vrt"
    scene.write_text("".join([*text, "</VRTDataset>"]), encoding="utf-8")
    return scene


def middle_of(picture: Path) -> np.ndarray:
    """The middle of a picture, (3, PATCH, PATCH) uint8.

    Raises SceneError for a picture that is smaller, has other than three bands of 8 bits, or no
    data in the middle.
    """
    try:
        opened = rasterio.open(picture)
    except rasterio.errors.RasterioIOError:
        raise SceneError(f"{picture} does not exist or is no raster; give a GeoTIFF") from None
    with opened as file:
        if file.count != 3 or file.dtypes[0] != "uint8" or min(file.shape) < PATCH:
            raise SceneError(
                f"{picture} has {file.count} bands of {file.dtypes[0]}, {file.width} x "
                f"{file.height} px; expected three of 8 bits and at least {PATCH} px a side"
            )
        top, left = ((size - PATCH) // 2 for size in file.shape)
        window = rasterio.windows.Window(left, top, PATCH, PATCH)
        if not file.dataset_mask(window=window).all():
            raise SceneError(f"{picture} has pixels without data in the middle; choose another")
        pixels: np.ndarray = file.read(window=window)
        return pixels
