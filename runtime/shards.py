"""A part of a run for one of several machines: which windows it writes (pure).

The canvases of all levels (`grid.Window.canvas`; windows, where they are not blended) are dealt by
recursive coordinate bisection: cut in two across the longer side of where they lie, and each half
again, so that every shard has as many windows as the others, give or take a canvas or two, in a
compact piece of the map. Compact pieces draw the least around themselves: a third less than pieces
of a Z-curve do (docs/cluster.md). A canvas of a coarse level goes with what lies under its middle.
A first level alone could not be dealt: it often is a single tile.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from c2gm.runtime.errors import OptionError
from c2gm.runtime.footprint import Footprint
from c2gm.runtime.grid import Plan, window_keys

MAX_SHARDS = 10_000
"""More are a typing error."""


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """Part `index` of `count`; parts are counted from 1. Raises OptionError for what is none."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count <= MAX_SHARDS:
            raise OptionError(
                f"shard {self} does not exist, expected 1/N to N/N, with N up to {MAX_SHARDS:,}"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def file_name(self, stem: str) -> str:
        """Name of its file beside that of the whole map: `town.2-of-4.mbtiles`."""
        return f"{stem}.{self.index}-of-{self.count}.mbtiles"


def parse_shard(text: str) -> Shard:
    """`2/4` -> the second of four. Raises OptionError."""
    match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text, re.ASCII)
    if match is None:
        raise OptionError(f"--shard is {text!r}, expected I/N as in 2/4, the second of four")
    return Shard(int(match[1]), int(match[2]))


def shard_of(planned: Plan, shard: Shard, footprints: Sequence[Footprint]) -> Plan:
    """A shard's part of a plan: disjoint from the others, with which it is the whole plan.

    Levels and bounds stay those of the whole; a shard of more than there are canvases is empty.
    `footprints`: where the scene has data, inside the plan's area and beyond.
    """
    levels, keys, windows, x, y = _canvases(planned)
    total, chosen = int(windows.sum()), np.arange(len(keys))
    first, end = 0, shard.count  # the shards that what is chosen is dealt to
    before = 0  # windows that the shards before them have
    while end - first > 1 and len(chosen):
        middle = (first + end) // 2
        along, across = x[chosen], y[chosen]
        if np.ptp(along) < np.ptp(across):
            along, across = across, along
        chosen = chosen[np.lexsort((levels[chosen], across, along))]
        dealt = before + np.cumsum(windows[chosen])
        cut = int(np.searchsorted(dealt, total * middle // shard.count, side="right"))
        if shard.index <= middle:
            chosen, end = chosen[:cut], middle
        else:
            before = int(dealt[cut - 1]) if cut else before
            chosen, first = chosen[cut:], middle
    part: dict[int, NDArray[np.int64]] = {}
    for level, tiles in planned.keys.items():
        own = keys[chosen[levels[chosen] == level]]
        part[level] = tiles[np.isin(window_keys(tiles, planned.canvas_side), own)]
    return replace(planned, keys=part, beyond=tuple(footprints))


def _canvases(planned: Plan) -> NDArray[np.int64]:
    """Rows of level, key, windows, x and y of the middle of every canvas, (5, n).

    Middles are in half canvases of the finest level.
    """
    finest = planned.levels[-1]
    found: list[NDArray[np.int64]] = []
    for level in planned.levels:
        tiles, finer = planned.keys[level], finest - level
        # A tile of every window stands for it.
        _, first = np.unique(window_keys(tiles, planned.side), return_index=True)
        canvases = window_keys(tiles[first], planned.canvas_side)
        keys, windows = np.unique(canvases, return_counts=True)
        columns, rows = keys & 0xFFFFFFFF, keys >> 32
        middles = (2 * columns + 1) << finer, (2 * rows + 1) << finer
        found.append(np.stack([np.full_like(keys, level), keys, windows, *middles]))
    return np.concatenate(found, axis=1)
