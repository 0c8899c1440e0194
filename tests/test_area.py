"""If these fail, a run covers other ground than the user asked for."""

import json
from pathlib import Path

import mercantile
import pytest

from c2gm.runtime.area import area_of_bounds, read_area
from c2gm.runtime.footprint import Footprint

TRIANGLE = [[8.0, 47.0], [8.4, 47.0], [8.0, 47.3], [8.0, 47.0]]
FAR = [[9.0, 47.0], [9.1, 47.0], [9.1, 47.1], [9.0, 47.1], [9.0, 47.0]]


def tiles(area: tuple[Footprint, ...], level: int) -> set[mercantile.Tile]:
    keys = [int(key) for part in area for key in part.tiles(level)]
    return {mercantile.Tile(key & 0xFFFFFFFF, key >> 32, level) for key in keys}


def test_bounds_cover_the_tiles_that_mercantile_names() -> None:
    box = (7.9, 46.9, 8.3, 47.2)
    assert tiles(area_of_bounds(box), 12) == set(mercantile.tiles(*box, 12))


def test_bounds_may_cross_the_antimeridian() -> None:
    found = tiles(area_of_bounds((179.9, -17.0, -179.9, -16.0)), 8)
    assert {tile.x for tile in found} == {0, 255}


@pytest.mark.parametrize("crs", [None, "urn:ogc:def:crs:EPSG::3857"])
def test_polygons_of_all_kinds_are_read(tmp_path: Path, crs: str | None) -> None:
    """A feature collection with a triangle, and a multi-polygon of one square further east."""

    def ring(points: list[list[float]]) -> list[list[float]]:
        return points if crs is None else [list(mercantile.xy(*point)) for point in points]

    document = {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring(TRIANGLE)]}},
            {"type": "Feature", "geometry": {"type": "Point", "coordinates": [0, 0]}},
            {"type": "Feature", "geometry": None},
            {
                "type": "Feature",
                "geometry": {"type": "MultiPolygon", "coordinates": [[ring(FAR)]]},
            },
        ],
    }
    if crs is not None:
        document["crs"] = {"type": "name", "properties": {"name": crs}}
    path = tmp_path / "aoi.geojson"
    path.write_text(json.dumps(document), encoding="utf-8")
    found = tiles(read_area(path), 12)
    inside = mercantile.tile(8.05, 47.05, 12), mercantile.tile(9.05, 47.05, 12)
    outside = mercantile.tile(8.35, 47.25, 12), mercantile.tile(8.7, 47.05, 12)
    assert found.issuperset(inside)
    assert found.isdisjoint(outside)


def test_a_polygon_elsewhere_does_not_coarsen_the_area(tmp_path: Path) -> None:
    """A small square in the scene, and one at the other end of the world."""
    x, y = 2140, 1440  # of level 12
    west, south, east, north = mercantile.bounds(x, y, 12)
    margin = (east - west) / 100

    def square(w: float, s: float, e: float, n: float) -> list[list[list[float]]]:
        return [[[w, s], [e, s], [e, n], [w, n], [w, s]]]

    here = square(west + margin, south + margin, east - margin, north - margin)
    document = {"type": "MultiPolygon", "coordinates": [here, square(-170, -40, -169, -39)]}
    path = tmp_path / "two.geojson"
    path.write_text(json.dumps(document), encoding="utf-8")
    scene = ((x - 1) / 4096, (y - 1) / 4096, (x + 2) / 4096, (y + 2) / 4096)
    assert tiles(read_area(path, [scene]), 12) == {mercantile.Tile(x, y, 12)}
    assert len(tiles(read_area(path), 12)) > 1, "over the whole world cells are coarse"
