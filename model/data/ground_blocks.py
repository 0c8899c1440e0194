"""Which held-out tiles share their ground: scores of one place are not independent of each other.

Areas of one kind whose validation grounds overlap are one block: the same map, painted in another
style or at other levels. A folder of tiles names no ground; there a block is a tile of the coarsest
level at hand, with all its descendants.
"""

from collections.abc import Sequence

from c2gm.model.data.mosaic import Area
from c2gm.model.data.pairs import Window
from c2gm.runtime.levels import TILE_SIZE


def ground_blocks(windows: Sequence[Window]) -> list[str]:
    """Names of the blocks that windows lie in, one a window.

    A block of areas is named after the first of them, one of tiles is `AREA Z/X/Y`. Windows of one
    area at all levels are in one block, as coarse tiles hold several pieces of its ground.
    """
    areas = {window.area.name: window.area for window in windows}
    names = _joined([areas[name] for name in sorted(areas)])
    coarsest: dict[str, int] = {}
    for window in windows:
        name = window.area.name
        coarsest[name] = min(window.level, coarsest.get(name, window.level))
    return [
        names[window.area.name] if window.area.validation else _ancestor(window, coarsest)
        for window in windows
    ]


def _joined(areas: Sequence[Area]) -> dict[str, str]:
    """By area, the first of those that it is joined with, directly or through others."""
    groups: list[list[Area]] = []
    for area in areas:
        touching: list[Area] = []
        apart: list[list[Area]] = []
        for group in groups:
            if any(_overlap(area, other) for other in group):
                touching += group
            else:
                apart.append(group)
        groups = [*apart, [*touching, area]]
    return {area.name: min(other.name for other in group) for group in groups for area in group}


def _overlap(one: Area, other: Area) -> bool:
    return one.kind == other.kind and any(
        a.overlaps(b) for a in one.validation for b in other.validation
    )


def _ancestor(window: Window, coarsest: dict[str, int]) -> str:
    level = coarsest[window.area.name]
    corner = window.extent.coarser(window.level - level)
    return f"{window.area.name} {level}/{corner.left // TILE_SIZE}/{corner.top // TILE_SIZE}"
