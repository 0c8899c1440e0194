"""The ground of a painted window: fields, meadows, gardens, forest, water, single trees."""

from __future__ import annotations

import numpy as np
import shapely
import skia
from numpy.typing import NDArray

from c2gm.model.synthetic.canvas import (
    FOREST,
    GARDEN,
    PLANTS,
    ROUGH,
    SMOOTH,
    Canvas,
    Colour,
    as_rgb,
    brush,
    stripes,
)
from c2gm.model.synthetic.features import Scene
from c2gm.model.synthetic.parcels import parcels_in
from c2gm.model.synthetic.texture import hash_unit

Mix = tuple[tuple[Colour, float], ...]

_PAVED_USE = ("industrial", "commercial", "retail", "bus_station", "stadium", "quarry", "military")
_GREEN_USE = ("cemetery", "zoo", "theme_park", "playground")
_TREE_CELL_M = 10.0
_ROWS_SHOW_M = 3.0
_FOREST_SHADOW_M = 14.0


def pick(mix: Mix, dice: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index into a weighted mix for each roll in [0, 1)."""
    weights = np.cumsum([weight for _, weight in mix])
    return np.minimum(np.searchsorted(weights / weights[-1], dice, side="right"), len(mix) - 1)


def tint(colour: Colour, factor: float) -> Colour:
    """A lighter (factor > 1) or darker colour."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def blend(first: Colour, second: Colour, share: float) -> Colour:
    """`share` of the second colour, the rest of the first."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(first, second, strict=True))
    return red, green, blue


def patchwork(canvas: Canvas, scene: Scene, mix: Mix, ploughed: float, size: float) -> skia.Shader:
    """A picture of the window in which every parcel has a tone of the mix, as a shader.

    `ploughed` is the share of parcels with visible rows; `size` a block of parcels in metres.
    """
    west, north, east, south = canvas.bounds
    dx, dy = scene.offset
    parcels = parcels_in(
        scene.style.seed % 1009 + int(size),
        size,
        scene.style.parcel_disorder,
        (west + dx, north + dy, east + dx, south + dy),
    )
    surface = skia.Surface(canvas.width, canvas.height)
    target = surface.getCanvas()
    target.setMatrix(canvas.matrix)
    mean = np.mean([colour for colour, _ in mix], axis=0)
    target.clear(skia.Color(*(int(c) for c in mean)))
    chosen = pick(mix, parcels.dice[:, 0])
    tones = 0.88 + 0.24 * parcels.dice[:, 1]
    corners = (parcels.corners - (dx, dy)).tolist()
    if canvas.pixel < _ROWS_SHOW_M:
        _draw_parcels(target, corners, [mix[i][0] for i in chosen], tones, parcels.dice, ploughed)
    else:
        _draw_parcels_in_bulk(target, corners, mix, chosen, tones)
    if canvas.pixel < 4.0 and size > 200:
        _draw_balks(target, corners, parcels.dice[:, 3], tint(mix[0][0], 0.85))
    inverse = skia.Matrix()
    if not canvas.matrix.invert(inverse):
        raise AssertionError("a scale and a shift can be inverted")
    image = surface.makeImageSnapshot()
    return image.makeShader(skia.TileMode.kClamp, skia.TileMode.kClamp, localMatrix=inverse)


def _draw_parcels(
    target: skia.Canvas,
    corners: list[list[list[float]]],
    colours: list[Colour],
    tones: NDArray[np.float64],
    dice: NDArray[np.float64],
    ploughed: float,
) -> None:
    """Each parcel by itself, a share of them with rows along their longer way."""
    for ring, colour, tone, rolls in zip(corners, colours, tones, dice, strict=True):
        path = skia.Path()
        path.addPoly([skia.Point(*p) for p in ring], True)
        toned = tint(colour, float(tone))
        target.drawPath(path, brush(toned))
        if rolls[2] < ploughed:
            (x0, y0), (x1, y1) = ring[0], ring[3]
            spacing = (2.4, 4.0, 9.0)[int(rolls[3] * 3)]
            rows = stripes(
                tint(toned, 0.72), spacing, 0.45, float(np.arctan2(y1 - y0, x1 - x0)), 0.5
            )
            target.drawPath(path, skia.Paint(AntiAlias=True, Shader=rows))


def _draw_parcels_in_bulk(
    target: skia.Canvas,
    corners: list[list[list[float]]],
    mix: Mix,
    chosen: NDArray[np.int64],
    tones: NDArray[np.float64],
) -> None:
    """All parcels of about one tone at once: for the many that a coarse window holds."""
    steps = np.round(tones * 20).astype(np.int64)
    paths: dict[tuple[int, int], skia.Path] = {}
    for ring, index, step in zip(corners, chosen.tolist(), steps.tolist(), strict=True):
        path = paths.setdefault((index, step), skia.Path())
        path.addPoly([skia.Point(*p) for p in ring], True)
    for (index, step), path in paths.items():
        target.drawPath(path, brush(tint(mix[index][0], step / 20)))


def _draw_balks(
    target: skia.Canvas, corners: list[list[list[float]]], dice: NDArray[np.float64], colour: Colour
) -> None:
    """Grass strips between some of the fields."""
    lines = skia.Path()
    for ring, roll in zip(corners, dice, strict=True):
        if roll < 0.5:
            lines.addPoly([skia.Point(*p) for p in ring[:2]], False)
    target.drawPath(lines, brush(colour, 0.7, 2.0))


def draw_land(canvas: Canvas, scene: Scene) -> None:
    """Everything that grows or lies open: the whole window is covered."""
    colours, size = scene.palette, scene.style.parcel_size
    west, north, east, south = canvas.bounds
    everywhere = skia.Path()
    everywhere.addRect(skia.Rect(west - 9, north - 9, east + 9, south + 9))
    canvas.shade(everywhere, patchwork(canvas, scene, colours.rough, 0.0, size * 0.8), PLANTS)
    _draw_use(canvas, scene)
    cover = scene.landcover
    at = scene.select(cover, canvas)
    kinds = cover.kind[at]
    park = blend(colours.meadows[0][0], colours.garden, 0.4)
    flat: dict[str, tuple[Colour, Colour]] = {
        "park": (park, (40, 215, 0)),
        "wetland": (blend(colours.rough[0][0], colours.water, 0.35), (90, 165, 0)),
        "sand": ((206, 192, 160), ROUGH),
        "rock": ((150, 146, 140), ROUGH),
        "ice": ((238, 242, 246), SMOOTH),
    }
    for name, mix, ploughed, scale in (
        ("grass", colours.meadows, 0.15, 0.7),
        ("farmland", colours.crops, 0.8, 1.0),
    ):
        chosen = at[kinds == name]
        if chosen.size:
            shader = patchwork(canvas, scene, mix, ploughed, size * scale)
            canvas.shade(scene.united(cover, chosen), shader, PLANTS)
    for name, (colour, material) in flat.items():
        chosen = at[kinds == name]
        if chosen.size:
            canvas.fill(scene.united(cover, chosen), colour, material)


def _draw_use(canvas: Canvas, scene: Scene) -> None:
    """Gardens, yards, school grounds: the ground between buildings."""
    colours, use = scene.palette, scene.landuse
    at = scene.select(use, canvas)
    kinds = use.kind[at]
    gardens = at[kinds == "residential"]
    if gardens.size:
        united = scene.united(use, gardens)
        if canvas.pixel < 3.5:
            lots: Mix = (
                (colours.garden, 3.0),
                (blend(colours.garden, colours.meadows[1][0], 0.7), 3.0),
                (blend(colours.garden, colours.paving, 0.5), 1.5),
                (tint(colours.garden, 0.8), 2.0),
            )
            canvas.shade(united, patchwork(canvas, scene, lots, 0.0, 70.0), GARDEN)
        else:
            canvas.fill(united, colours.garden, GARDEN)
    for name in _PAVED_USE:
        for index in at[kinds == name]:
            tone = 0.85 + 0.3 * scene.roll(use, int(index))
            paved = blend(colours.paving, colours.asphalt, 0.6)
            ground = blend(paved, colours.garden, 0.3 if name == "industrial" else 0.45)
            canvas.fill(use.path(int(index)), tint(ground, tone), ROUGH)
    mixed = at[np.isin(kinds, ("school", "university", "college", "hospital", "kindergarten"))]
    for index in mixed:
        canvas.fill(use.path(int(index)), blend(colours.garden, colours.paving, 0.4), GARDEN)
    for index in at[np.isin(kinds, _GREEN_USE)]:
        canvas.fill(use.path(int(index)), tint(colours.garden, 0.92), GARDEN)
    for index in at[kinds == "railway"]:
        canvas.fill(use.path(int(index)), colours.ballast, ROUGH)


def draw_pitches(canvas: Canvas, scene: Scene) -> None:
    """Sports grounds: bright turf, some red or grey courts."""
    use = scene.landuse
    at = scene.select(use, canvas)
    for index in at[use.kind[at] == "pitch"]:
        roll = scene.roll(use, int(index))
        court = (168.0, 104.0, 84.0) if roll < 0.2 else (120.0, 138.0, 128.0)
        turf = blend(scene.palette.meadows[0][0], (96.0, 150.0, 72.0), 0.5)
        canvas.fill(use.path(int(index)), court if roll < 0.3 else turf, SMOOTH)


def draw_forest(canvas: Canvas, scene: Scene) -> None:
    """Woods with the shadow they cast and an edge of crowns instead of a ruled line."""
    cover = scene.landcover
    at = scene.select(cover, canvas)
    at = at[cover.kind[at] == "wood"]
    if not at.size:
        return
    woods = scene.united(cover, at)
    if canvas.pixel < 8.0:
        shadow = skia.Path(woods)
        shadow.offset(scene.shadow[0] * _FOREST_SHADOW_M, scene.shadow[1] * _FOREST_SHADOW_M)
        canvas.fill(shadow, (12, 18, 22), None, 0.5)
    canvas.fill(woods, scene.palette.forest, FOREST)
    if canvas.pixel < 2.6:
        edge = np.concatenate([scene.edge_points(cover, int(i), 6.0) for i in at])
        draw_crowns(canvas, scene, edge, shadows=False)


def draw_water(canvas: Canvas, scene: Scene) -> None:
    """Streams as lines with a green fringe, then rivers and lakes with their banks."""
    colours = scene.palette
    widths = {"river": 12.0, "canal": 9.0, "stream": 2.2, "ditch": 1.6, "drain": 1.6}
    at = scene.select(scene.waterway, canvas)
    for kind, width in widths.items():
        chosen = at[scene.waterway.kind[at] == kind]
        if not chosen.size:
            continue
        lines = scene.united(scene.waterway, chosen)
        fringe = tint(blend(colours.forest, colours.meadows[0][0], 0.4), 0.95)
        canvas.stroke(lines, width + 7.0, fringe, (120, 135, 0), 0.55)
        canvas.stroke(lines, width, tint(colours.water, 0.95), SMOOTH)
    at = scene.select(scene.water, canvas)
    at = at[scene.water.is_area[at]]
    if not at.size:
        return
    water = scene.united(scene.water, at)
    if canvas.pixel < 12.0:
        canvas.stroke(water, 9.0, blend(colours.garden, (176, 166, 140), 0.5), ROUGH, 0.6)
    for index in at:
        roll = scene.roll(scene.water, int(index))
        small = float(shapely.area(scene.water.geometry[index])) < 2e4
        murky = blend(colours.water, (62, 74, 50), 0.2 + 0.6 * roll)
        canvas.fill(
            scene.water.path(int(index)),
            murky if small else tint(colours.water, 0.94 + 0.12 * roll),
            SMOOTH,
        )


def draw_single_trees(canvas: Canvas, scene: Scene) -> None:
    """Trees in gardens, along lines and alone in the fields, where a pixel can show them."""
    if canvas.pixel > 2.6:
        return
    west, north, east, south = canvas.bounds
    dx, dy = scene.offset
    columns = np.arange(np.floor((west + dx) / _TREE_CELL_M), np.ceil((east + dx) / _TREE_CELL_M))
    rows = np.arange(np.floor((north + dy) / _TREE_CELL_M), np.ceil((south + dy) / _TREE_CELL_M))
    column, row = (a.ravel().astype(np.int64) for a in np.meshgrid(columns, rows))
    seed = scene.style.seed
    x = (column + hash_unit(seed, 11, column, row)) * _TREE_CELL_M - dx
    y = (row + hash_unit(seed, 12, column, row)) * _TREE_CELL_M - dy
    across = ((x - west) / canvas.pixel).astype(np.int64)
    down = ((y - north) / canvas.pixel).astype(np.int64)
    seen = (x > west) & (y > north) & (across < canvas.width) & (down < canvas.height)
    x, y, across, down = x[seen], y[seen], across[seen], down[seen]
    ground = as_rgb(canvas.material)[down, across].astype(np.float64)
    plants, built = ground[:, 1], ground[:, 2]
    garden = (plants > 100) & (built > 90) & (ground[:, 0] < 60)
    fringe = (plants > 80) & (ground[:, 0] > 60) & (built < 60)
    open_land = (plants > 225) & (built < 30)
    # Lone trees gather in places: orchards, hedges, pasture.
    groves = hash_unit(seed, 14, column[seen] // 14, row[seen] // 14)
    chance = 0.34 * garden + 0.3 * fringe + open_land * np.where(groves > 0.9, 0.12, 0.006)
    keep = hash_unit(seed, 13, column[seen], row[seen]) < chance
    draw_crowns(canvas, scene, np.stack([x[keep], y[keep]], axis=1), shadows=True)


def draw_crowns(canvas: Canvas, scene: Scene, points: NDArray[np.float64], shadows: bool) -> None:
    """Round crowns at points (n, 2) in local ground metres."""
    west, north, east, south = canvas.bounds
    inside = (
        (points[:, 0] > west - 20)
        & (points[:, 0] < east + 20)
        & (points[:, 1] > north - 20)
        & (points[:, 1] < south + 20)
    )
    points = points[inside]
    if not len(points):
        return
    keys = np.floor((points + scene.offset) * 4).astype(np.int64)
    size = 1.8 + 3.0 * hash_unit(21, keys[:, 0], keys[:, 1])
    tone = (hash_unit(22, keys[:, 0], keys[:, 1]) * 4).astype(np.int64)
    dark = [skia.Path() for _ in range(4)]
    lit = [skia.Path() for _ in range(4)]
    cast = skia.Path()
    reach_x, reach_y = scene.shadow
    for (x, y), radius, group in zip(points.tolist(), size.tolist(), tone.tolist(), strict=True):
        dark[group].addCircle(x, y, radius)
        lit[group].addCircle(x - 0.3 * radius * reach_x, y - 0.3 * radius * reach_y, 0.6 * radius)
        if shadows:
            cast.addCircle(x + radius * reach_x, y + radius * reach_y, radius)
    if shadows:
        canvas.fill(cast, (16, 22, 26), None, 0.5)
    for group in range(4):
        base = tint(scene.palette.forest, 0.9 + 0.14 * group)
        canvas.fill(dark[group], tint(base, 0.8), (150, 60, 0))
        canvas.fill(lit[group], tint(base, 1.35), None)
