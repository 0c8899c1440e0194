"""What covers the land of the procedural world: forest, fields, meadows, tracks and paths."""

from __future__ import annotations

import numpy as np
import shapely
from rasterio.features import rasterize, shapes
from rasterio.transform import Affine
from shapely import Polygon
from shapely.geometry.base import BaseGeometry

from c2gm.model.synthetic.settlement import Settlement, Sheet
from c2gm.model.synthetic.shapes import Float, noise_grid, rounded, tiled, wander


def cover_land(
    rng: np.random.Generator,
    size: Float,
    places: list[Settlement],
    water: BaseGeometry,
    barred: shapely.STRtree,
    sheet: Sheet,
) -> None:
    """Forest from noise; the rest a mesh of parcels, farmed, grazed or left to itself.

    `size` is the world's extent (2,) in metres; no track crosses a piece of `barred` ground.
    """
    cell = max(8.0, float(size.max()) / 1300)
    shape = (int(size[1] / cell) + 1, int(size[0] / cell) + 1)
    transform = Affine(cell, 0, 0, 0, cell, 0)
    outlines = [p.outline.buffer(15) for p in places]
    taken = rasterize([*outlines, water.buffer(6)], out_shape=shape, transform=transform)
    hills = noise_grid(rng, shape, cell, min(5000.0, float(size.min()) / 2.5))
    hills += 0.35 * noise_grid(rng, shape, cell, 900.0)
    wood = (hills > np.quantile(hills, 1 - rng.uniform(0.2, 0.42))) & (taken == 0)
    forest = []
    for found, value in shapes(wood.astype(np.uint8), mask=wood, transform=transform):
        rings = [np.asarray(ring) for ring in found["coordinates"]]
        if value != 1 or Polygon(rings[0]).area < 30 * cell**2:
            continue
        smooth = [rounded(ring[:-1], closed=True) for ring in rings]
        area = Polygon(smooth[0], smooth[1:]).simplify(cell * 0.35).buffer(0)
        forest.append(area)
    sheet.add("landcover", "wood", *forest)
    pieces = [piece for area in (*forest, *outlines, water) for piece in tiled(area)]
    nodes = _parcels(rng, size, pieces, sheet)
    blocked = shapely.STRtree([*(p.outline for p in places), *barred.geometries])
    _tracks(rng, size, nodes, blocked, sheet)


def _parcels(
    rng: np.random.Generator, extent: Float, taken: list[BaseGeometry], sheet: Sheet
) -> Float:
    """Fields and meadows around what is taken; returns the corners of their mesh."""
    size = rng.uniform(280.0, 520.0)
    count = np.ceil(extent / size).astype(int) + 3
    spread = 0.28 if rng.random() < 0.7 else 0.04
    grid = np.stack(np.meshgrid(np.arange(count[0]), np.arange(count[1])), -1) - 1.0
    nodes = (grid + rng.uniform(-spread, spread, grid.shape)) * size
    kinds = noise_grid(rng, (count[1], count[0]), size, 2500.0)
    kinds += rng.normal(0, 0.5, kinds.shape)
    tree = shapely.STRtree(taken)
    bare = rng.uniform(-0.3, 0.6)
    for row in range(count[1] - 1):
        for column in range(count[0] - 1):
            quad = Polygon(
                [nodes[row + j, column + i] for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
            ).buffer(-3.0)
            level = kinds[row, column]
            near = [taken[int(i)] for i in tree.query(quad, predicate="intersects")]
            if near:
                quad = quad.difference(shapely.union_all(near))
            if level > bare:
                sheet.add("landcover", "farmland", quad)
            elif level > bare - 0.6:
                sheet.add("landcover", "grass", quad)
    return nodes


def _tracks(
    rng: np.random.Generator,
    extent: Float,
    nodes: Float,
    blocked: shapely.STRtree,
    sheet: Sheet,
) -> None:
    """Farm tracks between parcels, footpaths anywhere; none through houses or water."""
    across = np.concatenate([nodes[:, :-1].reshape(-1, 2), nodes[:-1].reshape(-1, 2)])
    ahead = np.concatenate([nodes[:, 1:].reshape(-1, 2), nodes[1:].reshape(-1, 2)])
    lines = shapely.linestrings(np.stack([across, ahead], 1))
    lines = lines[rng.random(len(lines)) < 0.3]
    paths = []
    count = 4 + int(rng.poisson(0.5 * extent.prod() / 1e6))
    for spot in rng.uniform(0, 1, (count, 2)) * extent:
        turn = rng.uniform(0, 2 * np.pi)
        end = spot + rng.uniform(200, 1500) * np.array([np.cos(turn), np.sin(turn)])
        paths.append(wander(rng, spot, end, 0.14, 30))
    for kind, ways in (("track", lines), ("path", np.array(paths, dtype=object))):
        hit = np.unique(blocked.query(ways, predicate="intersects")[0])
        free = np.ones(len(ways), dtype=bool)
        free[hit] = False
        sheet.add("transportation", kind, *ways[free])
