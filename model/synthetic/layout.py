"""The procedural world as vectors: rivers, settlements, roads, rail, forest and fields.

Laid out in ground metres (x east, y north, origin south-west), handed out in EPSG:3857.
"""

from __future__ import annotations

import math

import numpy as np
import shapely
from shapely import LineString, Point
from shapely.geometry.base import BaseGeometry

from c2gm.model.maps.vectors import LAYERS, VectorLayer, VectorMap
from c2gm.model.synthetic.land import cover_land
from c2gm.model.synthetic.settlement import (
    Settlement,
    Sheet,
    blob,
    lay_out,
    rectangles,
)
from c2gm.model.synthetic.shapes import Float, normal_of, rounded, tiled, wander
from c2gm.runtime.errors import OptionError
from c2gm.runtime.levels import EARTH_CIRCUMFERENCE_M

# Settlements per square kilometre and their radii in metres, by rank (city ... farm).
_DENSITY = (1 / 900, 1 / 110, 1 / 15, 1 / 6, 1 / 1.6)
_RADIUS = ((2200.0, 3200.0), (700.0, 1300.0), (230.0, 480.0), (70.0, 120.0), (35.0, 50.0))
_AREAS = ("water", "landcover", "landuse")


def generate_world(seed: int, bounds_3857: tuple[float, float, float, float]) -> VectorMap:
    """A made-up piece of country in OpenMapTiles classes, everything inside the bounds.

    `bounds_3857` is (west, south, east, north) in EPSG:3857 metres; 2 km across at least. The same
    seed and bounds give the same world. Raises OptionError for bounds too small to hold a place.
    """
    west, south, east, north = bounds_3857
    radius = EARTH_CIRCUMFERENCE_M / (2 * math.pi)
    stretch = math.cosh((south + north) / 2 / radius)
    width, height = (east - west) / stretch, (north - south) / stretch
    if min(width, height) < 2000:
        raise OptionError(
            f"a world of {width:.0f} x {height:.0f} m on the ground is too small; "
            "ask for 2000 m or more each way"
        )
    world = _World(seed, width, height)
    sheet = world.build()
    frame = shapely.box(0, 0, width, height)
    scale, shift = np.array([stretch, stretch]), np.array([west, south])
    layers = {}
    for name in LAYERS:
        entries = sheet.layers.get(name, [])
        geometry = np.array([entry[0] for entry in entries], dtype=object)
        kind = np.array([entry[1] for entry in entries], dtype=str)
        inside = shapely.within(geometry, frame) if len(kind) else np.zeros(0, dtype=bool)
        if name == "building":
            geometry, kind = geometry[inside], kind[inside]
        else:
            geometry[~inside] = shapely.intersection(geometry[~inside], frame)
            full = ~shapely.is_empty(geometry)
            if name in _AREAS:  # cutting leaves a stray line here and there
                full &= np.isin(shapely.get_type_id(geometry), (3, 6))
            geometry, kind = geometry[full], kind[full]
        layers[name] = VectorLayer(
            shapely.transform(geometry, lambda points: points * scale + shift), kind
        )
    return layers


