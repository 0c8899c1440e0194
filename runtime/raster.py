"""Opening any GDAL raster: what is wrong with it, which bands are its colours, where it lies."""

import math
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from c2gm.runtime.errors import C2GMError
from c2gm.runtime.footprint import world_from_degrees
from c2gm.runtime.levels import EARTH_CIRCUMFERENCE_M
from c2gm.runtime.virtual import GDAL_TYPES, virtual_raster

RASTER_ERRORS = (RasterioError, CPLE_BaseError)
"""What rasterio raises when GDAL fails."""

GDAL_OPTIONS: dict[str, Any] = {
    "GDAL_CACHEMAX": 256 << 20,  # bytes; the default is a share of the machine's memory
    "GDAL_ERROR_ON_LIBJPEG_WARNING": True,  # a truncated JPEG must not pass as a grey area
    # A raster may refer to others by address. Whatever reaches for one finds a closed door: c2gm
    # works offline, and a scene must not tell anybody that it was opened.
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "GDAL_HTTP_PROXY": "127.0.0.1:9",
    "GDAL_HTTPS_PROXY": "127.0.0.1:9",
    "GDAL_HTTP_MAX_RETRY": 0,
    "GDAL_VRT_ENABLE_PYTHON": "NO",
}

MAX_SIDE = 1_000_000
"""Most pixels of a side: a mosaic of a whole country at half a metre."""

MAX_BLOCK_BYTES = 1 << 30
"""GDAL reads a block in one piece, however large the file says it is."""

MAX_EXPANSION = 2_000
"""Most times that pixels may be larger than their file; real imagery is compressed 10 to 100 times,
what is larger than this is empty."""

_LARGE_BYTES = 1 << 30  # below this emptiness costs no time

WorldBox = tuple[float, float, float, float]
"""Left, top, right, bottom in world units (see `footprint`)."""

_ADDRESS = re.compile(r"/vsi(?!zip|tar|gzip|7z|rar|mem|sparse|subfile)|[a-z0-9+]{2,}:/", re.I)
"""Of what does not lie on this machine: GDAL's virtual network file systems, and URLs."""

_GRID = 65  # points a side at which a raster's outline is projected


