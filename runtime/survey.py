"""One pass over a whole raster: is every block readable, where is data, how bright is it.

The pass leaves a small copy of the raster (averages of square blocks of pixels), from which coarse
levels are read and the stretch is taken, and finds damage before any work is done.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioIOError
from rasterio.transform import Affine
from rasterio.warp import reproject
from rasterio.windows import Window as RasterWindow

from c2gm.runtime.footprint import Footprint
from c2gm.runtime.levels import EARTH_CIRCUMFERENCE_M
from c2gm.runtime.raster import Raster, WorldBox, shrunk

COPY_SIDE = 4096
"""Longest side of the small copy in pixels."""

FOOTPRINT_SIDE = 1024
"""Longest side of a footprint's mask in cells."""

PERCENTILES = (2.0, 98.0)
"""Pixels below and above these percentiles of the scene become black and white."""

_STRIP_BYTES = 48 << 20


@dataclass(frozen=True, slots=True)
class Stretch:
    """One linear stretch for the whole scene: `low` and `high` of each band become 0 and 255."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def apply(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Pixels (bands, height, width) of any type -> 0..255; not-a-number becomes 0."""
        low = np.array(self.low, dtype=np.float32)[:, None, None]
        high = np.array(self.high, dtype=np.float32)[:, None, None]
        scaled = (values.astype(np.float32) - low) * (255 / (high - low))
        return np.nan_to_num(scaled, nan=0, posinf=255, neginf=0).clip(0, 255).round().astype("u1")


