"""Vector maps: OpenMapTiles layers read from and written to files, in EPSG:3857 metres.

The kind of a feature is its OpenMapTiles class. Four kinds are finer than the class, because a map
draws them differently (`read_vectors` derives them from OpenMapTiles attributes): `park` (grass
whose subclass is a park or garden), `*_link` (ramps), `driveway` (minor services), `siding`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from rasterio.warp import transform as reproject
from shapely.geometry.base import BaseGeometry

from c2gm.runtime.errors import DataError

LAYERS = ("transportation", "building", "water", "waterway", "landcover", "landuse")
CRS = "EPSG:3857"

_PARKS = (
    "park",
    "garden",
    "golf_course",
    "recreation_ground",
    "village_green",
    "allotments",
    "plant_nursery",
)
_LINKED = ("motorway", "trunk", "primary", "secondary", "tertiary")
_RAILS = ("rail", "narrow_gauge", "light_rail", "tram", "subway")
_MINOR_SERVICES = ("driveway", "parking_aisle", "drive-through", "emergency_access")
_MINOR_TRACKS = ("yard", "siding", "spur", "crossover")


@dataclass(frozen=True)
class VectorLayer:
    """Features of one layer: two arrays of shape (n,).

    `geometry` holds shapely geometries in EPSG:3857 metres, `kind` their kinds.
    """

    geometry: NDArray[np.object_]
    kind: NDArray[np.str_]

    def __post_init__(self) -> None:
        if self.geometry.shape != self.kind.shape or self.geometry.ndim != 1:
            raise DataError(
                f"a vector layer needs one kind per geometry, found shapes "
                f"{self.geometry.shape} and {self.kind.shape}"
            )


VectorMap = Mapping[str, VectorLayer]


def read_vectors(path: str | Path, shift_m: tuple[float, float] = (0.0, 0.0)) -> VectorMap:
    """Read a GeoPackage (a table per layer) or GeoJSON (a property `layer` per feature).

    Tunnels are left out: imagery does not show them. `shift_m` (x east, y north; EPSG:3857 metres)
    is added to all coordinates, to move vectors onto imagery they were not drawn from. Raises
    DataError for a file that cannot be read or holds none of `LAYERS`.
    """
    try:
        names = [str(name) for name, _ in pyogrio.list_layers(path)]
        tables = {name: _read_table(path, name) for name in names if name in LAYERS}
        if not tables and len(names) == 1:
            geometry, columns = _read_table(path, names[0])
            owner = columns.get("layer", np.full(len(geometry), ""))
            for name in LAYERS:
                rows = owner == name
                if rows.any():
                    chosen = {key: column[rows] for key, column in columns.items()}
                    tables[name] = (geometry[rows], chosen)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise DataError(f"cannot read vectors from {path}: {error}") from error
    if not tables:
        raise DataError(
            f"{path} holds none of the layers {', '.join(LAYERS)} (found: {', '.join(names)}); "
            "name tables, or the property `layer` of GeoJSON features, after them"
        )
    return {name: _layer(name, *table, shift_m) for name, table in tables.items()}


def write_vectors(path: str | Path, vector_map: VectorMap) -> None:
    """Write a GeoPackage, a table per layer, the kind in the column `class`; replaces the file."""
    target = Path(path)
    if target.suffix != ".gpkg":
        raise DataError(f"vectors are written to a .gpkg file, not to {target.name}")
    unknown = sorted(set(vector_map) - set(LAYERS))
    if unknown:
        raise DataError(f"unknown layers {', '.join(unknown)}; known are {', '.join(LAYERS)}")
    target.unlink(missing_ok=True)
    for name, layer in vector_map.items():
        pyogrio.raw.write(
            target,
            geometry=shapely.to_wkb(layer.geometry),
            field_data=[layer.kind.astype(object)],
            fields=np.array(["class"], dtype=object),
            layer=name,
            driver="GPKG",
            geometry_type="Unknown",
            crs=CRS,
            append=target.exists(),
        )


_Table = tuple[NDArray[np.object_], dict[str, NDArray[np.str_]]]


def _read_table(path: str | Path, name: str) -> _Table:
    meta, _, wkb, data = pyogrio.raw.read(path, layer=name)
    geometry = shapely.from_wkb(wkb)
    if meta["crs"] and meta["crs"] != CRS:
        source = str(meta["crs"])

        def to_mercator(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            x, y = reproject(source, CRS, xy[:, 0], xy[:, 1])[:2]
            return np.column_stack([x, y])

        geometry = shapely.transform(geometry, to_mercator)
    columns = {
        str(key): np.array(["" if value is None else str(value) for value in column], dtype=str)
        for key, column in zip(meta["fields"], data, strict=True)
    }
    usable = ~(shapely.is_missing(geometry) | shapely.is_empty(geometry))
    return geometry[usable], {key: column[usable] for key, column in columns.items()}


def _layer(
    name: str,
    geometry: NDArray[np.object_],
    columns: dict[str, NDArray[np.str_]],
    shift_m: tuple[float, float],
) -> VectorLayer:
    empty = np.full(len(geometry), "")
    kind = columns.get("class", np.full(len(geometry), name)).astype(object)
    if name == "landcover":
        parks = (kind == "grass") & np.isin(columns.get("subclass", empty), _PARKS)
        kind[parks] = "park"
    if name == "transportation":
        ramps = np.isin(columns.get("ramp", empty), ("1", "1.0")) & _isin(kind, _LINKED)
        kind[ramps] = kind[ramps] + "_link"
        service = columns.get("service", empty)
        kind[(kind == "service") & np.isin(service, _MINOR_SERVICES)] = "driveway"
        kind[_isin(kind, _RAILS) & np.isin(service, _MINOR_TRACKS)] = "siding"
    if name in ("transportation", "waterway"):
        visible = columns.get("brunnel", empty) != "tunnel"
        geometry, kind = geometry[visible], kind[visible]
    if shift_m != (0.0, 0.0):
        geometry = shapely.transform(geometry, lambda xy: xy + np.asarray(shift_m))
    return VectorLayer(geometry=geometry, kind=kind.astype(str))


def _isin(kind: NDArray[np.object_], names: tuple[str, ...]) -> NDArray[np.bool_]:
    return np.isin(kind.astype(str), names)


def polygons(geometry: NDArray[np.object_]) -> NDArray[np.object_]:
    """All valid, non-empty polygons in `geometry`, multi-part ones taken apart; shape (m,)."""
    parts = _of_type(geometry, shapely.GeometryType.POLYGON)
    broken = ~shapely.is_valid(parts)
    if broken.any():
        mended = _of_type(shapely.make_valid(parts[broken]), shapely.GeometryType.POLYGON)
        parts = np.concatenate([parts[~broken], mended])
    return parts


def lines(geometry: NDArray[np.object_]) -> NDArray[np.object_]:
    """All non-empty line strings in `geometry`, multi-part ones taken apart; shape (m,)."""
    return _of_type(geometry, shapely.GeometryType.LINESTRING)


def _of_type(
    geometry: NDArray[np.object_] | BaseGeometry, wanted: shapely.GeometryType
) -> NDArray[np.object_]:
    # Twice: collections may hold multi-part geometries.
    parts = shapely.get_parts(shapely.get_parts(np.atleast_1d(np.asarray(geometry, dtype=object))))
    chosen: NDArray[np.object_] = parts[
        (shapely.get_type_id(parts) == wanted) & ~shapely.is_empty(parts)
    ]
    return chosen