@dataclass(frozen=True, slots=True)
class Raster:
    """An open raster that passed all checks.

    `dataset`: the rasterio dataset to read, a VRT over the file where bands had to be chosen or a
    palette expanded; `colours`: its bands with grey (one) or red, green and blue (three); `alpha`:
    its alpha band or None; `boxes`: where it lies, two boxes across the antimeridian;
    `transforms`: its transform for each box (longitudes may be off by whole turns);
    `resolution_m`: side of a pixel at its centre in web-mercator metres; `files`: all its files.
    """

    path: Path
    dataset: Any
    colours: tuple[int, ...]
    alpha: int | None
    boxes: tuple[WorldBox, ...]
    transforms: tuple[Affine, ...]
    resolution_m: float
    files: tuple[Path, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        kind: np.dtype[Any] = np.dtype(self.dataset.dtypes[0])
        return kind


def open_raster(
    path: Path, error: type[C2GMError], *, use_alpha: bool = True, **options: Any
) -> Raster:
    """Open and check a raster; `options` go to GDAL. Raises `error` with one line.

    Without `use_alpha` a band that is marked as alpha is left out.
    """
    if wrong := _why_not_tried(path):
        raise error(wrong)
    with rasterio.Env(**GDAL_OPTIONS), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            dataset = rasterio.open(path, **options)
        except RASTER_ERRORS as failure:
            raise error(_why_not_opened(path, failure)) from None
        try:
            return _checked(path, dataset, error, use_alpha)
        except RASTER_ERRORS as failure:
            dataset.close()
            raise error(f"{path} cannot be read ({_line(failure)}); copy it again") from None
        except BaseException:
            dataset.close()
            raise


def shrunk(transform: Affine, factor: int) -> Affine:
    """The transform of a raster whose pixels are `factor` times larger."""
    t = transform
    return Affine(t.a * factor, t.b * factor, t.c, t.d * factor, t.e * factor, t.f)


def moved(transform: Affine, x: float) -> Affine:
    """A transform whose origin lies further east by `x`."""
    t = transform
    return Affine(t.a, t.b, t.c + x, t.d, t.e, t.f)


def damaged(path: Path, failure: Exception) -> str:
    """The message for a raster that fails while it is read."""
    return f"{path} is damaged or truncated ({_line(failure)}); copy or download it again"


def _line(failure: Exception) -> str:
    return " ".join(str(failure.__cause__ or failure).split())


def _why_not_tried(path: Path) -> str | None:
    """What is wrong with a path before GDAL sees it, which would wait for a pipe, or go online."""
    if not os.path.exists(path):
        if _ADDRESS.match(str(path)):
            return (
                f"{path} is an address, and c2gm works without a network; download the file and "
                "name it"
            )
        return f"{path} does not exist; check the path"
    if not path.is_file() and not path.is_dir():
        return f"{path} is not a file, expected a raster; write it to disk first"
    if path.is_file() and not path.stat().st_size:
        return f"{path} is empty (0 bytes); copy or download it again"
    return None


def _why_not_opened(path: Path, failure: Exception) -> str:
    if path.is_dir():
        return f"{path} is a folder, expected a raster file; name the file in it"
    return (
        f"{path} is not a raster that GDAL can read, or it is truncated ({_line(failure)}); "
        "give a GeoTIFF or another georeferenced raster"
    )


def _check_size(path: Path, dataset: Any, error: type[C2GMError]) -> None:
    """Raises `error` where the file asks for more memory or time than its content is worth."""
    width, height = dataset.width, dataset.height
    if max(width, height) > MAX_SIDE:
        raise error(
            f"{path} has {width} x {height} pixels, expected {MAX_SIDE} a side at most; cut out a "
            "part with gdal_translate -srcwin"
        )
    pixel_bytes = sum(np.dtype(kind).itemsize for kind in dataset.dtypes)
    interleaved = str(dataset.profile.get("interleave", "")).lower() == "pixel"
    rows, columns = dataset.block_shapes[0]
    block = rows * columns * (pixel_bytes if interleaved else np.dtype(dataset.dtypes[0]).itemsize)
    if block > MAX_BLOCK_BYTES:
        raise error(
            f"{path} is stored in blocks of {columns} x {rows} pixels ({block / 1e9:.1f} GB each), "
            f"expected at most {MAX_BLOCK_BYTES / 1e9:.1f} GB; tile it with gdal_translate -co "
            "TILED=YES"
        )
    declared = width * height * pixel_bytes
    held = sum(os.path.getsize(name) for name in dataset.files if os.path.isfile(name))
    if declared > max(_LARGE_BYTES, held * MAX_EXPANSION):
        raise error(
            f"{path} declares {width} x {height} pixels ({declared / 1e9:.1f} GB) but is "
            f"{held / 1e6:.1f} MB small: next to nothing is in it; cut out what is, with gdalwarp "
            "-te"
        )


def _checked(path: Path, dataset: Any, error: type[C2GMError], use_alpha: bool) -> Raster:
    remote = [name for name in dataset.files if _ADDRESS.match(name)]
    if remote:
        raise error(
            f"{path} refers to {remote[0]}, and c2gm works without a network; download that and "
            "refer to the copy"
        )
    if not dataset.count:
        hint = f", for example {dataset.subdatasets[0]}" if dataset.subdatasets else ""
        raise error(
            f"{path} has no bands but {len(dataset.subdatasets)} subdatasets{hint}; convert one "
            "with gdal_translate"
        )
    if not dataset.crs:
        found = "only ground control points" if dataset.gcps[0] else "no coordinate system"
        raise error(
            f"{path} has {found}; georeference it, for example gdalwarp -t_srs EPSG:3857 IN OUT, "
            "or gdal_edit.py -a_srs EPSG:CODE FILE if its coordinates are right"
        )
    transform: Affine = dataset.transform
    finite = all(map(math.isfinite, tuple(transform)[:6]))
    if transform.is_identity or not finite or not abs(transform.determinant) > 0:
        raise error(
            f"{path} has no georeference (its geotransform is {tuple(transform)[:6]}); add a world "
            "file, or georeference it with gdal_translate -a_ullr"
        )
    if any(kind not in GDAL_TYPES for kind in dataset.dtypes):
        raise error(
            f"{path} has {dataset.dtypes[0]} pixels, expected integers or floats; convert them, "
            "complex ones to amplitudes"
        )
    _check_size(path, dataset, error)
    colours, alpha = _bands(path, dataset, error)
    alpha = alpha if use_alpha else None
    boxes, transforms, resolution_m = _place(path, dataset, error)
    files = tuple(Path(name) for name in dataset.files)
    bands = [*colours, *([alpha] if alpha else [])]
    palette = dataset.colorinterp[colours[0] - 1] == ColorInterp.palette
    if palette or len(bands) < dataset.count:
        dataset = rasterio.open(virtual_raster(dataset, bands, palette=palette))
        colours, alpha = ((1, 2, 3), 4) if palette else (colours, alpha)
        if not palette:
            colours = tuple(range(1, len(colours) + 1))
            alpha = len(bands) if alpha else None
    return Raster(path, dataset, colours, alpha, boxes, transforms, resolution_m, files)


def _bands(path: Path, dataset: Any, error: type[C2GMError]) -> tuple[tuple[int, ...], int | None]:
    """Bands of the colours (one or three) and of alpha, by colour interpretation."""
    meaning: tuple[ColorInterp, ...] = dataset.colorinterp
    alpha = meaning.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in meaning else None
    rgb = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in meaning for colour in rgb):
        return tuple(meaning.index(colour) + 1 for colour in rgb), alpha
    others = tuple(band for band in range(1, dataset.count + 1) if band != alpha)
    if len(others) == 1:
        return others, alpha
    if len(others) >= 3:
        return others[:3], alpha
    names = ", ".join(colour.name for colour in meaning)
    raise error(
        f"{path} has {dataset.count} bands ({names}), expected grey, grey and alpha, or at least "
        "three colours; choose bands with gdal_translate -b"
    )


