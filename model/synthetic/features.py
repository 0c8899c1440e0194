"""Vectors made ready for painting: ground metres, Skia paths built once, spatial look-up."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import shapely
import skia
from numpy.typing import NDArray

from c2gm.model.maps.vectors import VectorLayer, VectorMap
from c2gm.model.synthetic.canvas import Canvas
from c2gm.model.synthetic.style import PaintStyle, palette
from c2gm.model.synthetic.texture import hash_unit
from c2gm.runtime.levels import EARTH_CIRCUMFERENCE_M

_MARGIN_M = 60.0
_EMPTY = VectorLayer(np.empty(0, dtype=object), np.empty(0, dtype=str))


class Features:
    """One layer in ground metres relative to a local origin (x east, y south), drawn by kind."""

    def __init__(self, layer: VectorLayer, origin: tuple[float, float], shrink: float) -> None:
        """Place the layer: `origin` (x, y) in EPSG:3857, `shrink` = cos(latitude)."""
        parts, owner = shapely.get_parts(layer.geometry, return_index=True)
        # A collection may hold collections of polygons: take those apart as well.
        parts, inner = shapely.get_parts(parts, return_index=True)
        kinds = np.asarray(layer.kind, dtype=str)[owner][inner]
        simple = np.isin(shapely.get_type_id(parts), (1, 3)) & ~shapely.is_empty(parts)
        x0, y0 = origin

        def place(points: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.stack([(points[:, 0] - x0) * shrink, (y0 - points[:, 1]) * shrink], axis=1)

        # Normalised rings wind one way around areas, the other around holes: overlaps stay filled.
        self.geometry = shapely.normalize(shapely.transform(parts[simple], place))
        self.kind = kinds[simple]
        self.is_area = shapely.get_type_id(self.geometry) == 3
        self._tree = shapely.STRtree(self.geometry)
        self._paths: dict[int, skia.Path] = {}

    def __len__(self) -> int:
        return len(self.geometry)

    def within(self, bounds: tuple[float, float, float, float]) -> NDArray[np.int64]:
        """Indices, in order, of the features whose box touches (west, north, east, south)."""
        return np.sort(self._tree.query(shapely.box(*bounds)))

    def path(self, index: int) -> skia.Path:
        """The feature as a Skia path (holes and all), built at first use."""
        known = self._paths.get(index)
        if known is None:
            known = skia.Path()
            geometry = self.geometry[index]
            if self.is_area[index]:
                for ring in (geometry.exterior, *geometry.interiors):
                    known.addPoly([skia.Point(*p) for p in ring.coords], True)
            else:
                known.addPoly([skia.Point(*p) for p in geometry.coords], False)
            self._paths[index] = known
        return known

    def merged(self, indices: Iterable[int]) -> skia.Path:
        """One path of many features, to draw at once."""
        whole = skia.Path()
        for index in indices:
            whole.addPath(self.path(int(index)))
        return whole


class Buildings(Features):
    """Buildings with what painting needs: ridge, height, look; keyed on where each one stands."""

    def __init__(self, layer: VectorLayer, origin: tuple[float, float], shrink: float) -> None:
        super().__init__(layer, origin, shrink)
        keep = self.is_area
        self.geometry, self.kind = self.geometry[keep], self.kind[keep]
        self.is_area = self.is_area[keep]
        self._tree = shapely.STRtree(self.geometry)
        centres = shapely.centroid(self.geometry)
        self.centre = np.stack([shapely.get_x(centres), shapely.get_y(centres)], axis=1)
        self.area = shapely.area(self.geometry)
        self.ridge = self._longest_edges()
        # Keyed on absolute position to 2 m, so that a map cut differently keeps its colours.
        east = np.floor((self.centre[:, 0] / shrink + origin[0]) / 2).astype(np.int64)
        north = np.floor((origin[1] - self.centre[:, 1] / shrink) / 2).astype(np.int64)
        self.dice = np.stack([hash_unit(east, north, k) for k in range(4)], axis=1)
        self.height = np.where(
            self.area < 60, 3.0, np.where(self.area > 900, 10.0, 6.0 + 6.0 * self.dice[:, 0])
        )
        self.shadows: dict[int, skia.Path] = {}

    def _longest_edges(self) -> NDArray[np.float64]:
        """Unit vectors (n, 2) along the longest wall of each building: the way its ridge runs."""
        shells = shapely.get_exterior_ring(self.geometry)
        points, owner = shapely.get_coordinates(shells, return_index=True)
        step = np.diff(points, axis=0)
        length = np.where(np.diff(owner) == 0, np.hypot(step[:, 0], step[:, 1]), -1.0)
        order = np.lexsort((length, owner[:-1]))
        last = np.searchsorted(owner[:-1][order], np.arange(len(self.geometry)), side="right") - 1
        best = order[last]
        return np.asarray(step[best] / np.maximum(length[best], 1e-6)[:, None])

    def shadow(self, index: int, east: float, south: float) -> skia.Path:
        """The ground darkened by a building whose shadow falls (east, south) metres per metre."""
        known = self.shadows.get(index)
        if known is None:
            ring = np.asarray(self.geometry[index].exterior.coords)
            if not self.geometry[index].exterior.is_ccw:
                ring = ring[::-1]
            known = skia.Path()
            known.setFillType(skia.PathFillType.kWinding)
            for share in (0.0, 0.35, 0.7, 1.0):
                moved = ring + share * self.height[index] * np.array([east, south])
                known.addPoly([skia.Point(*p) for p in moved], True)
            self.shadows[index] = known
        return known


class Scene:
    """A map and a style made ready for painting, in ground metres around a local origin."""

    def __init__(self, vector_map: VectorMap, style: PaintStyle) -> None:
        self.style = style
        self.palette = palette(style)
        layers = [layer.geometry for layer in vector_map.values() if len(layer.kind)]
        bounds = np.array([shapely.total_bounds(geometry) for geometry in layers] or [[0.0] * 4])
        west, south = bounds[:, :2].min(0)
        east, north = bounds[:, 2:].max(0)
        radius = EARTH_CIRCUMFERENCE_M / (2 * math.pi)
        # One scale for the whole map, whichever window is painted; rounded, so that a map cut a
        # little differently is painted alike.
        self.shrink = round(1.0 / math.cosh((south + north) / 2 / radius), 2)
        origin = (round((west + east) / 2, -3), round((south + north) / 2, -3))
        half = EARTH_CIRCUMFERENCE_M / 2
        self.offset = ((half + origin[0]) * self.shrink, (half - origin[1]) * self.shrink)

        def features(name: str) -> Features:
            return Features(vector_map.get(name, _EMPTY), origin, self.shrink)

        self.transportation = features("transportation")
        self.water, self.waterway = features("water"), features("waterway")
        self.landcover, self.landuse = features("landcover"), features("landuse")
        self.buildings = Buildings(vector_map.get("building", _EMPTY), origin, self.shrink)
        azimuth = math.radians(style.sun_azimuth)
        length = min(2.2, 1.0 / math.tan(math.radians(style.sun_elevation)))
        self.shadow = (-math.sin(azimuth) * length, math.cos(azimuth) * length)
        self._edges: dict[int, NDArray[np.float64]] = {}

    def select(self, features: Features, canvas: Canvas) -> NDArray[np.int64]:
        """Indices of the features that may show in the canvas."""
        west, north, east, south = canvas.bounds
        return features.within(
            (west - _MARGIN_M, north - _MARGIN_M, east + _MARGIN_M, south + _MARGIN_M)
        )

    def united(self, features: Features, indices: NDArray[np.int64]) -> skia.Path:
        """One path of several features."""
        return features.merged(indices)

    def roll(self, features: Features, index: int) -> float:
        """A die in [0, 1) that belongs to a feature, wherever a window is cut."""
        west, north, east, south = features.geometry[index].bounds
        x = math.floor((west + east) / 2 + self.offset[0])
        y = math.floor((north + south) / 2 + self.offset[1])
        return float(hash_unit(self.style.seed, 31, x, y))

    def edge_points(self, features: Features, index: int, spacing: float) -> NDArray[np.float64]:
        """Points (n, 2) every `spacing` metres, jittered, along the outlines of an area."""
        known = self._edges.get(index)
        if known is None:
            line = features.geometry[index].boundary
            steps = np.arange(0.0, line.length, spacing)
            points = shapely.get_coordinates(shapely.line_interpolate_point(line, steps))
            keys = np.floor(points + self.offset).astype(np.int64)
            jitter = np.stack([hash_unit(k, keys[:, 0], keys[:, 1]) for k in (41, 42)], axis=1)
            known = points + 5.0 * (jitter - 0.5)
            self._edges[index] = known
        return known
