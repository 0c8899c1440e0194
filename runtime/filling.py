"""Filling that a file does not declare: a black or white rim around what was photographed.

An orthophoto is turned until north is up, and what is left of its rectangle is filled. Where
nothing says that this is no imagery, a model draws a map of it: along white rims it drew main
roads. GDAL's nearblack looks for the same line by line; here what counts is whether the filling
reaches the edge, or what the file does declare as empty. A flat patch in the middle may be a roof,
or water that somebody has retouched.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.io import MemoryFile
from rasterio.windows import Window

from c2gm.runtime.raster import Raster
from c2gm.runtime.survey import Survey, averages, grown
from c2gm.runtime.virtual import virtual_raster

LEAST_SHARE = 0.001
"""Of a raster: less filling than this is left as it is, it may be a shadow or a roof."""

FRINGE_PX = 8
"""How far from certain filling pixels may be a little off its colour: a JPEG block."""

FRINGE_VALUES = 30
"""How far off, of 255; pixels of more than 8 bits are not blurred, and must be the colour."""

CELLS = 1024
"""At most so many cells a side in which filling is looked for."""

_CHUNK_PX = 256

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Filling:
    """`cells` (height, width) of `side` pixels that hold nothing else; `value`: its colour."""

    cells: Mask
    side: int
    value: float

    @property
    def share(self) -> float:
        """Of the raster, 0..1."""
        return float(self.cells.mean())

    @property
    def name(self) -> str:
        """Of the colour, for users."""
        return "white" if self.value else "black"


def find_filling(raster: Raster, result: Survey) -> Filling | None:
    """The larger of a white and a black rim, None where there is neither.

    A file with an alpha band has said what is empty; floats have other ways to.
    """
    if raster.alpha is not None or raster.dtype.kind not in "iu":
        return None
    values = (0.0, float(np.iinfo(raster.dtype).max))
    rims = [rim for value in values if (rim := _rim(result, value)) is not None]
    return max(rims, key=lambda rim: rim.share, default=None)


def reached(open_cells: Mask, seeds: Mask) -> Mask:
    """Cells of `open_cells` with a path in it, over sides, to one of `seeds`; all (h, w)."""
    found = open_cells & seeds
    across_open, count = np.ascontiguousarray(open_cells.T), -1
    while count != (count := int(found.sum())):
        found = _spread(open_cells, found)
        found = _spread(across_open, np.ascontiguousarray(found.T)).T
    return found


def without_filling(
    raster: Raster, result: Survey, filling: Filling, memory: MemoryFile
) -> tuple[Raster, Survey]:
    """The raster with filling as no data, and its survey. `memory` holds the mask: close it later.

    Only what lies next to filling is read again. Raises RasterioError where the file is damaged.
    """
    dataset, factor = raster.dataset, result.factor
    profile = {"width": dataset.width, "height": dataset.height, "count": 1, "dtype": "uint8"}
    layout = {"tiled": True, "compress": "deflate", "zlevel": 1, "sparse_ok": True}
    colours, coverage = result.colours.copy(), result.coverage.copy()
    with memory.open(
        driver="GTiff", crs=dataset.crs, transform=dataset.transform, **profile, **layout
    ) as written:
        for window in _chunks(dataset.width, dataset.height, filling.side):
            valid, values = _valid(raster, filling, window)
            if valid.any():
                written.write(valid.astype(np.uint8) * np.uint8(255), 1, window=window)
            rows, columns = (
                slice(start // factor, -(-stop // factor)) for start, stop in window.toranges()
            )
            if values is not None:
                means, share = averages(values, valid, factor)
                means = means.round() if colours.dtype == np.uint8 else means
                colours[:, rows, columns] = means
                coverage[rows, columns] = np.ceil(share * 255)
            elif not valid.any():
                colours[:, rows, columns], coverage[rows, columns] = 0, 0
    bands = tuple(range(1, len(raster.colours) + 1))
    virtual = rasterio.open(virtual_raster(dataset, raster.colours, mask=memory.name))
    dataset.close()
    return (
        replace(raster, dataset=virtual, colours=bands),
        replace(result, colours=colours, coverage=coverage),
    )


def _rim(result: Survey, value: float) -> Filling | None:
    """Cells of a colour that reach the raster's edge or an empty one, if they are not too few."""
    flat = (result.colours == value).all(axis=0) & (result.coverage > 0)
    if flat.mean() < LEAST_SHARE:
        return None
    empty = result.coverage == 0
    thinning = -(-max(flat.shape) // CELLS)
    whole = _all_of(flat | empty, thinning)
    empty = _all_of(empty, thinning)
    seeds = grown(empty)
    seeds[[0, -1]], seeds[:, [0, -1]] = True, True
    cells = reached(whole & ~empty, seeds)
    return Filling(cells, result.factor * thinning, value) if cells.mean() >= LEAST_SHARE else None


def _all_of(mask: Mask, side: int) -> Mask:
    """Of squares of cells: whether all of them are true, of those that the mask still holds."""
    height, width = mask.shape
    padded = np.pad(mask, ((0, -height % side), (0, -width % side)), constant_values=True)
    squares = padded.reshape(-(-height // side), side, -(-width // side), side)
    whole: Mask = np.asarray(squares.all(axis=(1, 3)))
    return whole


def _spread(open_cells: Mask, found: Mask) -> Mask:
    """`found` and what lies beside it in its row without a gap in `open_cells` between them."""
    place = np.arange(1, found.shape[1] + 1, dtype=np.int16)
    gaps = ~open_cells
    found = found.copy()
    for side in (np.s_[:, :], np.s_[:, ::-1]):
        last_found = np.maximum.accumulate(found[side] * place, axis=1)
        last_gap = np.maximum.accumulate(gaps[side] * place, axis=1)
        beside: Mask = (last_found > last_gap)[side]
        found |= beside
    return found


def _around(mask: Mask, distance: int) -> Mask:
    """A mask and everything within a square of `distance` cells around it."""
    for _ in range(2):  # along rows, then along columns
        sums = np.pad(mask, ((0, 0), (distance + 1, distance))).cumsum(axis=1, dtype=np.int32)
        mask = (sums[:, 2 * distance + 1 :] > sums[:, : -2 * distance - 1]).T
    return mask


def _chunks(width: int, height: int, cell: int) -> Iterator[Window]:
    """Windows of whole cells."""
    side = cell * max(1, _CHUNK_PX // cell)
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield Window(left, top, min(side, width - left), min(side, height - top))


def _valid(raster: Raster, filling: Filling, window: Window) -> tuple[Mask, NDArray[Any] | None]:
    """Where a window has data (height, width); its pixels, if only a part of it is filling."""
    dataset, margin = raster.dataset, filling.side + FRINGE_PX
    (top, bottom), (left, right) = window.toranges()
    # Filling that lies outside may reach in.
    y0, y1 = max(0, top - margin), min(dataset.height, bottom + margin)
    x0, x1 = max(0, left - margin), min(dataset.width, right + margin)
    outer = Window(x0, y0, x1 - x0, y1 - y0)
    inner = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
    rows, columns = np.arange(y0, y1) // filling.side, np.arange(x0, x1) // filling.side
    certain = filling.cells[np.ix_(rows, columns)]
    declared = _declared(raster, outer)
    if certain.all():
        return np.zeros((window.height, window.width), dtype=np.bool_), None
    seeds = certain | ~declared
    seeds[0] |= y0 == 0
    seeds[-1] |= y1 == dataset.height
    seeds[:, 0] |= x0 == 0
    seeds[:, -1] |= x1 == dataset.width
    if not seeds.any():
        return declared[inner], None
    values = dataset.read(list(raster.colours), window=outer)
    tolerance = FRINGE_VALUES if raster.dtype == np.uint8 else 0
    alike = (np.abs(values.astype(np.float64) - filling.value) <= tolerance).all(axis=0)
    taken = certain
    if (alike & seeds).any():
        taken = certain | reached(alike & _around(seeds, margin), seeds)
    valid = (declared & ~taken)[inner]
    # The survey knows already what is in windows that lose nothing.
    return valid, values[:, *inner] if taken[inner].any() else None


def _declared(raster: Raster, window: Window) -> Mask:
    """Where the file itself says that there is data."""
    if MaskFlags.all_valid in raster.dataset.mask_flag_enums[0]:
        return np.ones((window.height, window.width), dtype=np.bool_)
    declared: Mask = raster.dataset.dataset_mask(window=window) > 0
    return declared
