"""The cascade: which windows wait for which, and what a window's reference picture is (pure).

A window of level z is generated from the map already generated at level z - span. It is ready once
all windows there that its reference shows (several, where it has a halo) are finished. Ready
windows leave finest first: a branch of the pyramid is finished before the next one is begun, so the
pictures that somebody still waits for stay few, however large the run is.
"""

import heapq
from collections.abc import Mapping, Sequence

import numpy as np
from mercantile import Tile

from c2gm.runtime.grid import Cascade as CascadeKind
from c2gm.runtime.grid import Window, reference_level
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.pixels import Picture, enlarge
from c2gm.runtime.work import Work


class Cascade:
    """The bookkeeping of one run: hands out every window once, each after its reference.

    A window is *waiting*, then *ready*, then *taken* (by `take`), then *finished* (by `finish`).
    """

    def __init__(self, work: Work) -> None:
        """All windows that are drawn; those wait for their parents that are painted in this run.

        What a former run has painted, or lies beyond the data, is nobody's to wait for.
        """
        self._work = work
        self._missing: dict[Window, int] = {}
        self._children: dict[Window, list[Window]] = {}
        self._readers: dict[Window, int] = {}
        self._ready: list[tuple[int, int, Window]] = []
        self._unfinished = set(work.drawn)
        self._taken: set[Window] = set()
        for window in work.drawn:
            self._missing[window] = 0
            for parent in work.parents(window):
                self._readers[parent] = self._readers.get(parent, 0) + 1
                if parent in work.painted:
                    self._children.setdefault(parent, []).append(window)
                    self._missing[window] += 1
            if not self._missing[window]:
                self._push(window)

    def __len__(self) -> int:
        """Windows that are not finished."""
        return len(self._unfinished)

    def take(self) -> Window | None:
        """The next ready window: finest level first, then along a Z-curve; None if all wait."""
        if not self._ready:
            return None
        window = heapq.heappop(self._ready)[-1]
        self._taken.add(window)
        return window

    def finish(self, window: Window) -> tuple[Window, ...]:
        """A window is painted, or drawn if it is not to be; returns what became ready by it.

        Raises ValueError for a window that was not taken, or is finished already.
        """
        if window not in self._taken or window not in self._unfinished:
            raise ValueError(f"window {window.key} is not being worked on")
        self._unfinished.remove(window)
        ready: list[Window] = []
        for child in self._children.get(window, ()):
            self._missing[child] -= 1
            if not self._missing[child]:
                ready.append(child)
                self._push(child)
        return tuple(ready)

    def has_readers(self, window: Window) -> bool:
        """Whether a window's picture will be asked for by a reference yet to be made."""
        return self._readers.get(window, 0) > 0

    def release(self, window: Window) -> tuple[Window, ...]:
        """A taken window has its reference; returns the parents that nobody asks for any more."""
        spent: list[Window] = []
        for parent in self._work.parents(window):
            self._readers[parent] -= 1
            if not self._readers[parent]:
                spent.append(parent)
        return tuple(spent)

    def _push(self, window: Window) -> None:
        curve = _interleave(window.column) | _interleave(window.row) << 1
        heapq.heappush(self._ready, (-window.level, curve, window))


def reference_spans(
    levels: Sequence[int], guides: Sequence[int] | None = None, cascade: CascadeKind = "4x"
) -> dict[int, int | None]:
    """Span of each level's reference, None where it has none.

    `guides`: the levels that references are taken from, default all.
    """
    spans: dict[int, int | None] = {}
    for level in levels:
        found = reference_level(level, levels if guides is None else guides, cascade)
        spans[level] = None if found is None else found[1]
    return spans


def reference_tiles(window: Window, span: int) -> list[Tile]:
    """The tiles of level - span that a window's reference shows, row by row, inside the world."""
    left, top, width, height = window.parent_box(span)
    level, end = window.level - span, 1 << (window.level - span)
    return [
        Tile(x, y, level)
        for y in range(max(top // TILE_SIZE, 0), min((top + height - 1) // TILE_SIZE + 1, end))
        for x in range(max(left // TILE_SIZE, 0), min((left + width - 1) // TILE_SIZE + 1, end))
    ]


def reference_picture(window: Window, span: int, tiles: Mapping[Tile, Picture]) -> Picture:
    """A window's reference, RGBA (size, size, 4): cut out of finished tiles and enlarged.

    `tiles`: RGBA (256, 256, 4) of those of `reference_tiles` that exist; where there is none, the
    reference is transparent.
    """
    left, top, width, height = window.parent_box(span)
    source = np.zeros((height, width, 4), dtype=np.uint8)
    for tile in reference_tiles(window, span):
        picture = tiles.get(tile)
        if picture is None:
            continue
        x, y = tile.x * TILE_SIZE - left, tile.y * TILE_SIZE - top
        x0, x1 = max(x, 0), min(x + TILE_SIZE, width)
        y0, y1 = max(y, 0), min(y + TILE_SIZE, height)
        source[y0:y1, x0:x1] = picture[y0 - y : y1 - y, x0 - x : x1 - x]
    return cut_reference(window, span, source)


def cut_reference(window: Window, span: int, source: Picture) -> Picture:
    """Enlarge the pixels of `window.parent_box(span)` and cut them to the window's own pixels."""
    left, top, width, height = window.pixel_box
    parent_left, parent_top, _, _ = window.parent_box(span)
    x, y = left - (parent_left << span), top - (parent_top << span)
    return enlarge(source, span)[y : y + height, x : x + width]


def _interleave(value: int) -> int:
    """The bits of a number, with zeros between them."""
    return int(f"{value:b}", 4)