@dataclass(frozen=True, slots=True)
class Survey:
    """A raster's small copy, north and south as in the raster.

    `factor`: side of a block in pixels; `colours` (bands, height, width): block averages, uint8 or
    float32; `coverage` (height, width): share of valid pixels of each block, 1..255, 0 for none.
    `alpha_high`: the largest value of the raster's alpha band, 0 without one.
    `alpha_partial`: share of its pixels that are neither 0 nor near full, where it has 8 bits.
    """

    factor: int
    colours: NDArray[Any]
    coverage: NDArray[np.uint8]
    alpha_high: float
    alpha_partial: float

    def stretch(self) -> Stretch:
        """The stretch between the percentiles of every band, over valid blocks."""
        thin = np.s_[
            :: max(1, self.coverage.shape[0] // 1024), :: max(1, self.coverage.shape[1] // 1024)
        ]
        values = self.colours[:, *thin][:, self.coverage[thin] > 0]
        low, high = np.percentile(values, PERCENTILES, axis=1)
        high = np.where(high > low, high, low + 1)
        return Stretch(tuple(map(float, low)), tuple(map(float, high)))


def survey(raster: Raster) -> Survey:
    """Read every block once. Raises RasterioError where the file is damaged."""
    with decoder_warnings() as told:
        found = _survey(raster)
    if told:
        raise RasterioIOError(told[0])
    return found


@contextmanager
def decoder_warnings() -> Iterator[list[str]]:
    """Collects what a JPEG decoder only warns of: it fills in grey for what it cannot read.

    GDAL_ERROR_ON_LIBJPEG_WARNING makes that an error for JPEG files, and for some of the blocks in
    a GeoTIFF; of others rasterio only logs it.
    """
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            if "JPEGLib" in message:
                told.append(message.removeprefix("CPLE_AppDefined:"))

    logger, listener = logging.getLogger("rasterio._err"), Listener(logging.WARNING)
    logger.addHandler(listener)
    try:
        yield told
    finally:
        logger.removeHandler(listener)


def _survey(raster: Raster) -> Survey:
    dataset = raster.dataset
    factor = math.ceil(max(dataset.width, dataset.height) / COPY_SIDE)
    shape = -(-dataset.height // factor), -(-dataset.width // factor)
    kind = np.uint8 if raster.dtype == np.uint8 else np.float32
    colours = np.zeros((len(raster.colours), *shape), dtype=kind)
    coverage = np.zeros(shape, dtype=np.uint8)
    alpha_counts = np.zeros(256, dtype=np.int64)
    alpha_high = 0.0
    for window in _strips(raster, factor):
        values, valid, alpha = read_pixels(raster, window)
        if alpha is not None:
            alpha_high = max(alpha_high, float(alpha.max()))
            if alpha.dtype == np.uint8:
                alpha_counts += np.bincount(alpha.ravel(), minlength=256)
        rows = slice(window.row_off // factor, -(-(window.row_off + window.height) // factor))
        columns = slice(window.col_off // factor, -(-(window.col_off + window.width) // factor))
        means, share = averages(values, valid, factor)
        colours[:, rows, columns] = means.round() if kind is np.uint8 else means
        coverage[rows, columns] = np.ceil(share * 255)
    partial = alpha_counts[1 : math.ceil(0.9 * alpha_high)].sum() / max(1, alpha_counts.sum())
    return Survey(factor, colours, coverage, alpha_high, float(partial))


def read_pixels(
    raster: Raster, window: RasterWindow
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[Any] | None]:
    """Colours (bands, height, width), validity (height, width) and alpha (the same) of a window."""
    values = raster.dataset.read(list(raster.colours), window=window)
    alpha = None
    if raster.alpha is not None:
        alpha = raster.dataset.read(raster.alpha, window=window)
        valid = alpha > 0
    elif MaskFlags.all_valid in raster.dataset.mask_flag_enums[0]:
        valid = np.ones(values.shape[1:], dtype=np.bool_)
    else:
        valid = raster.dataset.dataset_mask(window=window) > 0
    if values.dtype.kind == "f":
        valid &= np.isfinite(values).all(axis=0)
    return values, valid, alpha


def _strips(raster: Raster, factor: int) -> Iterator[RasterWindow]:
    """Windows of whole blocks and bounded size, over full rows unless one row is too long."""
    width, height = raster.dataset.width, raster.dataset.height
    pixel_bytes = (len(raster.colours) + 1) * max(raster.dtype.itemsize, 4)
    columns = max(1, _STRIP_BYTES // (pixel_bytes * factor**2)) * factor
    columns = min(width, columns)
    rows = max(1, _STRIP_BYTES // (columns * pixel_bytes * factor)) * factor
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield RasterWindow(left, top, min(columns, width - left), min(rows, height - top))


def averages(
    values: NDArray[Any], valid: NDArray[np.bool_], factor: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Means of the valid pixels of every block, 0 where there is none; share of valid pixels."""
    bands, height, width = values.shape
    rows, columns = -(-height // factor), -(-width // factor)
    padding = (0, rows * factor - height), (0, columns * factor - width)

    def sums(array: NDArray[Any]) -> NDArray[np.float32]:
        padded = np.pad(array, ((0, 0), *padding)) if any(map(any, padding)) else array
        blocks = padded.reshape(-1, rows, factor, columns, factor)
        # Rows first: that runs along memory, and leaves little for the columns.
        summed: NDArray[np.float32] = blocks.sum(axis=2, dtype=np.float32).sum(axis=3)
        return summed

    count = sums(valid[None])[0]
    kept = values if valid.all() else np.where(valid, values, 0)
    return sums(kept) / np.maximum(count, 1), count / factor**2


def footprints(raster: Raster, result: Survey) -> tuple[Footprint, ...]:
    """Where the raster has data: cautious by one cell, and never beyond the raster's boxes."""
    places = zip(raster.boxes, raster.transforms, strict=True)
    found = (_footprint(raster, result, box, transform) for box, transform in places)
    return tuple(part for part in found if part.mask.any())


def _footprint(raster: Raster, result: Survey, box: WorldBox, transform: Affine) -> Footprint:
    left, top, right, bottom = box
    thinning = -(-max(result.coverage.shape) // FOOTPRINT_SIDE)
    _, share = averages(result.coverage[None], result.coverage > 0, thinning)
    cell = max(right - left, bottom - top) / FOOTPRINT_SIDE
    cell = max(cell, raster.resolution_m / EARTH_CIRCUMFERENCE_M)
    height, width = math.ceil((bottom - top) / cell - 1e-6), math.ceil((right - left) / cell - 1e-6)
    whole, half = EARTH_CIRCUMFERENCE_M, EARTH_CIRCUMFERENCE_M / 2
    mask = np.zeros((height, width), dtype=np.uint8)
    reproject(
        grown(share > 0).astype(np.uint8),
        mask,
        src_transform=shrunk(transform, result.factor * thinning),
        src_crs=raster.dataset.crs,
        dst_transform=Affine(
            (right - left) / width * whole,
            0,
            left * whole - half,
            0,
            -(bottom - top) / height * whole,
            half - top * whole,
        ),
        dst_crs="EPSG:3857",
        resampling=Resampling.nearest,
        num_threads=1,
    )
    return Footprint(left, top, right, bottom, grown(mask > 0))


def grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask and the eight neighbours of everything in it."""
    padded = np.pad(mask, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    grown: NDArray[np.bool_] = rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]
    return grown
