"""Cartographic generalisation of polygons, lines and buildings; every length is in level pixels."""

import numpy as np
import shapely
from numpy.typing import NDArray

from c2gm.model.maps.style import AreaRule, LineRule
from c2gm.model.maps.vectors import lines, polygons

Geometries = NDArray[np.object_]

_TOLERANCE = 0.35  # of simplification; below what anti-aliasing lets one see


def merge(parts: Geometries) -> Geometries:
    """Union of polygons as disjoint polygons."""
    return polygons(np.array([shapely.union_all(parts)], dtype=object)) if len(parts) else parts


def mend(parts: Geometries, crack: float) -> Geometries:
    """Union of polygons with cracks narrower than `crack` closed; corners stay sharp."""
    return swell(merge(swell(parts, crack / 2, "mitre")), -crack / 2, "mitre")


def swell(parts: Geometries, distance: float, join: str = "round") -> Geometries:
    """Every polygon grown (or shrunk) by `distance`, each on its own, empty ones left out."""
    return polygons(shapely.buffer(parts, distance, quad_segs=3, join_style=join))


def generalise_areas(parts: Geometries, rule: AreaRule, level: int) -> Geometries:
    """Calm areas of one class from the mended polygons of that class."""
    if not len(parts):
        return parts
    if level < rule.detailed:
        parts = shapely.simplify(parts, _TOLERANCE)
        parts = swell(merge(swell(polygons(parts), rule.close)), -rule.close - rule.open)
        parts = swell(parts, rule.open) if rule.open else parts
    parts = parts[shapely.area(parts) >= rule.smallest]
    return polygons(shapely.simplify(fill_holes(parts, rule.smallest), _TOLERANCE))


def fill_holes(parts: Geometries, smallest: float) -> Geometries:
    """Polygons without the holes that are smaller than `smallest` square pixels."""
    filled = parts.copy()
    for index in np.flatnonzero(shapely.get_num_interior_rings(parts)):
        rings = np.array(parts[index].interiors, dtype=object)
        kept = rings[shapely.area(shapely.polygons(rings)) >= smallest]
        filled[index] = shapely.polygons(parts[index].exterior, kept)
    return filled


def generalise_lines(parts: Geometries, rule: LineRule, level: int) -> Geometries:
    """Lines joined where exactly two meet, simplified; short loose ends and specks left out."""
    if not len(parts):
        return parts
    merged = _join(parts)
    if rule.apart and level < 16:
        merged = _join(thin_bundles(shapely.simplify(merged, _TOLERANCE), rule.apart))
    ends = np.concatenate(
        [
            shapely.get_coordinates(shapely.get_point(merged, 0)),
            shapely.get_coordinates(shapely.get_point(merged, -1)),
        ]
    )
    _, inverse, count = np.unique(
        np.round(ends * 16), axis=0, return_inverse=True, return_counts=True
    )
    loose = (count[inverse.ravel()] == 1).reshape(2, -1).sum(axis=0)
    length = shapely.length(merged)
    speck = (loose == 2) & (length < 4 * rule.shortest)
    stub = (loose == 1) & (length < rule.shortest)
    kept: Geometries = shapely.simplify(merged[~(speck | stub)], _TOLERANCE)
    return kept


def thin_bundles(parts: Geometries, apart: float) -> Geometries:
    """Lines without what runs within `apart` of a longer line, so that bundles become single."""
    order = np.argsort(-shapely.length(parts), kind="stable")
    parts = parts[order]
    # Flat ends: a line that continues another one is not taken for its neighbour.
    zones = shapely.buffer(parts, apart, quad_segs=2, cap_style="flat")
    near = shapely.STRtree(zones).query(parts, predicate="intersects")
    kept = []
    for index, line in enumerate(parts):
        longer = near[1][(near[0] == index) & (near[1] < index)]
        rest = shapely.difference(line, shapely.union_all(zones[longer]))
        pieces = lines(np.array([rest], dtype=object))
        # A piece must leave the bundle clearly, else crossovers would stay as crumbs.
        kept.append(pieces[shapely.length(pieces) > (4 * apart if len(longer) else 0.0)])
    return np.concatenate(kept)


def _join(parts: Geometries) -> Geometries:
    return lines(np.array([shapely.line_merge(shapely.multilinestrings(parts))], dtype=object))


def mend_buildings(parts: Geometries, grid: float, origin: float, crack: float) -> Geometries:
    """Buildings as they were before they were cut at grid lines `origin + k * grid`."""
    if not len(parts):
        return parts
    bounds = (shapely.bounds(parts) - origin) / grid
    near = (np.abs(bounds - np.round(bounds)) * grid).min(axis=1) < crack
    return np.concatenate([parts[~near], mend(parts[near], crack)])


def building_blocks(parts: Geometries, close: float, open_: float, smallest: float) -> Geometries:
    """Built-up blocks: buildings less than `2 * close` apart grown together, specks left out."""
    if not len(parts):
        return parts
    plain = shapely.simplify(parts, _TOLERANCE)
    grown = shapely.buffer(plain, close, quad_segs=1, join_style="mitre")
    blocks = swell(merge(grown), -close - open_, "mitre")
    blocks = swell(blocks, open_, "mitre")
    blocks = blocks[shapely.area(blocks) >= smallest]
    return polygons(shapely.simplify(fill_holes(blocks, 2 * smallest), _TOLERANCE))
