"""The area of interest: bounds in degrees or the polygons of a GeoJSON file -> footprints."""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.errors import CRSError, RasterioError
from rasterio.features import rasterize
from rasterio.transform import from_bounds
from rasterio.warp import transform_geom

from c2gm.runtime.errors import AreaError, OptionError
from c2gm.runtime.footprint import Box, Footprint, world_from_degrees
from c2gm.runtime.raster import WorldBox

MASK_SIDE = 2048
"""Longest side of the mask of an area, in cells."""

AOI_LIMIT_BYTES = 64 << 20
"""Largest GeoJSON file that is read."""

_DEGREES = "OGC:CRS84"

_CODE = re.compile(r"(urn:ogc:def:crs:)?[A-Z]{3,8}:([\w.]*:)?\w{1,12}", re.I)
"""Names of CRS: EPSG:3857, urn:ogc:def:crs:EPSG::3857, urn:ogc:def:crs:OGC:1.3:CRS84."""


def area_of_bounds(box: Box) -> tuple[Footprint, ...]:
    """The box west, south, east, north in degrees; west > east crosses the antimeridian.

    Raises OptionError for a box that is none.
    """
    west, south, east, north = box
    text = ",".join(f"{value:g}" for value in box)
    whole = all(math.isfinite(value) for value in box)
    if not whole or max(abs(south), abs(north)) > 90 or max(abs(west), abs(east)) > 180:
        raise OptionError(
            f"--bounds is {text}, expected west,south,east,north in degrees: longitudes from -180 "
            "to 180, latitudes from -90 to 90"
        )
    if not south < north:
        raise OptionError(
            f"--bounds is {text}, expected west,south,east,north in degrees, south below north"
        )
    if west == east:
        raise OptionError(
            f"--bounds has no width, west and east are both {west:g}; give west,south,east,north"
        )
    if (wide := 360 - (west - east)) > 180 and west > east:
        raise OptionError(
            f"--bounds is {text}, west east of east: across the antimeridian that is a box of "
            f"{wide:.4g} degrees; give west,south,east,north"
        )
    if west > east:
        return (
            *area_of_bounds((west, south, 180, north)),
            *area_of_bounds((-180, south, east, north)),
        )
    left, top = world_from_degrees(west, north)
    right, bottom = world_from_degrees(east, south)
    return (Footprint(left, top, right, bottom, np.ones((1, 1), np.bool_)),)


def read_area(
    path: Path, within: Iterable[WorldBox] = ((0.0, 0.0, 1.0, 1.0),)
) -> tuple[Footprint, ...]:
    """The polygons of a GeoJSON file, in degrees unless it names another CRS.

    One footprint for each box `within` (where the scene lies) that they reach into, so that what
    lies elsewhere does not coarsen it; where they reach into none, one for all of them. Raises
    AreaError for a file that is missing, is not GeoJSON or holds no polygon.
    """
    hint = "give a GeoJSON file with polygons in degrees, or use --bounds"
    if not os.path.isfile(path):
        found = "is not a file" if os.path.exists(path) else "does not exist"
        raise AreaError(f"{path} {found}; {hint}")
    try:
        if path.stat().st_size > AOI_LIMIT_BYTES:
            raise AreaError(f"{path} is over {AOI_LIMIT_BYTES >> 20} MB; simplify its polygons")
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise AreaError(f"{path} cannot be read ({error.strerror}); {hint}") from None
    except (ValueError, RecursionError) as error:
        raise AreaError(f"{path} is not JSON ({error}); {hint}") from None
    try:
        geometries = [_world_geometry(g, _crs(document)) for g in _polygons(document)]
    except KeyError as error:
        raise AreaError(f"{path} is not valid GeoJSON ({error} is missing); {hint}") from None
    except (CRSError, RasterioError) as error:
        raise AreaError(f"{path} cannot be projected to degrees ({error}); {hint}") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise AreaError(f"{path} is not valid GeoJSON ({error}); {hint}") from None
    if not geometries:
        raise AreaError(f"{path} holds no polygon; {hint}")
    points = np.concatenate([np.array(ring) for g in geometries for ring in g["coordinates"]])
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    if not right > left or not bottom > top:
        raise AreaError(f"{path} holds polygons without an area; {hint}")
    whole = float(left), float(top), float(right), float(bottom)
    parts = [
        (max(whole[0], box[0]), max(whole[1], box[1]), min(whole[2], box[2]), min(whole[3], box[3]))
        for box in within
    ]
    reached = [part for part in parts if part[2] > part[0] and part[3] > part[1]]
    return tuple(_rasterised(geometries, part) for part in reached or [whole])


