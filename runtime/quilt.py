"""Overlapping windows become one map: their latents are blended before they are painted (pure).

A window with a halo reaches into its neighbours. Each is drawn for itself, from its own imagery,
reference and noise alone; where they overlap, their latents are mixed by weights that fall to 0 at
each window's outer edge, and every window is painted from what all of them say, its halo included.
So neighbours are painted from the same latents along their border. What is drawn of a window still
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
        """A window's latents, blended with its neighbours', to be painted; None: nothing in it.

        Forgets what nobody needs any more; to be called once a window.
        """
        del self._missing[window]
        own = self._drawn[window]
        patches = self._patches(window)
        blended = None if own is None else self._blend(window, own, patches)
        for patch in patches:
            self._readers[patch] -= 1
            if not self._readers[patch]:
                del self._readers[patch], self._drawn[patch]
        return blended

    def _patches(self, window: Window) -> list[Window]:
        """The windows with data that overlap a window, itself included, in a fixed order."""
        if not self._blended or not window.halo:
            return [window]
        return [near for near in neighbours(window) if near in self._work.drawn]

    def _blend(self, window: Window, own: Latents, patches: Collection[Window]) -> Latents:
        drawn = [(p, latents) for p in patches if (latents := self._drawn[p]) is not None]
        if len(drawn) == 1:
            return own
        cells, halo = own.shape[1], window.halo // LATENT_FACTOR
        step, weights = cells - 2 * halo, _weights(cells, halo)
        mixed, total = np.zeros(own.shape, np.float32), np.zeros((cells, cells), np.float32)
        for patch, latents in drawn:
            down = (patch.row - window.row) * step
            across = (patch.column - window.column) * step
            (here_y, there_y), (here_x, there_x) = _overlap(down, cells), _overlap(across, cells)
            weight = weights[there_y, there_x]
            mixed[:, here_y, here_x] += latents[:, there_y, there_x] * weight
            total[here_y, here_x] += weight
        return mixed / total


def _overlap(offset: int, cells: int) -> tuple[slice, slice]:
    """Where a window and another, `offset` cells further on, overlap: in the one, in the other."""
    if offset >= 0:
        return slice(offset, cells), slice(0, cells - offset)
    return slice(0, cells + offset), slice(-offset, cells)


@lru_cache(maxsize=8)
def _weights(cells: int, halo: int) -> NDArray[np.float32]:
    """Of a window's cells (cells, cells): 1 inside, falling to 0 over the overlap at each side.

    Those of two neighbours add up to 1, so that a picture they agree on stays as it is.
    """
    place = np.arange(cells) + 0.5
    depth = np.clip(np.minimum(place, cells - place) / (2 * halo), 0.0, 1.0)
    line = depth**2 * (3 - 2 * depth)
    return np.outer(line, line).astype(np.float32)
