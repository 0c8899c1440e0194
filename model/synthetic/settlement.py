"""A settlement of the procedural world: streets, blocks, houses, yards, parks.

Coordinates are ground metres (x east, y north); nothing here knows about projections.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import LineString, MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

Float = NDArray[np.float64]


@dataclass
class Sheet:
    """Features being collected: lists of (geometry, kind) per layer."""

    layers: dict[str, list[tuple[BaseGeometry, str]]] = field(default_factory=dict)

    def add(self, layer: str, kind: str, *geometries: BaseGeometry) -> None:
        """Add the polygons and lines of the given geometries; drop what is empty."""
        store = self.layers.setdefault(layer, [])
        for geometry in geometries:
            store.extend((part, kind) for part in shapely.get_parts(geometry) if not part.is_empty)


@dataclass(frozen=True)
class Settlement:
    """A place: centre, radius and how it is laid out (order 1 = ruled grid, 0 = grown)."""

    rank: int  # 0 city, 1 town, 2 village, 3 hamlet, 4 farm
    centre: tuple[float, float]
    radius: float
    angle: float
    order: float
    outline: Polygon


def blob(rng: np.random.Generator, centre: tuple[float, float], radius: float) -> Polygon:
    """A rounded, irregular outline about `radius` metres from its centre."""
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    distance = np.ones_like(turn)
    for wave in range(2, 8):
        distance += rng.normal(0, 0.34 / wave) * np.cos(wave * turn + rng.uniform(0, 2 * np.pi))
    distance = radius * np.clip(distance, 0.45, 1.7)
    stretch, tilt = rng.uniform(0.75, 1.3), rng.uniform(0, np.pi)
    points = np.stack([distance * np.cos(turn) * stretch, distance * np.sin(turn) / stretch], 1)
    spin = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    outline = Polygon(points @ spin.T + centre).buffer(0)
    if isinstance(outline, MultiPolygon):
        outline = max(outline.geoms, key=lambda part: part.area)
    return Polygon(outline.exterior)


def street_lines(rng: np.random.Generator, place: Settlement) -> list[LineString]:
    """Two families of streets, bent the more the less order a place has, cut to its outline."""
    reach = 2.2 * place.radius
    base = {0: 105.0, 1: 95.0, 2: 110.0}.get(place.rank, 120.0)
    bend = (1 - place.order) * 55.0
    waves = rng.uniform(300, 900, (4, 2)) * rng.choice((-1, 1), (4, 2))
    phases = rng.uniform(0, 2 * np.pi, (4, 2))

    def warp(points: Float) -> Float:
        moved = points.copy()
        for wave, phase in zip(waves, phases, strict=True):
            moved[:, 0] += 0.6 * bend * np.sin(2 * np.pi * points[:, 1] / wave[0] + phase[0])
            moved[:, 1] += 0.6 * bend * np.sin(2 * np.pi * points[:, 0] / wave[1] + phase[1])
        return moved

    spin = np.array(
        [
            [np.cos(place.angle), -np.sin(place.angle)],
            [np.sin(place.angle), np.cos(place.angle)],
        ]
    )
    along = np.arange(-reach, reach, 14.0)
    lines = []
    for axis, stretch in ((0, rng.uniform(0.8, 1.1)), (1, rng.uniform(1.2, 1.9))):
        at = -reach
        while at < reach:
            at += base * stretch * rng.uniform(0.75, 1.3)
            points = np.stack([np.full_like(along, at), along], 1)
            points = warp(points if axis == 0 else points[:, ::-1]) @ spin.T + place.centre
            lines.append(LineString(points))
    return lines


def rectangles(centre: Float, direction: Float, length: Float, depth: Float, wing: Float) -> Float:
    """Footprints (n, 6, 2): `length` along `direction`, `depth` across; wing > 0 makes an L."""
    half_l, half_d = length / 2, depth / 2
    u = np.stack(
        [-half_l, half_l, half_l, -half_l + 0.45 * length, -half_l + 0.45 * length, -half_l]
    )
    v = np.stack([-half_d, -half_d, half_d, half_d, half_d + wing, half_d + wing])
    normal = np.stack([-direction[:, 1], direction[:, 0]], 1)
    return np.asarray(
        centre[:, None] + u.T[..., None] * direction[:, None] + v.T[..., None] * normal[:, None]
    )


def houses_along(
    rng: np.random.Generator,
    block: Polygon,
    inset: float,
    spacing: tuple[float, float],
    depth: tuple[float, float],
    fill: float = 0.72,
) -> list[BaseGeometry]:
    """Buildings in a row along the inside of a block's edge, `fill` of their spacing wide."""
    built: list[BaseGeometry] = []
    for part in shapely.get_parts(block.buffer(-inset)):
        ring = part.exterior
        if ring.length < 3 * spacing[0]:
            continue
        steps = np.cumsum(rng.uniform(*spacing, int(ring.length / spacing[0]) + 1))
        steps = steps[steps < ring.length - spacing[0] * 0.8]
        if not steps.size:
            continue
        centre = shapely.get_coordinates(shapely.line_interpolate_point(ring, steps))
        ahead = shapely.get_coordinates(shapely.line_interpolate_point(ring, steps + 3.0))
        behind = shapely.get_coordinates(shapely.line_interpolate_point(ring, steps - 3.0))
        direction = ahead - behind
        norm = np.hypot(direction[:, 0], direction[:, 1])
        straight = norm > 5.2  # at a corner the row breaks
        centre, direction = centre[straight], direction[straight] / norm[straight][:, None]
        if not len(centre):
            continue
        n = len(centre)
        length = fill * rng.uniform(0.8, 1.1, n) * (spacing[0] + spacing[1]) / 2
        wing = np.where(rng.random(n) < 0.25, rng.uniform(3, 5, n), 0.0)
        shapes = rectangles(centre, direction, length, rng.uniform(*depth, n), wing)
        kept = rng.random(n) < 0.93
        built.extend(shapely.polygons(shapes[kept]))
    return built


