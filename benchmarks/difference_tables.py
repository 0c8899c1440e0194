"""Tables of differences on the same held-out tiles with detail, each with its 95 % interval."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from c2gm.benchmarks.rows import markdown
from c2gm.model.evaluation.intervals import Difference, paired_difference
from c2gm.model.evaluation.tile_scores import TileScores
from c2gm.runtime.errors import DataError

BASELINE = "enlarged_reference"
BOTH = ("with_reference", "without_reference")
"""The conditions under which a peer is compared."""

KINDS = {"real": "real imagery", None: "all imagery"}
BY_LEVEL = {
    "psnr_y": ("PSNR-Y ↑", "+.2f"),
    "ssim_y": ("SSIM-Y ↑", "+.3f"),
    "lpips": ("LPIPS ↓", "+.3f"),
    "iou_building": ("building IoU ↑", "+.2f"),
    "iou_road": ("road IoU ↑", "+.2f"),
}
OVER_LEVELS = {
    "iou_wood": ("wood IoU ↑", "+.2f"),
    "iou_water": ("water IoU ↑", "+.2f"),
    "iou_built_up": ("built-up IoU ↑", "+.2f"),
    "road_completeness": ("roads found ↑", "+.2f"),
    "road_correctness": ("roads right ↑", "+.2f"),
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`scores` of `painter` less `other_scores` of `other_painter`, which are of the same tiles."""

    title: str
    scores: TileScores
    painter: str
    other_scores: TileScores
    other_painter: str

    def tiles(self, kind: str | None, level: int | None = None) -> list[int]:
        """Indices of the detailed tiles that both painted, of a kind and level or of all."""
        both = self.scores.painted[self.painter] & self.other_scores.painted[self.other_painter]
        return [
            i
            for i, tile in enumerate(self.scores.tiles)
            if both[i]
            and tile.detailed
            and kind in (None, tile.kind)
            and level in (None, tile.level)
        ]

    def difference(self, name: str, tiles: Sequence[int]) -> Difference | None:
        """Of one score over some tiles; None if a side has none."""
        one = self.scores.parts[self.painter].get(name)
        other = self.other_scores.parts[self.other_painter].get(name)
        if one is None or other is None:
            return None
        chosen = [self.scores.tiles[i] for i in tiles]
        blocks, kinds = [t.block for t in chosen], [t.kind for t in chosen]
        return paired_difference(one[tiles], other[tiles], blocks, kinds)


def against_reference(ours: TileScores) -> list[Comparison]:
    """The model from true references, less these enlarged."""
    title = "Model less enlarged reference, drawn from that reference"
    return [Comparison(title, ours, "with_reference", ours, BASELINE)]


def against_peer(ours: TileScores, peer: TileScores) -> list[Comparison]:
    """The model less a peer, with references and without. Raises DataError if tiles differ."""
    _check_same_tiles(ours, peer)
    return [
        Comparison(f"Model less peer, {name.replace('_', ' ')}", ours, name, peer, name)
        for name in BOTH
    ]


def difference_tables(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """By comparison and kind of imagery a table of levels; last, the other scores of all levels."""
    tables = []
    for comparison in comparisons:
        for kind, imagery in KINDS.items():
            head = ["level", "tiles (blocks)", *(title for title, _ in BY_LEVEL.values())]
            rows = list(_level_rows(comparison, kind))
            tables.append([f"{comparison.title}, {imagery}:", "", *markdown(head, rows)])
    head = ["all levels", "tiles (blocks)", *(title for title, _ in OVER_LEVELS.values())]
    rows = [
        [f"{comparison.title}, {imagery}", *_cells(comparison, comparison.tiles(kind), OVER_LEVELS)]
        for comparison in comparisons
        for kind, imagery in KINDS.items()
    ]
    return [*tables, ["The other classes, all levels together:", "", *markdown(head, rows)]]


def _level_rows(comparison: Comparison, kind: str | None) -> Iterator[list[str]]:
    tiles = comparison.tiles(kind)
    for level in sorted({comparison.scores.tiles[i].level for i in tiles}):
        yield [str(level), *_cells(comparison, comparison.tiles(kind, level), BY_LEVEL)]
    yield ["all", *_cells(comparison, tiles, BY_LEVEL)]


def _cells(
    comparison: Comparison, tiles: Sequence[int], columns: dict[str, tuple[str, str]]
) -> list[str]:
    blocks = {comparison.scores.tiles[i].block for i in tiles}
    cells = [_text(comparison.difference(name, tiles), form) for name, (_, form) in columns.items()]
    return [f"{len(tiles)} ({len(blocks)})", *cells]


def _text(difference: Difference | None, form: str) -> str:
    """The value, and its interval where there is one; bold where that leaves zero out."""
    if difference is None:
        return "-"
    value, low, high = difference.value, difference.low, difference.high
    if low is None or high is None:
        return format(value, form)
    text = f"{value:{form}} [{low:{form}}, {high:{form}}]"
    return f"**{text}**" if difference.sure else text


def _check_same_tiles(ours: TileScores, peer: TileScores) -> None:
    if ours.tiles != peer.tiles:
        shared = len(set(ours.tiles) & set(peer.tiles))
        raise DataError(
            f"the reports are of different tiles ({len(ours.tiles)} and {len(peer.tiles)}, "
            f"{shared} in both); make them from one dataset with the same --per-level"
        )
    for name, parts in ours.parts[BASELINE].items():
        theirs = peer.parts[BASELINE].get(name, np.empty((0, 2)))
        if theirs.shape != parts.shape or not np.allclose(parts, theirs, 1e-3, 1e-3, True):
            raise DataError(
                f"the reports' enlarged references differ in {name}; make them from one dataset "
                "with the same --spans and the same --lpips-weights"
            )