class _World:
    """The steps of making a world, in the order in which they depend on one another."""

    def __init__(self, seed: int, width: float, height: float) -> None:
        self.rng = np.random.default_rng([seed, 2601])
        self.size = np.array([width, height])
        self.area = width * height / 1e6
        self.sheet = Sheet()
        self.places: list[Settlement] = []
        self.roads: list[tuple[LineString, str]] = []

    def build(self) -> Sheet:
        self._rivers_and_lakes()
        self._found_places()
        self._link_places()
        self._motorways_and_rail()
        self._fill_places()
        cover_land(self.rng, self.size, self.places, self.water, self.barred_pieces, self.sheet)
        return self.sheet

    def _count(self, per_square_km: float) -> int:
        return int(self.rng.poisson(per_square_km * self.area))

    def _anywhere(self, count: int) -> Float:
        return np.asarray(self.rng.uniform(0, 1, (count, 2)) * self.size)

    def _rim(self, share: float) -> Float:
        """The point at a share of the way round the frame, a little outside it."""
        turn = 2 * np.pi * share
        out = np.array([np.cos(turn), np.sin(turn)])
        return np.asarray(self.size / 2 + out / np.abs(out).max() * self.size * 0.52)

    def _rivers_and_lakes(self) -> None:
        rng = self.rng
        rivers, water = [], []
        for _ in range(1 + int(rng.random() < 0.5) + int(self.area / 900)):
            share = rng.random()
            line = wander(
                rng, self._rim(share), self._rim(share + rng.uniform(0.35, 0.65)), 0.13, 250
            )
            rivers.append(line)
            self.sheet.add("waterway", "river", line)
            water.append((line.buffer(rng.uniform(10, 38)), "river"))
        spine = shapely.union_all(rivers)
        for spot in self._anywhere(3 + self._count(0.12)):
            target = shapely.get_coordinates(shapely.shortest_line(Point(spot), spine))[1]
            if np.hypot(*(spot - target)) < 300:
                continue
            stream = wander(rng, spot, target, 0.12, 60)
            self.sheet.add("waterway", "stream", stream)
            if rng.random() < 0.5:
                self.sheet.add("landcover", "wood", stream.buffer(rng.uniform(7, 16)))
        for spot in self._anywhere(1 + self._count(0.03)):
            water.append((blob(rng, tuple(spot), float(np.exp(rng.uniform(3.6, 6.6)))), "lake"))
        if self.area > 300:
            water.append((blob(rng, tuple(self._anywhere(1)[0]), rng.uniform(900, 2400)), "lake"))
        for spot in self._anywhere(self._count(0.15)):
            water.append((blob(rng, tuple(spot), rng.uniform(12, 45)), "lake"))
        for shape, kind in water:
            self.sheet.add("water", kind, shape)
        self.water = shapely.union_all([shape for shape, _ in water])

    def _found_places(self) -> None:
        rng = self.rng
        taken = np.empty((0, 3))
        lakes = self.water.buffer(30)
        shapely.prepare(lakes)
        for rank, density in enumerate(_DENSITY):
            count = self._count(density)
            if rank == 1 and not self.places:
                count = max(count, 1)
            for _ in range(count):
                for _attempt in range(12):
                    spot = self._anywhere(1)[0]
                    if rank <= 1 and not self.places:
                        spot = self.size * rng.uniform(0.42, 0.58, 2)
                    radius = min(rng.uniform(*_RADIUS[rank]), 0.28 * self.size.min())
                    gap = np.hypot(taken[:, 0] - spot[0], taken[:, 1] - spot[1])
                    apart = np.all(gap > 1.25 * (radius + taken[:, 2]) + 150)
                    first = rank <= 1 and not self.places
                    if apart and (first or rank == 0 or not lakes.contains(Point(spot))):
                        break
                else:
                    continue
                taken = np.concatenate([taken, [[*spot, radius]]])
                centre = (float(spot[0]), float(spot[1]))
                self.places.append(
                    Settlement(
                        rank,
                        centre,
                        radius,
                        float(rng.uniform(0, np.pi)),
                        float(rng.beta(1.2, 1.2)),
                        blob(rng, centre, radius),
                    )
                )

    def _link_places(self) -> None:
        rng = self.rng
        nodes = [(np.array(p.centre), p.rank) for p in self.places if p.rank <= 2]
        rim = max(6, int(self.size.sum() / 9000))
        nodes += [
            (self._rim((i + rng.random()) / rim), int(rng.integers(1, 3))) for i in range(rim)
        ]
        spots = np.array([spot for spot, _ in nodes])
        triangles = shapely.delaunay_triangles(shapely.multipoints(spots), only_edges=True)
        tree = shapely.STRtree(shapely.points(spots))
        for edge in shapely.get_parts(triangles):
            ends = np.asarray(edge.coords)
            # Gabriel graph: no third place lies in the circle over the edge.
            circle = Point(ends.mean(0)).buffer(edge.length / 2 * 0.97)
            if len(tree.query(circle, predicate="contains")):
                continue
            ranks = sorted(nodes[int(tree.nearest(Point(end)))][1] for end in ends)
            if ranks[1] <= 1:
                kind = "primary" if rng.random() < 0.6 else "secondary"
            elif ranks[0] <= 1:
                kind = "secondary" if rng.random() < 0.45 else "tertiary"
            else:
                kind = "tertiary"
            self.roads.append((wander(rng, ends[0], ends[1], 0.055, 120), kind))
        network = shapely.STRtree([road for road, _ in self.roads])
        for place in self.places:
            if place.rank < 3:
                continue
            start = np.array(place.centre)
            road = self.roads[int(network.nearest(Point(start)))][0]
            end = shapely.get_coordinates(shapely.shortest_line(Point(start), road))[1]
            kind = "minor" if place.rank == 3 else ("track", "service")[int(rng.random() < 0.6)]
            if np.hypot(*(start - end)) > 20:
                self.sheet.add("transportation", kind, wander(rng, start, end, 0.06, 40))
        for road, kind in self.roads:
            self.sheet.add("transportation", kind, road)

    def _motorways_and_rail(self) -> None:
        rng = self.rng
        barred: list[BaseGeometry] = [self.water]
        large = sorted((p for p in self.places if p.rank <= 1), key=lambda p: p.rank)
        for turn in range(1 + int(self.area > 700)):
            share = rng.random()
            start, end = self._rim(share), self._rim(share + rng.uniform(0.4, 0.6))
            place = large[turn % len(large)]
            pass_by = np.array(place.centre) + 1.35 * place.radius * normal_of(
                end - start
            ) * rng.choice((-1, 1))
            for kind, via, rough in (
                ("motorway", pass_by, 0.05),
                ("rail", np.array(place.centre), 0.04),
            ):
                if kind == "motorway" and self.area < 40 and rng.random() < 0.5:
                    continue
                legs = [wander(rng, a, b, rough, 700) for a, b in ((start, via), (via, end))]
                points = np.concatenate([np.asarray(leg.coords) for leg in legs])
                line = LineString(rounded(points[::6], closed=False, times=4))
                if kind == "motorway":
                    self.sheet.add("transportation", kind, *(line.offset_curve(d) for d in (9, -9)))
                    self._junctions(line)
                else:
                    self._station(line, place)
                barred.append(line.buffer(24 if kind == "motorway" else 11))
        self.barred = shapely.union_all(barred)
        shapely.prepare(self.barred)
        self.barred_pieces = shapely.STRtree(tiled(self.barred))

    def _junctions(self, motorway: LineString) -> None:
        for road, kind in self.roads:
            if kind not in ("primary", "secondary"):
                continue
            for crossing in shapely.get_parts(motorway.intersection(road)):
                if crossing.geom_type != "Point":
                    continue
                at, on_road = motorway.project(crossing), road.project(crossing)
                for forward in (-320.0, 320.0):
                    for aside in (-70.0, 70.0):
                        ramp = [
                            motorway.interpolate(max(at + forward, 0.0)),
                            motorway.interpolate(max(at + forward * 0.45, 0.0)),
                            road.interpolate(max(on_road + aside, 0.0)),
                        ]
                        bend = rounded(np.array([p.coords[0] for p in ramp]), False, 3)
                        self.sheet.add("transportation", "motorway_link", LineString(bend))

    def _station(self, line: LineString, place: Settlement) -> None:
        at = line.project(Point(place.centre))
        self.sheet.add("transportation", "rail", line.offset_curve(2.2), line.offset_curve(-2.2))
        yard = shapely.line_merge(
            shapely.intersection(line, Point(line.interpolate(at)).buffer(420.0))
        )
        if yard.geom_type == "LineString":
            self.sheet.add("landuse", "railway", yard.buffer(22, cap_style="flat"))
            self.sheet.add("transportation", "rail", *(yard.offset_curve(d) for d in (7, 12, -7)))

    def _fill_places(self) -> None:
        tree = shapely.STRtree([road for road, _ in self.roads])
        for number, place in enumerate(self.places):
            rng = np.random.default_rng([int(self.rng.integers(1 << 31)), number])
            if place.rank <= 2:
                touching = [self.roads[int(i)][0] for i in tree.query(place.outline, "intersects")]
                lay_out(rng, place, touching, self._barred_near(place), self.sheet)
            else:
                self._scatter_houses(rng, place, tree)

    def _scatter_houses(
        self, rng: np.random.Generator, place: Settlement, tree: shapely.STRtree
    ) -> None:
        """A hamlet or a farm: a few buildings around a yard."""
        count = int(rng.integers(8, 22)) if place.rank == 3 else int(rng.integers(2, 6))
        spots = np.array(place.centre) + rng.normal(0, place.radius * 0.55, (count, 2))
        angle = place.angle + rng.normal(0, 0.15, count) + np.pi / 2 * rng.integers(0, 2, count)
        barn = rng.random(count) < (0.25 if place.rank == 3 else 0.6)
        length = np.where(barn, rng.uniform(18, 36, count), rng.uniform(10, 16, count))
        depth = np.where(barn, rng.uniform(11, 18, count), rng.uniform(8, 12, count))
        direction = np.stack([np.cos(angle), np.sin(angle)], 1)
        houses = shapely.polygons(rectangles(spots, direction, length, depth, np.zeros(count)))
        kept: list[BaseGeometry] = []
        for house in houses:
            yard = house.buffer(4)
            if not any(yard.intersects(other) for other in kept) and not self.barred.intersects(
                yard
            ):
                if not len(tree.query(house.buffer(7), predicate="intersects")):
                    kept.append(house)
        self.sheet.add("building", "building", *kept)
        if place.rank == 3:
            self.sheet.add(
                "landuse", "residential", place.outline.difference(self._barred_near(place))
            )

    def _barred_near(self, place: Settlement) -> BaseGeometry:
        """The part of the ground where nothing is built that lies about a place."""
        pieces = self.barred_pieces
        found = pieces.query(place.outline.buffer(60), predicate="intersects")
        return shapely.union_all(pieces.geometries[found])
