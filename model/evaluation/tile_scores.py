"""Scores tile by tile, as reports hold them: what means, class scores and intervals are made of.

In a report, under `tile_scores`:

    tile       names of what a row of `tiles` says: level, x, y, kind, area, block, all, detailed
    means      names of scores whose mean over tiles counts
    ratios     names of scores that are one sum of pixels over another
    tiles      a row for every tile
    scores     by painter (enlarged_reference, or the condition that the model painted under) a row
               for every tile, null where none was painted: `means`, then two counts a ratio
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2gm.model.data.ground_blocks import ground_blocks
from c2gm.model.data.pairs import Sample
from c2gm.model.evaluation.scores import Indices, Scores
from c2gm.runtime.errors import DataError
from c2gm.runtime.levels import TILE_SIZE

Parts = NDArray[np.float64]
"""(n, 2): numerator and denominator of a score, tile by tile; a set's score is sum over sum."""

_TILE = ("level", "x", "y", "kind", "area", "block", "all", "detailed")
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class ScoredTile:
    """A tile of a report: where it lies, and which of the sets `all` and `detailed` it is in.

    `block`: tiles of one name share their ground (ground_blocks.py).
    """

    level: int
    x: int
    y: int
    kind: str
    area: str
    block: str
    all: bool
    detailed: bool


@dataclass(frozen=True, slots=True)
class TileScores:
    """`tiles`; by painter, which of them it `painted` (n); by painter and name of a score, its
    `parts` (n, 2), NaN where none was painted."""

    tiles: tuple[ScoredTile, ...]
    painted: Mapping[str, NDArray[np.bool_]]
    parts: Mapping[str, Mapping[str, Parts]]

    @classmethod
    def of_report(cls, report: Mapping[str, Any]) -> "TileScores":
        """Read a report of c2gm-eval. Raises DataError if it has no scores by tile."""
        if "tile_scores" not in report:
            raise DataError(
                "the report has no scores tile by tile, which differences and their intervals are "
                "made of; write it again with this version's c2gm-eval --output (a peer's with "
                "c2gm.benchmarks.pix2pix evaluate --output)"
            )
        content = report["tile_scores"]
        if tuple(content["tile"]) != _TILE:
            raise DataError(f"the report's tiles say {content['tile']}, expected {list(_TILE)}")
        tiles = tuple(ScoredTile(*row[:-2], *map(bool, row[-2:])) for row in content["tiles"])
        means, ratios = content["means"], content["ratios"]
        painted, parts = {}, {}
        for painter, rows in content["scores"].items():
            painted[painter] = np.array([row is not None for row in rows])
            nothing = [None] * (len(means) + 2 * len(ratios))
            values = np.array([row or nothing for row in rows], dtype=np.float64)
            counts = values[:, len(means) :].reshape(len(rows), len(ratios), 2)
            parts[painter] = {
                **{name: _mean_parts(values[:, i]) for i, name in enumerate(means)},
                **{name: counts[:, i] for i, name in enumerate(ratios)},
            }
        return cls(tiles, painted, parts)


def tile_scores(
    samples: Sequence[Sample], sets: Mapping[str, Indices], scores: Mapping[str, Scores]
) -> dict[str, Any]:
    """What a report says of its tiles, ready for JSON; `scores` by painter."""
    blocks = ground_blocks([sample.window for sample in samples])
    members = {name: set(tiles.tolist()) for name, tiles in sets.items()}
    tiles = []
    for i, (sample, block) in enumerate(zip(samples, blocks, strict=True)):
        area, extent = sample.window.area, sample.window.extent
        place = (sample.level, extent.left // TILE_SIZE, extent.top // TILE_SIZE)
        flags = [int(i in members[name]) for name in ("all", "detailed")]
        tiles.append([*place, area.kind, area.name, block, *flags])
    named = max(scores.values(), key=lambda found: len(found.means))  # none, where none was painted
    return {
        "tile": list(_TILE),
        "means": named.means,
        "ratios": named.ratios,
        "tiles": tiles,
        "scores": {
            painter: [
                None if row is None else [_short(value) for value in row]
                for row in map(found.tile, range(len(samples)))
            ]
            for painter, found in scores.items()
        },
    }


def _mean_parts(values: NDArray[np.float64]) -> Parts:
    ones = np.where(np.isnan(values), np.nan, 1.0)
    return np.stack([values, ones], axis=1)


def _short(value: float) -> float:
    return value if isinstance(value, int) else round(value, _DIGITS)