def buildings_in_rows(
    rng: np.random.Generator,
    block: Polygon,
    angle: float,
    length: tuple[float, float],
    depth: tuple[float, float],
    gap: float,
    keep: float,
) -> list[BaseGeometry]:
    """Slabs or halls in parallel rows that fill a block."""
    inner = block.buffer(-8.0)
    if inner.is_empty:
        return []
    shapely.prepare(inner)
    west, south, east, north = inner.bounds
    middle = np.array([(west + east) / 2, (south + north) / 2])
    reach = float(np.hypot(east - west, north - south)) / 2
    u, v = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    built: list[BaseGeometry] = []
    step = max(9.0, reach / 40)
    starts = np.arange(-reach, reach, step)
    row = -reach
    while row < reach:
        long = rng.uniform(*length, len(starts))
        deep = rng.uniform(*depth, len(starts))
        spots = middle + (starts + long / 2)[:, None] * u + (row + deep / 2)[:, None] * v
        facing = np.broadcast_to(u, spots.shape)
        halls = shapely.polygons(rectangles(spots, facing, long, deep, np.zeros(len(starts))))
        fits = shapely.contains(inner, halls)
        deepest, free = 0.0, -np.inf
        for at in np.flatnonzero(fits):
            if starts[at] < free:
                continue
            free = starts[at] + long[at] + gap
            if rng.random() < keep:
                built.append(halls[at])
                deepest = max(deepest, float(deep[at]))
        row += deepest + gap if deepest else step
    return built


def along_block(block: Polygon) -> float:
    """The direction in radians of a block's longer side."""
    corners = np.asarray(shapely.minimum_rotated_rectangle(block).exterior.coords)
    edges = np.diff(corners[:3], axis=0)
    longer = edges[np.argmax(np.hypot(edges[:, 0], edges[:, 1]))]
    return float(np.arctan2(longer[1], longer[0]))


def _without_overlaps(buildings: list[BaseGeometry]) -> list[BaseGeometry]:
    """The buildings, less every one that overlaps an earlier one."""
    shapes = np.asarray(buildings, dtype=object)
    if not shapes.size:
        return []
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    dropped = np.zeros(len(shapes), dtype=bool)
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        if a < b and not dropped[a]:
            dropped[b] = True
    return list(shapes[~dropped])


