"""Does a level agree with the one that it was drawn from? What was kept of it, what is new.

A tile's classes are read by their colours and compared, on the pixels of the coarser level, with
the part of the coarser map over it. A finer level shows things that the coarser one leaves out, so
"new" is not wrong by itself; what is not kept is a map that contradicts itself.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from mercantile import Tile
from numpy.typing import NDArray

from c2gm.model.evaluation.class_scores import near
from c2gm.model.evaluation.result_map import ResultMap
from c2gm.model.maps.classes import CLASSES, read_classes
from c2gm.runtime.grid import reference_level
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.pixels import Picture

TOLERANCE_PX = 2
"""Of the coarser level: lines are drawn wider there than they are."""

Counts = NDArray[np.int64]
"""(4,): coarse pixels of a class, and of them the kept ones; fine ones, and of them the known."""


def measure_consistency(result: ResultMap, levels: Iterable[int]) -> dict[tuple[int, int], Counts]:
    """Counts (classes, 4) by (level, reference level), classes in the order of CLASSES."""
    chosen = sorted(levels)
    totals: dict[tuple[int, int], Counts] = defaultdict(
        lambda: np.zeros((len(CLASSES), 4), np.int64)
    )
    for level in chosen:
        found = reference_level(level, set(chosen).intersection(result.guides), result.cascade)
        if found is None:
            continue
        coarse, span = found
        parents: dict[Tile, Picture | None] = {}
        for tile, picture in result.tiles(level):
            parent = Tile(tile.x >> span, tile.y >> span, coarse)
            if parent not in parents:
                parents = {t: p for t, p in parents.items() if t.y == parent.y}
                parents[parent] = result.tile(parent)
            reference = parents[parent]
            if reference is not None:
                side = TILE_SIZE >> span
                y, x = (side * (v & ((1 << span) - 1)) for v in (tile.y, tile.x))
                totals[level, coarse] += agreement(
                    picture, reference[y : y + side, x : x + side], span
                )
    return dict(totals)


def agreement(picture: Picture, reference: Picture, span: int) -> Counts:
    """Counts of one tile, RGBA (256, 256, 4), against its part of the coarser map."""
    factor = 1 << span
    side = reference.shape[0]
    valid = (picture[..., 3] > 0).reshape(side, factor, side, factor).all(axis=(1, 3))
    valid &= reference[..., 3] > 0
    fine = read_classes(picture[None, ..., :3])[0].reshape(side, factor, side, factor)
    coarse = read_classes(reference[None, ..., :3])[0]
    counts = np.zeros((len(CLASSES), 4), np.int64)
    for number, name in enumerate(CLASSES, start=1):
        share = (fine == number).mean(axis=(1, 3))
        # A line is there where any of it is; an area where it has most of the pixel.
        here = (share > 0 if name in ("road", "building") else share > 0.5) & valid
        there = (coarse == number) & valid
        counts[number - 1] = (
            there.sum(),
            (there & near(here[None], TOLERANCE_PX)[0]).sum(),
            here.sum(),
            (here & near(there[None], TOLERANCE_PX)[0]).sum(),
        )
    return counts


def shares(counts: Counts) -> Mapping[str, Mapping[str, float | None]]:
    """By class: the share of the coarser map that is `kept`, and of the finer one that is `new`."""
    return {
        name: {
            "kept": float(kept / coarse) if coarse else None,
            "new": float(1 - known / fine) if fine else None,
        }
        for name, (coarse, kept, fine, known) in zip(CLASSES, counts, strict=True)
    }
