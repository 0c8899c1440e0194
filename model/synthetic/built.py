"""What people built, painted from vectors: roads, rails, buildings with roofs and shadows."""

from __future__ import annotations

import numpy as np
import skia

from c2gm.model.synthetic.canvas import ROUGH, Canvas, Colour, brush
from c2gm.model.synthetic.features import Scene
from c2gm.model.synthetic.ground import Mix, blend, pick, tint
from c2gm.model.synthetic.style import BIG_ROOFS

# Carriageway widths in metres on the ground, minor ones first: later ones are painted on top.
ROAD_WIDTH = {
    "driveway": 3.2,
    "service": 4.5,
    "pedestrian": 5.0,
    "busway": 6.0,
    "minor": 5.5,
    "tertiary": 7.0,
    "secondary": 8.0,
    "primary": 9.0,
    "trunk": 10.0,
    "motorway": 10.5,
}
_RAILS = ("rail", "siding", "narrow_gauge", "light_rail", "tram")
_ROOF = (0.0, 0.0, 120.0)
_DETAIL_M = 4.0


def draw_paths(canvas: Canvas, scene: Scene) -> None:
    """Footpaths: drawn below the forest, whose crowns hide them."""
    ways = scene.transportation
    at = scene.select(ways, canvas)
    chosen = at[ways.kind[at] == "path"]
    if chosen.size and canvas.pixel < 10:
        colour = blend(scene.palette.track, scene.palette.garden, 0.3)
        canvas.stroke(scene.united(ways, chosen), 1.7, colour, ROUGH, 0.8)


def draw_ways(canvas: Canvas, scene: Scene) -> None:
    """Tracks, roads and railways."""
    ways, colours = scene.transportation, scene.palette
    at = scene.select(ways, canvas)
    if not at.size:
        return
    kinds = np.char.replace(np.char.replace(ways.kind[at], "_link", ""), "_construction", "")
    lines = ~ways.is_area[at]
    for kind, width in (("platform", 4.0), ("pier", 4.0), ("pedestrian", 5.0)):
        for index in at[(kinds == kind) & ~lines]:
            canvas.fill(ways.path(int(index)), colours.paving, ROUGH)
        if (chosen := at[(kinds == kind) & lines]).size and kind != "pedestrian":
            canvas.stroke(scene.united(ways, chosen), width, colours.paving, ROUGH)
    if (chosen := at[(kinds == "track") & lines]).size:
        canvas.stroke(scene.united(ways, chosen), 3.0, colours.track, ROUGH, 0.85)
        if canvas.pixel < 0.8:
            grass = blend(colours.track, colours.meadows[0][0], 0.7)
            canvas.stroke(scene.united(ways, chosen), 0.9, grass, None, 0.6)
    if (chosen := at[np.isin(kinds, _RAILS) & lines]).size:
        rails = scene.united(ways, chosen)
        canvas.stroke(rails, 4.6, colours.ballast, ROUGH)
        if canvas.pixel < 1.2:
            canvas.stroke(rails, 2.0, tint(colours.ballast, 0.72), None, 0.7)
    for kind, width in ROAD_WIDTH.items():
        chosen = at[(kinds == kind) & lines]
        if not chosen.size:
            continue
        road = scene.united(ways, chosen)
        if canvas.pixel < 5.0 and width > 6.5:
            canvas.stroke(road, width + 4.0, blend(colours.garden, colours.track, 0.4), ROUGH, 0.5)
        canvas.stroke(road, width, colours.asphalt, ROUGH)
        if canvas.pixel < _DETAIL_M:
            for index in chosen:
                shade = 0.86 + 0.26 * scene.roll(ways, int(index))
                canvas.stroke(ways.path(int(index)), width, tint(colours.asphalt, shade), None, 0.8)
        if canvas.pixel < 0.9 and width > 6.5:
            dashes = brush((226.0, 226.0, 222.0), 0.8, 0.35)
            dashes.setPathEffect(skia.DashPathEffect.Make([4.0, 6.0], 0.0))
            canvas.colour.getCanvas().drawPath(road, dashes)


def draw_buildings(canvas: Canvas, scene: Scene) -> None:
    """Roofs: one tone each; where they can be seen, a lit and a dark side and a shadow."""
    buildings = scene.buildings
    at = scene.select(buildings, canvas)
    if not at.size:
        return
    big = (buildings.area[at] > 700) | ((buildings.area[at] > 350) & (buildings.dice[at, 2] > 0.5))
    small_mix, big_mix = scene.palette.roofs, BIG_ROOFS
    tone = np.where(
        big,
        len(small_mix) + pick(big_mix, buildings.dice[at, 1]),
        pick(small_mix, buildings.dice[at, 1]),
    )
    mix: Mix = small_mix + big_mix
    if canvas.pixel < 8.0:
        cast = skia.Path()
        for index in at.tolist():
            cast.addPath(buildings.shadow(index, *scene.shadow))
        cast.setFillType(skia.PathFillType.kWinding)
        canvas.fill(cast, (14, 18, 26), None, 0.55)
    if canvas.pixel > _DETAIL_M:
        for group, (colour, _) in enumerate(mix):
            if (members := at[tone == group]).size:
                canvas.fill(buildings.merged(members), colour, _ROOF)
        return
    for index, group, flat in zip(at.tolist(), tone.tolist(), big.tolist(), strict=True):
        brightness = 0.88 + 0.24 * float(buildings.dice[index, 3])
        _draw_roof(canvas, scene, index, tint(mix[group][0], brightness), flat)


def _draw_roof(canvas: Canvas, scene: Scene, index: int, colour: Colour, flat: bool) -> None:
    buildings = scene.buildings
    path = buildings.path(index)
    if flat:
        canvas.fill(path, colour, _ROOF)
        if canvas.pixel < 1.5:
            canvas.stroke(path, 0.9, tint(colour, 1.18), None, 0.6)
        return
    ridge = buildings.ridge[index]
    side = np.array([-ridge[1], ridge[0]])
    away = side if side @ np.asarray(scene.shadow) > 0 else -side
    # The more squarely a side faces the sun, the more the two sides differ.
    contrast = 0.12 + 0.22 * abs(float(side @ np.asarray(scene.shadow)))
    canvas.fill(path, tint(colour, 1.0 + 0.5 * contrast), _ROOF)
    centre = buildings.centre[index]
    far = 60.0
    half = skia.Path()
    ends = (centre + far * ridge, centre - far * ridge)
    half.addPoly(
        [skia.Point(*p) for p in (*ends, ends[1] + far * away, ends[0] + far * away)], True
    )
    surface = canvas.colour.getCanvas()
    surface.save()
    surface.clipPath(path, skia.ClipOp.kIntersect, True)
    surface.drawPath(half, brush(tint(colour, 1.0 - contrast)))
    surface.restore()