def lay_out(
    rng: np.random.Generator,
    place: Settlement,
    main_roads: list[BaseGeometry],
    barred: BaseGeometry,
    sheet: Sheet,
) -> None:
    """Fill a settlement's outline: adds streets, buildings and land use to the sheet.

    `main_roads` are the roads that touch it, `barred` the ground where nothing is built (water,
    railways, motorways).
    """
    outline = place.outline
    main = shapely.union_all([road.intersection(outline) for road in main_roads])
    streets = shapely.union_all([line.intersection(outline) for line in street_lines(rng, place)])
    streets = streets.difference(barred)
    edges = shapely.get_parts(shapely.union_all([streets, main]))
    edges = edges[shapely.get_type_id(edges) == 1]
    on_main = shapely.dwithin(edges, main, 0.01) & shapely.covered_by(
        shapely.line_interpolate_point(edges, 0.5, normalized=True), main.buffer(0.5)
    )
    kept = on_main | (rng.random(len(edges)) > (0.06 + 0.2 * (1 - place.order)))
    minor = edges[kept & ~on_main]
    sheet.add(
        "transportation",
        "minor",
        *shapely.get_parts(shapely.line_merge(shapely.multilinestrings(minor))),
    )
    lines = shapely.union_all([*edges[kept], outline.exterior])
    blocks = shapely.get_parts(shapely.polygonize(shapely.get_parts(lines)))
    blocks = shapely.get_parts(shapely.difference(blocks, barred.buffer(4.0)))
    blocks = blocks[(shapely.get_type_id(blocks) == 3) & (shapely.area(blocks) > 1200)]
    working = rng.uniform(0, 2 * np.pi)  # the side of the place where its industry lies
    other: list[BaseGeometry] = []
    built: list[BaseGeometry] = []
    for block in blocks:
        kind, houses = _use_block(rng, place, block, working, sheet)
        built.extend(houses)
        if kind != "residential":
            other.append(block)
    built = _without_overlaps(built)
    shapes = np.asarray(built, dtype=object)
    if shapes.size:
        clear = ~shapely.intersects(shapes, shapely.union_all([barred, main.buffer(6.5)]))
        sheet.add("building", "building", *shapes[clear])
    homes = outline.difference(shapely.union_all([barred, *other]))
    homes = homes.buffer(-2.0).buffer(2.0)
    sheet.add("landuse", "residential", homes)


def _use_block(
    rng: np.random.Generator, place: Settlement, block: Polygon, working: float, sheet: Sheet
) -> tuple[str, list[BaseGeometry]]:
    """Decide what a block is for and build it: (land use, buildings)."""
    x, y = block.centroid.coords[0]
    dx, dy = x - place.centre[0], y - place.centre[1]
    share = float(np.hypot(dx, dy)) / place.radius
    side = np.cos(np.arctan2(dy, dx) - working)
    yard = block.buffer(-5.0)
    large = block.area > 4000
    roll = rng.random()
    angle = along_block(block)
    if place.rank <= 1 and share > 0.55 and side > 0.62 and large:
        kind = "industrial" if roll < 0.8 else "commercial"
        sheet.add("landuse", kind, yard)
        return kind, buildings_in_rows(rng, block, angle, (28, 75), (20, 48), 16.0, 0.72)
    if place.rank <= 1 and share < 0.32 - 0.1 * place.rank:
        if roll < 0.12:
            sheet.add("landuse", "commercial", yard)
            return "commercial", buildings_in_rows(rng, block, angle, (25, 55), (18, 32), 14.0, 0.8)
        inner = houses_along(rng, block, 9.5, (11.0, 17.0), (10.0, 13.0), 0.97)
        return "residential", inner + houses_along(rng, block, 32.0, (14.0, 24.0), (7.0, 12.0), 0.6)
    if large and roll < 0.07 and place.rank <= 2:
        sheet.add("landcover", "grass" if roll < 0.045 else "wood", yard)
        return "park", []
    if large and 0.07 < roll < 0.11 and place.rank <= 2:
        sheet.add("landuse", "school", yard)
        halls = buildings_in_rows(rng, block, angle, (25, 50), (12, 20), 22.0, 0.45)
        pitch = Polygon(
            rectangles(
                np.array([[x, y]]),
                np.array([[np.cos(angle), np.sin(angle)]]),
                np.array([60.0]),
                np.array([38.0]),
                np.zeros(1),
            )[0]
        ).intersection(yard)
        if pitch.area > 1500:
            sheet.add("landuse", "pitch", pitch)
            halls = [hall for hall in halls if not hall.intersects(pitch)]
        return "school", halls
    if large and place.rank <= 1 and 0.11 < roll < 0.22:
        return "residential", buildings_in_rows(rng, block, angle, (28, 62), (11, 14), 20.0, 0.85)
    if share > 0.75 and roll > 0.9 and large:
        return "field", []
    houses = houses_along(rng, block, 13.0, (15.0, 24.0), (8.5, 12.0), 0.62)
    if large:
        houses += houses_along(rng, block, 40.0, (17.0, 28.0), (8.0, 11.0), 0.55)
    return "residential", houses