def _rasterised(geometries: Sequence[Mapping[str, Any]], box: WorldBox) -> Footprint:
    """Polygons in world units, within a box of them; a cell that is touched is inside."""
    left, top, right, bottom = box
    cell = max(right - left, bottom - top) / MASK_SIDE
    shape = math.ceil((bottom - top) / cell), math.ceil((right - left) / cell)
    # World units grow southwards, so that "south" of this transform is the smaller number.
    mask = rasterize(
        geometries,
        out_shape=shape,
        transform=from_bounds(left, bottom, right, top, shape[1], shape[0]),
        all_touched=True,
        dtype=np.uint8,
    )
    return Footprint(left, top, right, bottom, mask > 0)


def _polygons(
    node: Mapping[str, Any] | None, within: str | None = None
) -> Iterator[Mapping[str, Any]]:
    """All polygons in a GeoJSON document, those of multi-polygons one by one.

    A collection in another of its kind is refused: RFC 7946 says not to, and it never ends.
    """
    if node is None:
        return
    if not isinstance(node, Mapping):
        raise ValueError(f"found {type(node).__name__}, expected an object with a type")
    kind = node["type"]
    if within is not None and kind == within:
        raise ValueError("collections within collections")
    if kind == "FeatureCollection":
        for feature in node["features"]:
            yield from _polygons(feature, kind)
    elif kind == "Feature":
        yield from _polygons(node["geometry"], kind)
    elif kind == "GeometryCollection":
        for geometry in node["geometries"]:
            yield from _polygons(geometry, kind)
    elif kind == "MultiPolygon":
        for coordinates in node["coordinates"]:
            yield {"type": "Polygon", "coordinates": coordinates}
    elif kind == "Polygon":
        yield node
    elif kind not in ("Point", "MultiPoint", "LineString", "MultiLineString"):
        raise ValueError(f"unknown type {kind!r}")


def _crs(document: Mapping[str, Any]) -> str:
    """The CRS that a file names (GeoJSON before RFC 7946 could), degrees otherwise."""
    crs = document.get("crs")
    if crs is None:
        return _DEGREES
    name = str(crs["properties"]["name"])
    if not _CODE.fullmatch(name):  # GDAL would look a name up as a file or an address
        raise ValueError(f"its CRS is {name[:80]!r}, expected a code as EPSG:3857")
    return name


def _world_geometry(geometry: Mapping[str, Any], crs: str) -> dict[str, Any]:
    if crs not in (_DEGREES, "urn:ogc:def:crs:OGC:1.3:CRS84", "EPSG:4326"):
        geometry = transform_geom(crs, _DEGREES, dict(geometry))
    rings = [[_world_point(point) for point in ring] for ring in geometry["coordinates"]]
    if not rings or any(len(ring) < 4 for ring in rings):
        raise ValueError("a polygon's ring has less than four points")
    return {"type": "Polygon", "coordinates": rings}


def _world_point(point: Sequence[float]) -> tuple[float, float]:
    if not isinstance(point, (list, tuple)) or len(point) < 2:
        raise ValueError(f"a point is {point!r:.40}, expected [longitude, latitude]")
    longitude, latitude = float(point[0]), float(point[1])
    if not abs(longitude) <= 180 or not abs(latitude) <= 90:
        raise ValueError(f"{longitude:g}, {latitude:g} are not degrees")
    return world_from_degrees(longitude, latitude)