def _place(
    path: Path, dataset: Any, error: type[C2GMError]
) -> tuple[tuple[WorldBox, ...], tuple[Affine, ...], float]:
    """Boxes, transforms and resolution of `Raster`."""
    columns = np.linspace(0, dataset.width, _GRID)
    rows = np.linspace(0, dataset.height, _GRID)
    centre = dataset.width / 2, dataset.height / 2
    steps = np.array([centre, (centre[0] + 1, centre[1]), (centre[0], centre[1] + 1)])
    try:
        longitude, latitude = _degrees(dataset, *np.meshgrid(columns, rows))
        points = np.stack(_degrees(dataset, steps[:, 0], steps[:, 1]))
    except RASTER_ERRORS:
        longitude, latitude, points = (np.full((_GRID, _GRID), np.inf) for _ in range(3))
    finite = np.isfinite(longitude) & np.isfinite(latitude)
    if not finite.any() or not np.isfinite(points).all() or abs(points[1]).max() > 90:
        raise error(
            f"{path} does not lie on the Earth in its coordinate system ({_name(dataset.crs)}); "
            "check its georeference with gdalinfo"
        )
    if finite.all():  # neighbouring points differ by less than half the world
        longitude = np.unwrap(np.unwrap(longitude, axis=0, period=360), axis=1, period=360)
    _, top = world_from_degrees(0, float(latitude[finite].max()))
    _, bottom = world_from_degrees(0, float(latitude[finite].min()))
    world = np.array([world_from_degrees(*point) for point in points.T.tolist()])
    across = world[1:] - world[0]
    across[:, 0] -= across[:, 0].round()  # the shorter way around the world
    resolution_m = EARTH_CIRCUMFERENCE_M * math.sqrt(abs(float(np.linalg.det(across))))
    if not top < bottom or not resolution_m > 0:
        raise error(
            f"{path} lies outside the web-mercator world (beyond 85.05 degrees north or south); "
            "choose imagery nearer to the equator"
        )
    west, east = float(longitude[finite].min()), float(longitude[finite].max())
    transform: Affine = dataset.transform
    if dataset.crs.is_geographic:  # its longitudes may run from 0 to 360, or beyond 180
        turns = round((transform.c - float(longitude[0, 0])) / 360)
        west, east = west + 360 * turns, east + 360 * turns
    elif east - west >= 360:  # a pole inside
        west, east = -180.0, 180.0
    boxes, transforms = [], []
    for turn in range(math.floor((west + 180) / 360), math.ceil((east + 180) / 360 - 1e-9)):
        left, right = max(west - 360 * turn, -180), min(east - 360 * turn, 180)
        boxes.append((left / 360 + 0.5, top, right / 360 + 0.5, bottom))
        shift = 360 * turn if dataset.crs.is_geographic else 0
        transforms.append(moved(transform, -shift))
    return tuple(boxes), tuple(transforms), resolution_m


def _name(crs: Any) -> str:
    return ":".join(crs.to_authority() or ("a CRS without a code",))


def _degrees(
    dataset: Any, column: NDArray[np.float64], row: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    t: Affine = dataset.transform
    x, y = (
        t.a * column.ravel() + t.b * row.ravel() + t.c,
        t.d * column.ravel() + t.e * row.ravel() + t.f,
    )
    longitude, latitude = transform_points(dataset.crs, "OGC:CRS84", x, y)
    return np.reshape(longitude, column.shape), np.reshape(latitude, column.shape)
