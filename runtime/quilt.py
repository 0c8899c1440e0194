"""Overlapping windows become one map: their latents are blended before they are painted (pure).

A window with a halo reaches into its neighbours. Each is drawn for itself, from its own imagery,
reference and noise alone; where they overlap, their latents are mixed by weights that fall to 0 at
each window's outer edge. What all of them say is painted in *canvases* (`grid.Window.canvas`) that
reach far beyond the tiles that are cut out of them, for what a decoder makes of a place depends on
some 60 px around it. So both sides of a border are painted from the same latents, and alike. What
is drawn of a window still is a function of scene, seed and place: a run that goes on, or one for a
part of the scene, draws the latents again that a canvas shows. Windows beyond the data take no
part.

Latents are mixed, never pictures: two finished pictures on top of each other show ghosts.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from c2gm.runtime.contract import LATENT_FACTOR
from c2gm.runtime.grid import Window
from c2gm.runtime.work import Work

Latents = NDArray[np.float32]
"""(c, h/8, w/8) of a window or canvas, halo included."""


@dataclass(frozen=True, slots=True)
class Painting:
    """What is decoded in one piece: the canvas of `windows`, or what of it holds data.

    `latents`: None where nothing is to be painted; `corner`: left and top in level pixels.
    """

    windows: tuple[Window, ...]
    latents: Latents | None
    corner: tuple[int, int]


class Quilt:
    """Keeps latents of drawn windows until all that touch them are painted.

    A canvas may be painted once all windows with data that it shows are drawn.
    """

    def __init__(self, work: Work, blend: bool = True) -> None:
        """`blend`: False leaves windows alone."""
        self._blended = blend
        self._drawn: dict[Window, Latents | None] = {}
        self._work = work
        self._painted: dict[Window, list[Window]] = {}
        """By canvas the windows to be painted on it."""
        self._missing: dict[Window, int] = {}
        """Windows yet to be drawn before a canvas may be painted, of those yet to be painted."""
        self._readers: dict[Window, list[Window]] = {}
        """Canvases yet to be painted that a window's latents are needed for."""
        for window in sorted(work.painted):
            canvas = window.canvas if blend else window
            self._painted.setdefault(canvas, []).append(window)
        for canvas, windows in self._painted.items():
            patches = self._patches(canvas, windows[0])
            self._missing[canvas] = len(patches)
            for patch in patches:
                self._readers.setdefault(patch, []).append(canvas)

    def __len__(self) -> int:
        """Windows whose latents are kept."""
        return len(self._drawn)

    def put(self, window: Window, latents: Latents | None) -> list[Painting]:
        """A window is drawn (None: nothing is in it); returns what may be painted now."""
        self._drawn[window] = latents
        ready: list[Window] = []
        for canvas in self._readers[window]:
            self._missing[canvas] -= 1
            if not self._missing[canvas]:
                ready.append(canvas)
        return [self._take(canvas) for canvas in ready]

    def _take(self, canvas: Window) -> Painting:
        """Blend a canvas, and forget what nobody needs any more."""
        windows = tuple(self._painted.pop(canvas))
        patches = self._patches(canvas, windows[0])
        if self._alone(canvas):
            painting = Painting(windows, self._drawn[canvas], canvas.pixel_box[:2])
        else:
            painting = self._blend(canvas, windows, patches)
        del self._missing[canvas]
        for patch in patches:
            self._readers[patch].remove(canvas)
            if not self._readers[patch]:
                del self._readers[patch], self._drawn[patch]
        return painting

    def _patches(self, canvas: Window, window: Window) -> list[Window]:
        """The windows with data that a canvas shows, in a fixed order; `window` is one of them."""
        if self._alone(canvas):
            return [window]
        shown = canvas.overlapping(window.side, window.halo)
        return [patch for patch in shown if patch in self._work.drawn]

    def _alone(self, canvas: Window) -> bool:
        return not self._blended or not canvas.halo

    def _blend(
        self, canvas: Window, windows: tuple[Window, ...], patches: Collection[Window]
    ) -> Painting:
        """Where no window with data reaches, what is nearest is repeated."""
        drawn = {patch: found for patch in patches if (found := self._drawn[patch]) is not None}
        # All that lie on the canvas count, to be painted or not: a part is painted as the whole is.
        own = [patch for patch in drawn if patch.canvas == canvas]
        if not any(window in drawn for window in windows):
            return Painting(windows, None, canvas.pixel_box[:2])
        boxes = [replace(patch, halo=canvas.halo).pixel_box for patch in own]
        left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
        width = max(box[0] + box[2] for box in boxes) - left
        height = max(box[1] + box[3] for box in boxes) - top
        shape = height // LATENT_FACTOR, width // LATENT_FACTOR
        channels = drawn[own[0]].shape[0]
        mixed, total = np.zeros((channels, *shape), np.float32), np.zeros(shape)
        for patch, latents in drawn.items():
            x, y, size, _ = patch.pixel_box
            here_x, there_x = _overlap(x - left, size, width)
            here_y, there_y = _overlap(y - top, size, height)
            weight = _weights(size, patch.halo)[there_y, there_x]
            mixed[:, here_y, here_x] += latents[:, there_y, there_x] * weight
            total[here_y, here_x] += weight
        seen = total > 0
        mixed = (mixed / np.where(seen, total, 1.0)).astype(np.float32)
        return Painting(windows, mixed if seen.all() else spread(mixed, seen), (left, top))


def spread(values: Latents, seen: NDArray[np.bool_]) -> Latents:
    """(c, h, w) with what is unseen, of (h, w), taken from the nearest seen cell.

    The nearest in its row, left of right; in the nearest row, upper before lower, where its own has
    none.
    """
    y = _nearest(np.any(seen, axis=1, keepdims=True)[:, 0])
    x = np.array([_nearest(line) for line in seen[y]])
    return values[:, y[:, np.newaxis], x]


def _nearest(seen: NDArray[np.bool_]) -> NDArray[np.intp]:
    """For every place of a line the nearest that is seen, the first of two."""
    known = np.flatnonzero(seen)
    nearest: NDArray[np.intp] = known[
        np.abs(np.arange(len(seen))[:, np.newaxis] - known).argmin(axis=1)
    ]
    return nearest


def _overlap(offset: int, size: int, whole: int) -> tuple[slice, slice]:
    """Cells where a canvas of `whole` px and a window of `size` at `offset` overlap, in each."""
    first, last = max(offset, 0), max(min(offset + size, whole), 0)
    here = slice(first // LATENT_FACTOR, max(first, last) // LATENT_FACTOR)
    shift = offset // LATENT_FACTOR
    return here, slice(here.start - shift, here.stop - shift)


@lru_cache(maxsize=8)
def _weights(size: int, halo: int) -> NDArray[np.float32]:
    """Of a window's cells, for pixels: 1 inside, falling to 0 over the overlap at each side.

    Those of two neighbours add up to 1, so that a picture they agree on stays as it is.
    """
    cells = size // LATENT_FACTOR
    place = np.arange(cells) + 0.5
    depth = np.minimum(place, cells - place) * LATENT_FACTOR / (2 * halo)
    depth = np.clip(depth, 0.0, 1.0)
    line = depth**2 * (3 - 2 * depth)
    return np.outer(line, line).astype(np.float32)
