"""The Dubai semantic-segmentation images: a class for every pixel, turned into vectors.

The images have no georeference. They are laid out on the level-17 pixel grid (1.08 m a pixel at
Dubai's latitude, about their own resolution), each on a place of its own.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from PIL import Image
from rasterio.features import shapes, sieve

from c2gm.model.data.mosaic import GROUND_LEVEL, Extent, Picture, crop
from c2gm.model.data.mosaic_build import AreaPlan
from c2gm.model.maps.cartography import VectorLayer, VectorMap
from c2gm.runtime.errors import DataError
from c2gm.runtime.levels import EARTH_CIRCUMFERENCE_M, TILE_SIZE

FINEST = 17
_COARSEST = 13
_SPECK = 12  # pixels; smaller islands of a class are labelling noise

# Mask colour -> layer and kind. Land is a map's plain background.
_CLASSES: dict[tuple[int, int, int], tuple[str, str]] = {
    (0x3C, 0x10, 0x98): ("building", "building"),
    (0x6E, 0xC1, 0xE4): ("transportation", "minor"),
    (0xFE, 0xDD, 0x3A): ("landcover", "grass"),
    (0xE2, 0xA9, 0x29): ("water", "lake"),
}
_LAND = (0x84, 0x29, 0xF6)


def dubai(data: Path) -> Iterator[AreaPlan]:
    """The labelled images; of each the southern fifth is validation ground."""
    folder = data / "dubai"
    files = sorted(folder.glob("tile*.jpg"))
    if not files:
        raise DataError(f"{folder} holds no tile*.jpg; name the data folder with --data")
    for number, file in enumerate(files):
        yield _plan(file, number)


def _plan(file: Path, number: int) -> AreaPlan:
    mask = file.with_name(f"{file.stem}_mask.png")
    if not mask.exists():
        raise DataError(f"{mask} is missing; it belongs to {file.name}")
    with Image.open(file) as image:
        width, height = image.size
    # A row of places 25.2 degrees north, 0.2 degrees apart, on the coarsest level's pixels.
    place = Extent((85_700 + 72 * number) * TILE_SIZE, 56_100 * TILE_SIZE, width, height)
    place = place.at(FINEST, GROUND_LEVEL).at(GROUND_LEVEL, FINEST)
    ground = place.at(FINEST, GROUND_LEVEL)
    strip = max(1, round(ground.height / 5))
    held_out = Extent(ground.left, ground.top + ground.height - strip, ground.width, strip)

    def imagery(window: Extent) -> Picture:
        return crop(_picture(file, mask), Extent(place.left, place.top, width, height), window)

    return AreaPlan(
        name=f"dubai_{file.stem}",
        kind="dubai",
        credit="MBRSC / Humans in the Loop",
        licence="CC0-1.0",
        levels=tuple(range(_COARSEST, FINEST + 1)),
        targets=tuple(range(15, FINEST + 1)),
        extent=place,
        validation=(held_out,),
        vectors=lambda: read_class_mask(mask, place),
        vectors_name=str(mask),
        imagery=imagery,
    )


@lru_cache(maxsize=1)
def _picture(file: Path, mask: Path) -> Picture:
    """RGBA of the image; unlabelled pixels are not valid."""
    colours = np.asarray(Image.open(file).convert("RGB"))
    classes = _labels(mask)
    if classes.shape != colours.shape[:2]:
        raise DataError(f"{mask} has {classes.shape} pixels, {file.name} {colours.shape[:2]}")
    valid = (classes > 0).astype(np.uint8)
    return np.concatenate([colours * valid[..., None], valid[..., None] * np.uint8(255)], axis=2)


def _labels(mask: Path) -> NDArray[np.uint8]:
    """0 unlabelled, 1 land, then the classes in order."""
    pixels = np.asarray(Image.open(mask).convert("RGB")).astype(np.int32)
    codes = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
    labels = np.zeros(codes.shape, dtype=np.uint8)
    for label, (red, green, blue) in enumerate((_LAND, *_CLASSES), start=1):
        labels[codes == ((red << 16) | (green << 8) | blue)] = label
    return labels


def read_class_mask(mask: Path, place: Extent) -> VectorMap:
    """Polygons of the classes, EPSG:3857, smoothed to about a pixel.

    Roads are polygons of kind `minor`. `place`: where the mask lies on the level-17 pixel grid.
    """
    size = EARTH_CIRCUMFERENCE_M / (TILE_SIZE << FINEST)
    half = EARTH_CIRCUMFERENCE_M / 2
    origin = rasterio.Affine(
        size, 0.0, place.left * size - half, 0.0, -size, half - place.top * size
    )
    labels = sieve(_labels(mask), _SPECK)
    layers: dict[str, VectorLayer] = {}
    for label, (layer, kind) in enumerate(_CLASSES.values(), start=2):
        found = shapes(labels, mask=labels == label, transform=origin)
        parts = np.array([shapely.geometry.shape(geometry) for geometry, _ in found], dtype=object)
        if not len(parts):
            continue
        parts = shapely.simplify(parts, 1.2 * size)
        parts = parts[~shapely.is_empty(parts)]
        layers[layer] = VectorLayer(geometry=parts, kind=np.full(len(parts), kind))
    return layers
