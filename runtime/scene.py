"""A raster of any kind -> imagery of any window of any level, with its validity."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasterio.windows import Window as RasterWindow

from c2gm.runtime.errors import C2GMError, LevelError, ReferenceMapError, SceneError
from c2gm.runtime.filling import find_filling, without_filling
from c2gm.runtime.footprint import bounds
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.pixels import Picture
from c2gm.runtime.pyramid import Layer, Pyramid, level_resolution_m
from c2gm.runtime.raster import (
    GDAL_OPTIONS,
    RASTER_ERRORS,
    Raster,
    WorldBox,
    damaged,
    open_raster,
    shrunk,
)
from c2gm.runtime.survey import Stretch, Survey, footprints, survey

FINER_LEVELS = 3
"""Levels finer than the data by more than this are refused."""


PARTIAL_ALPHA_SHARE = 0.25
"""An alpha band with more half-transparent pixels than this, of all, is not one."""


class _Opened:
    """What scene and reference map share: reading, fingerprint, closing."""

    def __init__(self, layers: list[Layer], error: type[C2GMError]) -> None:
        self._files = layers[0].raster.files
        self._error = error
        self._pyramid = Pyramid(layers, error)
        self.path = layers[0].raster.path
        self.boxes = layers[0].raster.boxes

    def read(self, level: int, left: int, top: int, width: int, height: int) -> Picture:
        """RGBA (height, width, 4) of a box in level pixels; alpha 255 where there is data.

        Elsewhere all four are 0. A pixel has data where at least half of it does. Raises SceneError
        or ReferenceMapError where a file is damaged.
        """
        return self._pyramid.read(level, left, top, width, height)

    def touches(self, boxes: Iterable[WorldBox]) -> bool:
        """Whether the raster's rectangle overlaps one of these, in world units."""
        return any(
            max(own[0], box[0]) < min(own[2], box[2]) and max(own[1], box[1]) < min(own[3], box[3])
            for own in self.boxes
            for box in boxes
        )

    def narrow_px(self, level: int) -> float:
        """The shorter side of the raster's rectangle, in pixels of a level."""
        width = sum(right - left for left, _, right, _ in self.boxes)
        height = max(box[3] for box in self.boxes) - min(box[1] for box in self.boxes)
        return min(width, height) * (TILE_SIZE << level)

    def fingerprint(self) -> str:
        """SHA-256 over the content of all files that belong to the raster, hexadecimal."""
        digest = hashlib.sha256()
        for path in sorted(path for path in self._files if path.is_file()):
            try:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as failure:
                raise self._error(damaged(path, failure)) from None
        return digest.hexdigest()

    def close(self) -> None:
        """Close all files."""
        self._pyramid.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Scene(_Opened):
    """The imagery of a run, opened by `Scene.open`; a context manager, for any thread.

    `resolution_m`: side of its pixels in web-mercator metres; `native_level`: the level whose
    pixels are nearest to that; `bounds` in degrees; `footprints`: where valid data is, coarsely;
    `stretch`: what made 8 bits of other pixels, None for 8-bit imagery; `keep_filling`: whether
    flat black and white counts as imagery; `warnings`: what a user should know of how the file was
    read.
    """

    def __init__(
        self,
        raster: Raster,
        result: Survey,
        mask: MemoryFile,
        *,
        keep_filling: bool,
        warnings: tuple[str, ...],
    ) -> None:
        """`mask`: what the raster may read its validity from; closed with the scene."""
        self.keep_filling, self.warnings = keep_filling, warnings
        self.resolution_m = raster.resolution_m
        self.native_level = round(math.log2(level_resolution_m(0) / raster.resolution_m))
        self.footprints = footprints(raster, result)
        if not self.footprints:
            raise SceneError(
                f"{raster.path} has no valid pixel on the web-mercator world; check its "
                "georeference with gdalinfo"
            )
        self.bounds = bounds(self.footprints)
        self.stretch = None if raster.dtype == np.uint8 else result.stretch()
        self._mask, self._memory = mask, MemoryFile()
        layers = [Layer(raster, self.stretch, result.alpha_high)]
        if result.factor > 1:
            layers.append(Layer(_small_copy(self._memory, raster, result, self.stretch)))
        super().__init__(layers, SceneError)

    @classmethod
    def open(cls, path: Path, *, keep_filling: bool = False) -> Self:
        """Open a scene and read it through once. Raises SceneError for anything unusable.

        `keep_filling`: a rim of filling that the file does not declare counts as imagery.
        """
        raster, mask = open_raster(path, SceneError), MemoryFile()
        try:
            with rasterio.Env(**GDAL_OPTIONS):
                result = survey(raster)
                warnings: list[str] = []
                if result.alpha_partial > PARTIAL_ALPHA_SHARE:
                    warnings.append(
                        f"band {raster.alpha} of {path.name} is marked as transparency but looks "
                        "like a picture (near infrared?); it is ignored, all pixels count as data"
                    )
                    raster.dataset.close()
                    raster = open_raster(path, SceneError, use_alpha=False)
                    result = survey(raster)
                if not result.coverage.any():
                    raise SceneError(
                        f"{path} has no valid pixel, all of it is nodata; choose another scene"
                    )
                filling = None if keep_filling else find_filling(raster, result)
                if filling is not None:
                    raster, result = without_filling(raster, result, filling, mask)
                    if not result.coverage.any():
                        raise SceneError(
                            f"{path} is {filling.name} all over; choose another scene, or give "
                            "--keep-filling"
                        )
                    warnings.append(
                        f"{filling.share:.1%} of {path.name}, along its edges, is {filling.name} "
                        "without being declared as empty; no map is drawn there (--keep-filling "
                        "draws one)"
                    )
                return cls(
                    raster, result, mask, keep_filling=keep_filling, warnings=tuple(warnings)
                )
        except RASTER_ERRORS as failure:
            raster.dataset.close()
            mask.close()
            raise SceneError(damaged(path, failure)) from None
        except BaseException:
            raster.dataset.close()
            mask.close()
            raise

    def check_levels(self, levels: Iterable[int]) -> str | None:
        """A warning for levels finer than the data. Raises LevelError beyond three levels finer."""
        finest, native = max(levels), self.native_level
        found = (
            f"level {finest} is {finest - native} finer than what {self.path.name} shows (level "
            f"{native}, {self.resolution_m:.2f} m at the equator)"
        )
        if finest > native + FINER_LEVELS:
            raise LevelError(f"{found}; choose --levels up to {native + FINER_LEVELS}")
        return f"{found}: details there are guesses" if finest > native else None

    def close(self) -> None:
        """Close all files."""
        super().close()
        self._memory.close()
        self._mask.close()


