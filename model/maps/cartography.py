"""Map images of any window of levels 10-18, drawn from vectors with generalisation.

The ground truth of the method where only vectors exist. Geometry is generalised once per level on
the whole map, and pixels are drawn in fixed blocks of the level pixel grid: so a pixel's value
never depends on the window that it was drawn in.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import mercantile
import numpy as np
import shapely
import skia
from numpy.typing import NDArray

from c2gm.model.maps import generalise, style
from c2gm.model.maps.generalise import Geometries
from c2gm.model.maps.style import BACKGROUND, PALETTE, AreaRule, LineRule
from c2gm.model.maps.vectors import (
    LAYERS,
    VectorLayer,
    VectorMap,
    lines,
    polygons,
    read_vectors,
    write_vectors,
)
from c2gm.runtime.errors import DataError, LevelError

__all__ = [
    "BACKGROUND",
    "LAYERS",
    "PALETTE",
    "Cartographer",
    "VectorLayer",
    "VectorMap",
    "read_vectors",
    "write_vectors",
]

TILE = 256
BLOCK = 512
_CACHED_BLOCKS = 32
_HALF_WORLD_M = np.pi * 6378137.0
_CUT_LEVEL = 14  # vector tiles cut objects at the tile borders of this level
_CRACK_M = 0.5  # and may leave cracks as wide as this
_BLOCK_LEVEL = 14  # at this level buildings are drawn as blocks, above as built-up ground
_MANY_POINTS = 400  # geometries with more are clipped to a block before they are drawn


@dataclass(frozen=True)
class _Stratum:
    """One drawing operation: geometries of a level (in level pixels), filled or stroked."""

    geometry: Geometries
    tree: shapely.STRtree
    paint: skia.Paint
    filled: bool


class Cartographer:
    """Draws a vector map. The first draw of a level generalises the whole map for that level."""

    def __init__(self, vector_map: VectorMap) -> None:
        unknown = sorted(set(vector_map) - set(LAYERS))
        if unknown:
            raise DataError(f"unknown layers {', '.join(unknown)}; known are {', '.join(LAYERS)}")
        self._map = vector_map
        self._strata: dict[int, list[_Stratum]] = {}
        self._merged: dict[AreaRule, Geometries] = {}
        self._whole_buildings: Geometries | None = None
        self._built_up: Geometries | None = None
        self._blocks: OrderedDict[tuple[int, int, int], NDArray[np.uint8]] = OrderedDict()

    def draw_tile(self, tile: mercantile.Tile) -> NDArray[np.uint8]:
        """The map of one tile: uint8 RGB, shape (256, 256, 3)."""
        return self.draw(tile.z, tile.x * TILE, tile.y * TILE, TILE, TILE)

    def draw(self, level: int, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        """The map of a window of the level pixel grid: uint8 RGB, shape (height, width, 3).

        Windows that overlap agree exactly. Raises LevelError for a level outside 10-18.
        """
        if level not in style.LEVELS:
            raise LevelError(
                f"level {level} has no map style; choose {style.LEVELS[0]} to {style.LEVELS[-1]}"
            )
        image = np.empty((height, width, 3), dtype=np.uint8)
        for row in range(top // BLOCK, -(-(top + height) // BLOCK)):
            for column in range(left // BLOCK, -(-(left + width) // BLOCK)):
                x, y = column * BLOCK, row * BLOCK
                x0, x1 = max(x, left), min(x + BLOCK, left + width)
                y0, y1 = max(y, top), min(y + BLOCK, top + height)
                block = self._block(level, column, row)
                image[y0 - top : y1 - top, x0 - left : x1 - left] = block[
                    y0 - y : y1 - y, x0 - x : x1 - x
                ]
        return image

    def prepare(self, level: int) -> None:
        """Generalise the whole map for `level` now instead of at its first draw."""
        if level not in self._strata:
            self._strata[level] = list(self._build(level))

    def _block(self, level: int, column: int, row: int) -> NDArray[np.uint8]:
        key = (level, column, row)
        if key in self._blocks:
            self._blocks.move_to_end(key)
            return self._blocks[key]
        self.prepare(level)
        block = _paint_block(self._strata[level], column * BLOCK, row * BLOCK)
        self._blocks[key] = block
        if len(self._blocks) > _CACHED_BLOCKS:
            self._blocks.popitem(last=False)
        return block

    def _build(self, level: int) -> Iterable[_Stratum]:
        for rule in style.AREAS:
            if rule.name == "residential" and level < _BLOCK_LEVEL:
                yield _fill(self._built_up_ground(rule, level), "residential")
            elif level >= rule.level:
                yield _fill(self._areas(rule, level), rule.name)
        yield from self._ways(style.WATERWAYS, level, "waterway")
        for rule in style.WATER_AREAS:
            yield _fill(self._areas(rule, level), rule.name)
        for rule in style.TRAFFIC_AREAS:
            if level >= rule.level:
                parts = self._areas(rule, level)
                if rule.name == "street":
                    yield _stroke(shapely.get_rings(parts), "street_edge", 2 * _casing(level))
                yield _fill(parts, rule.name)
        yield from self._ways(style.LANES, level)
        yield from self._buildings(level)
        yield from self._ways(style.ROADS, level)
        yield from self._ways(style.RAILS, level)

    def _select(self, layer: str, kinds: tuple[str, ...]) -> Geometries:
        if layer not in self._map:
            return np.empty(0, dtype=object)
        return self._map[layer].geometry[np.isin(self._map[layer].kind, kinds)]

    def _areas(self, rule: AreaRule, level: int) -> Geometries:
        if rule not in self._merged:
            parts = polygons(self._select(rule.layer, rule.kinds))
            self._merged[rule] = generalise.mend(parts, _CRACK_M)
        parts = _to_pixels(self._merged[rule], level)
        return generalise.generalise_areas(parts, rule, level)

    def _ways(
        self, rules: tuple[LineRule, ...], level: int, layer: str = "transportation"
    ) -> Iterable[_Stratum]:
        casings: list[_Stratum] = []
        fills: list[_Stratum] = []
        for rule in rules:
            width = rule.width(level)
            if width is None:
                continue
            parts = _to_pixels(lines(self._select(layer, rule.kinds)), level)
            parts = generalise.generalise_lines(parts, rule, level)
            if rule.edge is not None:
                casings.append(_stroke(parts, rule.edge, width + 2 * _casing(level)))
            fills.append(_stroke(parts, rule.colour, width))
        return casings + fills

    def _all_buildings(self, level: int) -> Geometries:
        if self._whole_buildings is None:
            layer = self._map.get("building")
            parts = np.empty(0, dtype=object) if layer is None else polygons(layer.geometry)
            grid = 2 * _HALF_WORLD_M / 2**_CUT_LEVEL
            whole = generalise.mend_buildings(parts, grid, _HALF_WORLD_M, _CRACK_M)
            self._whole_buildings = whole
        return _to_pixels(self._whole_buildings, level)

    def _blocks_of_buildings(self) -> Geometries:
        """Blocks at _BLOCK_LEVEL, in its pixels; coarser levels are made from them as well."""
        if self._built_up is None:
            parts = self._all_buildings(_BLOCK_LEVEL)
            self._built_up = generalise.building_blocks(parts, 1.0, 0.2, 2.0)
        return self._built_up

    def _built_up_ground(self, rule: AreaRule, level: int) -> Geometries:
        scale = 2.0 ** (level - _BLOCK_LEVEL)
        blocks = shapely.transform(self._blocks_of_buildings(), lambda xy: xy * scale)
        grown = generalise.building_blocks(blocks, max(8.0 * scale, 1.2), 1.0, rule.smallest)
        mapped = polygons(self._select(rule.layer, rule.kinds))
        ground = np.concatenate([grown, _to_pixels(mapped, level)])
        return generalise.generalise_areas(ground, rule, level)

    def _buildings(self, level: int) -> Iterable[_Stratum]:
        if level == _BLOCK_LEVEL:
            blocks = self._blocks_of_buildings()
            yield _fill(blocks[shapely.area(blocks) >= 5.0], "block")
        elif level >= style.BUILDINGS.level:
            parts = self._all_buildings(level)
            parts = parts[shapely.area(parts) >= style.BUILDINGS.smallest]
            parts = shapely.simplify(parts, 0.3)
            yield _fill(parts, "building")
            if level >= 17:
                yield _stroke(shapely.get_rings(parts), "building_edge", 1.0)


def _to_pixels(geometry: Geometries, level: int) -> Geometries:
    scale = TILE * 2**level / (2 * _HALF_WORLD_M)
    origin = np.array([-_HALF_WORLD_M, _HALF_WORLD_M])
    factor = np.array([scale, -scale])
    moved: Geometries = shapely.transform(geometry, lambda xy: (xy - origin) * factor)
    return moved


def _paint(colour: str, width: float | None = None) -> skia.Paint:
    paint = skia.Paint(AntiAlias=True, Color=skia.Color(*PALETTE[colour]))
    if width is not None:
        paint.setStyle(skia.Paint.kStroke_Style)
        paint.setStrokeWidth(width)
        paint.setStrokeCap(skia.Paint.kRound_Cap)
        paint.setStrokeJoin(skia.Paint.kRound_Join)
    return paint


def _fill(parts: Geometries, colour: str) -> _Stratum:
    # Counter-clockwise shells and clockwise holes: overlapping polygons of a class then add up
    # under the winding rule instead of cancelling out.
    oriented = shapely.orient_polygons(parts)
    return _Stratum(oriented, shapely.STRtree(oriented), _paint(colour), True)


def _stroke(parts: Geometries, colour: str, width: float) -> _Stratum:
    return _Stratum(parts, shapely.STRtree(parts), _paint(colour, width), False)


def _casing(level: int) -> float:
    return style.CASING[level - style.LEVELS[0]]


def _paint_block(strata: list[_Stratum], left: int, top: int) -> NDArray[np.uint8]:
    info = skia.ImageInfo.Make(
        BLOCK, BLOCK, skia.ColorType.kRGBA_8888_ColorType, skia.AlphaType.kPremul_AlphaType
    )
    surface = skia.Surface.MakeRaster(info)
    canvas = surface.getCanvas()
    canvas.clear(skia.Color(*BACKGROUND))
    reach = style.REACH
    bounds = (left - reach, top - reach, left + BLOCK + reach, top + BLOCK + reach)
    box = shapely.box(*bounds)
    for stratum in strata:
        hits = np.sort(stratum.tree.query(box))
        if not len(hits):
            continue
        geometry = stratum.geometry[hits]
        large = shapely.get_num_coordinates(geometry) > _MANY_POINTS
        if large.any():
            clipped = shapely.get_parts(shapely.clip_by_rect(geometry[large], *bounds))
            if stratum.filled:
                clipped = shapely.orient_polygons(polygons(clipped))
            geometry = np.concatenate([geometry[~large], clipped])
        path = _path(geometry, stratum.filled, left, top)
        canvas.drawPath(path, stratum.paint)
    pixels = surface.toarray(colorType=skia.ColorType.kRGBA_8888_ColorType)
    return np.ascontiguousarray(pixels[:, :, :3])


def _path(geometry: Geometries, closed: bool, left: int, top: int) -> skia.Path:
    parts = shapely.get_rings(geometry) if closed else geometry
    xy, index = shapely.get_coordinates(parts, return_index=True)
    points = [skia.Point(x, y) for x, y in (xy - (left, top)).tolist()]
    stops = np.flatnonzero(np.diff(index, append=-1)) + 1
    path = skia.Path()
    path.setFillType(skia.PathFillType.kWinding)
    start = 0
    for stop in stops.tolist():
        path.addPoly(points[start:stop], closed)
        start = stop
    return path
