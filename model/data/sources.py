"""Where areas come from: real pairs, imagery painted over real vectors, procedural worlds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import shapely

from c2gm.model.data.dubai import dubai
from c2gm.model.data.mosaic import GROUND_LEVEL, Bounds, Extent, Picture, tiles_extent, unit
from c2gm.model.data.mosaic_build import AreaPlan
from c2gm.model.data.real_pairs import OSM_CREDIT, swiss
from c2gm.model.maps.cartography import VectorLayer, VectorMap, read_vectors
from c2gm.model.synthetic import Painter, generate_world, random_style
from c2gm.runtime.errors import DataError
from c2gm.runtime.levels import EARTH_CIRCUMFERENCE_M, TILE_SIZE

_PAINTED_LICENCE = "ODbL-1.0 (vectors); imagery painted by c2gm"


@dataclass(frozen=True)
class PaintedGround:
    """A vector map to paint over: a block of level-14 tiles, with what of it is held out.

    `details` are the north-west corners (column, row) of blocks of 2 x 2 level-14 tiles that are
    painted at the fine levels as well; `held_out` as (column, row, columns, rows). All count
    from the ground's own north-west tile.
    """

    name: str
    x: int
    y: int
    columns: int
    rows: int
    vectors: Callable[[], VectorMap]
    styles: int
    whole: int
    details: tuple[tuple[int, int], ...]
    held_out: tuple[int, int, int, int]
    credit: str
    licence: str


def painted_areas(ground: PaintedGround, seed: int) -> Iterator[AreaPlan]:
    """The ground in several styles down to level `whole`, and some details of it to level 17."""
    column, row, columns, rows = ground.held_out
    validation = (tiles_extent(ground.x + column, ground.y + row, columns, rows, 14, GROUND_LEVEL),)

    def plan(
        name: str,
        style_seed: int,
        extent: Extent,
        levels: tuple[int, ...],
        vectors: Callable[[], VectorMap],
    ) -> AreaPlan:
        finest = max(levels)

        def imagery(window: Extent) -> Picture:
            picture = np.full((window.height, window.width, 4), 255, dtype=np.uint8)
            box = (window.left, window.top, window.width, window.height)
            picture[..., :3] = _painter(vectors, (seed, style_seed, *ground.name.encode())).paint(
                finest, *box
            )
            return picture

        return AreaPlan(
            name=name,
            kind="painted",
            credit=ground.credit,
            licence=ground.licence,
            levels=levels,
            targets=tuple(z for z in levels if min(levels) == GROUND_LEVEL or z > ground.whole),
            extent=extent,
            validation=validation,
            vectors=vectors,
            vectors_name=ground.name if vectors is ground.vectors else name,
            imagery=imagery,
        )

    whole_levels = tuple(range(GROUND_LEVEL, ground.whole + 1))
    for style in range(ground.styles):
        extent = tiles_extent(ground.x, ground.y, ground.columns, ground.rows, 14, ground.whole)
        first = plan(f"{ground.name}_s{style}", style, extent, whole_levels, ground.vectors)
        shared = f"{ground.name}_s0" if style else None
        yield replace(first, map_from=shared)
    for index, (column, row) in enumerate(ground.details):
        levels = tuple(range(ground.whole - 1, 18))
        extent = tiles_extent(ground.x + column, ground.y + row, 2, 2, 14, 17)
        near = partial(_part, ground.vectors, extent, 17)
        yield plan(f"{ground.name}_d{index}", 100 + index, extent, levels, near)


# One of each at a time: plans outlive their turn, large maps and painters must not.
@lru_cache(maxsize=1)
def _painter(vectors: Callable[[], VectorMap], key: tuple[int, ...]) -> Painter:
    return Painter(vectors(), random_style(np.random.default_rng(key)))


@lru_cache(maxsize=1)
def _region(file: Path) -> VectorMap:
    return read_vectors(file)


@lru_cache(maxsize=1)
def _world(seed: int, bounds: Bounds) -> VectorMap:
    return generate_world(seed, bounds)


def _part(vectors: Callable[[], VectorMap], extent: Extent, level: int) -> VectorMap:
    """What of a vector map lies within 400 m of an extent; large polygons are cut."""
    size, half = unit(level), EARTH_CIRCUMFERENCE_M / 2
    west, north = extent.left * size - half - 400, half - extent.top * size + 400
    east, south = west + extent.width * size + 800, north - extent.height * size - 800
    layers = {}
    for name, layer in vectors().items():
        left, bottom, right, top = shapely.bounds(layer.geometry).T
        inside = (left < east) & (right > west) & (bottom < north) & (top > south)
        geometry = layer.geometry[inside]
        if name != "building":
            geometry = shapely.clip_by_rect(shapely.make_valid(geometry), west, south, east, north)
        kept = ~shapely.is_empty(geometry)
        layers[name] = VectorLayer(geometry[kept], layer.kind[inside][kept])
    return layers


def regions(data: Path) -> Iterator[PaintedGround]:
    """The OpenStreetMap regions, with the level-14 tiles they cover."""
    table = {
        "zurich": (9, ((1, 2), (4, 4), (7, 5)), (7, 0, 2, 9)),
        "solothurn": (10, ((1, 3), (5, 5), (8, 2)), (8, 0, 2, 9)),
        "rotterdam": (10, ((1, 6), (4, 2), (8, 3)), (8, 0, 2, 9)),
    }
    corners = {"zurich": (939258, 6014677), "rotterdam": (486751, 6794946)}
    corners["solothurn"] = (829189, 5982879)
    half, tile = EARTH_CIRCUMFERENCE_M / 2, unit(14) * TILE_SIZE
    for name, (columns, details, held_out) in table.items():
        file = data / "osm" / f"{name}.gpkg"
        if not file.exists():
            raise DataError(f"{file} does not exist; name a folder that holds it with --data")
        west, north = corners[name]
        yield PaintedGround(
            name=name,
            x=round((west + half) / tile),
            y=round((half - north) / tile),
            columns=columns,
            rows=9,
            vectors=partial(_region, file),
            styles=2,
            whole=15,
            details=details,
            held_out=held_out,
            credit=OSM_CREDIT,
            licence=_PAINTED_LICENCE,
        )


_WORLDS = {
    # name: (seed, level-14 tile of the north-west corner, validation only)
    "world_a": (11, (8536, 5720), False),
    "world_b": (12, (8440, 5384), False),
    "world_c": (13, (3784, 6440), False),
    "world_v": (14, (4040, 6168), True),
}
_WORLD_TILES = 20
_WORLD_DETAILS = ((3, 3), (12, 5), (7, 13))


def worlds(seed: int) -> Iterator[PaintedGround]:
    """Procedural worlds about 35 km wide, more than a level-10 tile; one is for validation only."""
    half, tile = EARTH_CIRCUMFERENCE_M / 2, unit(14) * TILE_SIZE
    for name, (number, (x, y), held_out) in _WORLDS.items():
        bounds = (
            x * tile - half,
            half - (y + _WORLD_TILES) * tile,
            (x + _WORLD_TILES) * tile - half,
            half - y * tile,
        )
        yield PaintedGround(
            name=name,
            x=x,
            y=y,
            columns=_WORLD_TILES,
            rows=_WORLD_TILES,
            vectors=partial(_world, seed * 1000 + number, bounds),
            styles=2,
            whole=14,
            details=_WORLD_DETAILS[:1] if held_out else _WORLD_DETAILS,
            held_out=(0, 0, _WORLD_TILES, _WORLD_TILES) if held_out else (0, 16, _WORLD_TILES, 4),
            credit="c2gm",
            licence="procedural, no rights reserved",
        )


SOURCES = ("swiss", "worlds", "osm", "dubai")


def plans(source: str, data: Path, seed: int) -> Iterator[AreaPlan]:
    """All areas of one of SOURCES, in building order. Raises DataError if its files are missing."""
    if source == "swiss":
        yield from swiss(data)
    elif source == "dubai":
        yield from dubai(data)
    elif source in ("osm", "worlds"):
        grounds = regions(data) if source == "osm" else worlds(seed)
        # Width before depth: every ground once, then details, then further styles.
        areas = [area for ground in grounds for area in painted_areas(ground, seed)]
        yield from sorted(areas, key=lambda area: ("_s0" not in area.name, area.map_from or ""))
    else:
        raise DataError(f"unknown source {source!r}; choose from {', '.join(SOURCES)}")
