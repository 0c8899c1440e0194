"""Overlapping windows become one map: their latents are blended before they are painted (pure).

A window with a halo reaches into its neighbours. Each is drawn for itself, from its own imagery,
reference and noise alone; where they overlap, their latents are mixed by weights that fall to 0 at
each window's outer edge, and every window is painted from what all of them say: from its *canvas*,
which reaches further into its neighbours than it does itself, for what a decoder makes of a place
depends on some 60 px around it. So neighbours are painted from the same latents along their border,
and alike. What is drawn of a window still
is a function of scene, seed and place: a run that goes on, or one for a part of the scene, draws a
neighbour's latents again. Neighbours beyond the data take no part.

Latents are mixed, never pictures: two finished pictures on top of each other show ghosts.
"""

from collections.abc import Collection
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from c2gm.runtime.bundle import LATENT_FACTOR
from c2gm.runtime.grid import Window
from c2gm.runtime.work import Work, neighbours

Latents = NDArray[np.float32]
"""(c, size/8, size/8) of a whole window, halo included."""


class Quilt:
    """Keeps latents of drawn windows until all that touch them are painted.

    A window may be painted once it and its neighbours with data are drawn: 8 around it, none
    without a halo.
    """

    def __init__(self, work: Work, blend: bool = True) -> None:
        """`blend`: False leaves windows alone."""
        self._blended = blend
        self._drawn: dict[Window, Latents | None] = {}
        self._missing: dict[Window, int] = {}
        """Windows yet to be drawn before this one may be painted, of those yet to be painted."""
        self._readers: dict[Window, int] = {}
        """Windows yet to be painted that need this one's latents."""
        self._work = work
        for window in work.painted:
            patches = self._patches(window)
            self._missing[window] = len(patches)
            for patch in patches:
                self._readers[patch] = self._readers.get(patch, 0) + 1

    def __len__(self) -> int:
        """Windows whose latents are kept."""
        return len(self._drawn)

    def put(self, window: Window, latents: Latents | None) -> list[Window]:
        """A window is drawn (None: nothing is in it); returns those that may be painted now."""
        self._drawn[window] = latents
        ready: list[Window] = []
        for other in self._patches(window):
            if other in self._missing:
                self._missing[other] -= 1
                if not self._missing[other]:
                    ready.append(other)
        return ready

    def take(self, window: Window) -> Latents | None:
        """Latents of a window's canvas, blended with its neighbours'; None: nothing in it.

        Where no window with data reaches, what is nearest is repeated. Without blending they are
        the window's own. Forgets what nobody needs any more; to be called once a window.
        """
        del self._missing[window]
        own = self._drawn[window]
        patches = self._patches(window)
        blended = own
        if own is not None and self._blends(window):
            blended = self._blend(window, own.shape[0], patches)
        for patch in patches:
            self._readers[patch] -= 1
            if not self._readers[patch]:
                del self._readers[patch], self._drawn[patch]
        return blended

    def _patches(self, window: Window) -> list[Window]:
        """The windows with data that overlap a window, itself included, in a fixed order."""
        if not self._blends(window):
            return [window]
        return [near for near in neighbours(window) if near in self._work.drawn]

    def _blends(self, window: Window) -> bool:
        return self._blended and window.halo > 0

    def _blend(self, window: Window, channels: int, patches: Collection[Window]) -> Latents:
        left, top, size, _ = window.canvas.pixel_box
        cells, weights = size // LATENT_FACTOR, _weights(window.size, window.halo)
        mixed, total = np.zeros((channels, cells, cells), np.float32), np.zeros((cells, cells))
        for patch in patches:
            latents = self._drawn[patch]
            if latents is None:
                continue
            x, y, size, _ = patch.pixel_box
            here_x, there_x = _overlap((x - left) // LATENT_FACTOR, size // LATENT_FACTOR, cells)
            here_y, there_y = _overlap((y - top) // LATENT_FACTOR, size // LATENT_FACTOR, cells)
            weight = weights[there_y, there_x]
            mixed[:, here_y, here_x] += latents[:, there_y, there_x] * weight
            total[here_y, here_x] += weight
        seen = total > 0
        if seen.all():
            return (mixed / total).astype(np.float32)
        return spread((mixed / np.where(seen, total, 1.0)).astype(np.float32), seen)


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


def _overlap(offset: int, size: int, cells: int) -> tuple[slice, slice]:
    """Where a canvas of `cells` and a window of `size` that begins at `offset` overlap, in each."""
    first, last = max(offset, 0), min(offset + size, cells)
    return slice(first, last), slice(first - offset, last - offset)


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