class ReferenceMap(_Opened):
    """An existing base map, opened by `ReferenceMap.open`; a context manager, for any thread.

    A level is read from the file's overview of that resolution, which in an MBTiles file is the map
    of that level.
    """

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a base map of 8-bit colours. Raises ReferenceMapError for anything else."""
        raster = open_raster(path, ReferenceMapError)
        layers = [Layer(raster)]
        if raster.dtype != np.uint8:
            raster.dataset.close()
            raise ReferenceMapError(
                f"{path} has {raster.dtype} pixels, expected a map with 8-bit colours; convert it "
                "with gdal_translate -ot Byte"
            )
        if raster.dataset.driver != "VRT":
            for level in range(len(raster.dataset.overviews(raster.colours[0]))):
                layers.append(Layer(open_raster(path, ReferenceMapError, overview_level=level)))
        return cls(layers, ReferenceMapError)


def _small_copy(
    memory: MemoryFile, raster: Raster, result: Survey, stretch: Stretch | None
) -> Raster:
    """The survey's averages as a raster in memory, 8 bits with alpha."""
    bands, height, width = result.colours.shape
    meaning = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    with memory.open(
        driver="GTiff",
        width=width,
        height=height,
        count=bands + 1,
        dtype="uint8",
        crs=raster.dataset.crs,
        transform=shrunk(raster.dataset.transform, result.factor),
        tiled=True,
    ) as copy:
        copy.colorinterp = (*(meaning if bands == 3 else (ColorInterp.gray,)), ColorInterp.alpha)
        for top in range(0, height, 512):
            rows = slice(top, min(top + 512, height))
            colours = result.colours[:, rows]
            if stretch is not None:
                colours = stretch.apply(colours)
            window = RasterWindow(0, top, width, rows.stop - top)
            copy.write(np.concatenate([colours, result.coverage[None, rows]]), window=window)
    return replace(
        raster,
        dataset=memory.open(),
        colours=tuple(range(1, bands + 1)),
        alpha=bands + 1,
        transforms=tuple(shrunk(transform, result.factor) for transform in raster.transforms),
        resolution_m=raster.resolution_m * result.factor,
    )
