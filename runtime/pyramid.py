"""The same ground in several resolutions, warped to the level pixel grid."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

from c2gm.runtime.errors import C2GMError
from c2gm.runtime.levels import EARTH_CIRCUMFERENCE_M, TILE_SIZE
from c2gm.runtime.pixels import Picture
from c2gm.runtime.raster import GDAL_OPTIONS, RASTER_ERRORS, Raster, damaged
from c2gm.runtime.survey import Stretch

_WARPER_ALPHA = {"uint16": 65535, "int16": 32767}  # full alpha in the band that the warper adds


@dataclass(frozen=True, slots=True)
class Layer:
    """A raster, what makes 8 bits of it (None: it has them), and what its alpha band calls full."""

    raster: Raster
    stretch: Stretch | None = None
    alpha_high: float = 255


class Pyramid:
    """Reads the layers, each for the levels that it suits.

    A level's pixels do not depend on the box they are read in. Any thread may read; one at a time.
    """

    def __init__(self, layers: Sequence[Layer], error: type[C2GMError]) -> None:
        """`layers`: finest first; `error`: what a damaged file raises."""
        self._layers = tuple(layers)
        self._error = error
        self._views: dict[tuple[int, int], tuple[Any, int, int]] = {}
        self._lock = threading.RLock()

    def read(self, level: int, left: int, top: int, width: int, height: int) -> Picture:
        """RGBA (height, width, 4) of a box in level pixels; without data all four are 0.

        A pixel has data where at least half of it does. Raises the error class given.
        """
        picture = np.zeros((height, width, 4), dtype=np.uint8)
        with self._lock, rasterio.Env(**GDAL_OPTIONS):
            layer = self._layer_for(level)
            raster = layer.raster
            for part in range(len(raster.boxes)):
                try:
                    view, x, y = self._view(raster, level, part)
                    x0, x1 = max(left, x), min(left + width, x + view.width)
                    y0, y1 = max(top, y), min(top + height, y + view.height)
                    if x0 >= x1 or y0 >= y1:
                        continue
                    pixels = view.read(window=RasterWindow(x0 - x, y0 - y, x1 - x0, y1 - y0))
                except RASTER_ERRORS as failure:
                    raise self._error(damaged(raster.path, failure)) from None
                target = picture[y0 - top : y1 - top, x0 - left : x1 - left]
                target[...] = _rgba(layer, pixels)
        return picture

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for view, _, _ in self._views.values():
                view.close()
            self._views.clear()
            for layer in self._layers:
                layer.raster.dataset.close()

    def _layer_for(self, level: int) -> Layer:
        """The coarsest layer that is not coarser than the level."""
        wanted = level_resolution_m(level) * 1.02
        fine = [layer for layer in self._layers if layer.raster.resolution_m <= wanted]
        return fine[-1] if fine else self._layers[0]

    def _view(self, raster: Raster, level: int, part: int) -> tuple[Any, int, int]:
        """A raster warped to the pixels of a level, and the level pixels of its corner."""
        if (level, part) not in self._views:
            size = level_resolution_m(level)
            scale, half = TILE_SIZE << level, EARTH_CIRCUMFERENCE_M / 2
            x, y = (math.floor(value * scale + 1e-6) for value in raster.boxes[part][:2])
            right, bottom = (math.ceil(value * scale - 1e-6) for value in raster.boxes[part][2:])
            view = WarpedVRT(
                raster.dataset,
                crs="EPSG:3857",
                transform=Affine(size, 0, x * size - half, 0, -size, half - y * size),
                width=max(right - x, 1),
                height=max(bottom - y, 1),
                resampling=_resampling(size / raster.resolution_m),
                src_transform=raster.transforms[part],
                add_alpha=raster.alpha is None,
                **_warp_nodata(raster),
            )
            self._views[level, part] = view, x, y
        return self._views[level, part]


def _rgba(layer: Layer, pixels: NDArray[Any]) -> Picture:
    raster = layer.raster
    colours = pixels[[band - 1 for band in raster.colours]]
    if raster.alpha is None:
        alpha, high = pixels[-1], float(_WARPER_ALPHA.get(str(pixels.dtype), 255))
    else:
        alpha, high = pixels[raster.alpha - 1], layer.alpha_high
    valid = (alpha.astype(np.float64) * 2 >= high) & np.isfinite(colours).all(axis=0)
    if layer.stretch is not None:
        colours = layer.stretch.apply(colours)
    rgb = np.broadcast_to(colours * valid, (3, *valid.shape))
    return np.dstack([*rgb, valid * np.uint8(255)])


def level_resolution_m(level: int) -> float:
    """Side of a level's pixel in web-mercator metres."""
    return EARTH_CIRCUMFERENCE_M / (TILE_SIZE << level)


def _resampling(shrinking: float) -> Resampling:
    """The filter for pixels that become `shrinking` times larger; both avoid aliasing.

    Averaging at the same size is bilinear interpolation; GDAL's bilinear filter for smaller ones is
    three to five times slower.
    """
    return Resampling.cubic if shrinking < 0.99 else Resampling.average


def _warp_nodata(raster: Raster) -> dict[str, float]:
    """Not-a-number is no data, also where the file does not say so."""
    named = raster.dataset.nodata is not None or raster.alpha is not None
    return {"src_nodata": math.nan} if raster.dtype.kind == "f" and not named else {}
