"""Scores of maps against the true map, tile by tile: two maps are compared on the same tiles."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mercantile import Tile
from numpy.typing import NDArray

from c2gm.model.data.mosaic import GROUND_LEVEL, Area, Extent
from c2gm.model.data.pairs import Window, cut
from c2gm.model.evaluation.class_scores import class_counts
from c2gm.model.evaluation.metrics import psnr_y, ssim_y
from c2gm.model.evaluation.result_map import ResultMap
from c2gm.runtime.levels import TILE_SIZE

FEWEST_VALID = 0.25
"""Share of a tile that must be held-out ground with imagery."""

DRAWS = 2000
"""Of a bootstrap over tiles."""


@dataclass(frozen=True, slots=True)
class TileScore:
    """One tile. `detailed`: the true map shows more than plain ground; `counts`: class scores."""

    detailed: bool
    psnr_y: float
    ssim_y: float
    counts: Mapping[str, NDArray[np.int64]]


Key = tuple[str, Tile]
"""Scene and tile."""

TileScores = Mapping[Key, TileScore]


def tile_extents(area: Area, level: int) -> Iterator[tuple[Tile, Extent]]:
    """The tiles of a level that an area touches, and their pixels."""
    whole = area.levels[level]
    for y in range(whole.top // TILE_SIZE, -(-(whole.top + whole.height) // TILE_SIZE)):
        for x in range(whole.left // TILE_SIZE, -(-(whole.left + whole.width) // TILE_SIZE)):
            yield Tile(x, y, level), Extent(x * TILE_SIZE, y * TILE_SIZE, TILE_SIZE, TILE_SIZE)


def score_tiles(area: Area, found: ResultMap, levels: Sequence[int]) -> dict[Key, TileScore]:
    """The map's tiles on held-out ground."""
    scores: dict[Key, TileScore] = {}
    for level in levels:
        grounds = [ground.finer(level - GROUND_LEVEL) for ground in area.validation]
        for tile, extent in tile_extents(area, level):
            if not any(ground.overlaps(extent) for ground in grounds):
                continue
            picture = found.tile(tile)
            if picture is None:
                continue
            sample = cut(Window(area, level, extent), None, "validation")
            valid = (sample.imagery[..., 3] > 0)[None] & (picture[None, ..., 3] > 0)
            if valid.mean() < FEWEST_VALID:
                continue
            pair = picture[None, ..., :3], sample.target[None], valid
            scores[area.name, tile] = TileScore(
                detailed=sample.detail,
                psnr_y=float(psnr_y(*pair)[0]),
                ssim_y=float(ssim_y(*pair)[0]),
                counts={name: counts[0] for name, counts in class_counts(*pair).items()},
            )
    return scores


def means(rows: Sequence[TileScore]) -> dict[str, float | None]:
    """PSNR-Y and SSIM-Y as means over tiles, class scores of all pixels together.

    A class score is None where nobody shows the class; nothing is scored without tiles.
    """
    if not rows:
        return {}
    found: dict[str, float | None] = {}
    for name in rows[0].counts:
        part, whole = np.sum([row.counts[name] for row in rows], axis=0).tolist()
        found[name] = part / whole if whole else None
    found["psnr_y"] = float(np.mean([row.psnr_y for row in rows]))
    found["ssim_y"] = float(np.mean([row.ssim_y for row in rows]))
    return found


def compare(base: TileScores, other: TileScores) -> dict[str, Any]:
    """`other` less `base` on the tiles that both have: overall, by level, by scene and level.

    Each over all tiles and over those with detail; differences of PSNR-Y and SSIM-Y with the 95 %
    interval of a bootstrap over tiles, which are taken to be independent.
    """
    common = [key for key in base if key in other]

    def row(keys: Sequence[Key]) -> dict[str, Any]:
        chosen = {"all": keys, "detailed": [key for key in keys if base[key].detailed]}
        return {
            name: _difference([base[k] for k in ks], [other[k] for k in ks])
            for name, ks in chosen.items()
        }

    def by_level(keys: Sequence[Key]) -> dict[str, Any]:
        levels = sorted({tile.z for _, tile in keys})
        return {str(z): row([key for key in keys if key[1].z == z]) for z in levels}

    scenes = {scene: [key for key in common if key[0] == scene] for scene, _ in common}
    return {
        "overall": row(common),
        "levels": by_level(common),
        "scenes": {
            scene: {"overall": row(keys), "levels": by_level(keys)}
            for scene, keys in scenes.items()
        },
    }


def _difference(base: Sequence[TileScore], other: Sequence[TileScore]) -> dict[str, Any]:
    if not base:
        return {"tiles": 0}
    draws = np.random.default_rng(0).integers(0, len(base), (DRAWS, len(base)))
    found: dict[str, Any] = {"tiles": len(base), "base": means(base), "other": means(other)}
    for name in ("psnr_y", "ssim_y"):
        before, after = (np.array([getattr(row, name) for row in rows]) for rows in (base, other))
        change = after - before
        low, high = np.quantile(change[draws].mean(axis=1), [0.025, 0.975])
        found[name] = {
            "difference": float(change.mean()),
            "low": float(low),
            "high": float(high),
            "worst_tile": float(change.min()),
        }
    return found
