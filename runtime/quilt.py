"""Overlapping windows become one map: their latents are blended before they are painted (pure).

A window with a halo reaches into its neighbours. Each is drawn for itself, from its own imagery,
reference and noise alone; where they overlap, their latents are mixed by weights that fall to 0 at
each window's outer edge, and every window is painted from what all of them say, its halo included.
So neighbours are painted from the same latents along their border. What is drawn of a window still
is a function of scene, seed and place: a run that goes on draws a neighbour's latents again.
Neighbours outside the plan (beyond the data or the area asked for) take no part.

Latents are mixed, never pictures: two finished pictures on top of each other show ghosts.
"""

from collections.abc import Collection, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from c2gm.runtime.bundle import LATENT_FACTOR
from c2gm.runtime.grid import Plan, Window

Latents = NDArray[np.float32]
"""(c, size/8, size/8) of a whole window, halo included."""


class Quilt:
    """Keeps latents of drawn windows until all that touch them are painted.

    A window may be painted once it and its planned neighbours are drawn: 8 around it, none without
    a halo.
    """

    def __init__(self, plan: Plan, done: Collection[Window] = (), blend: bool = True) -> None:
        """`done`: windows that a former run has painted; `blend`: False leaves windows alone."""
        self._halo = plan.halo // LATENT_FACTOR if blend else 0
        self._drawn: dict[Window, Latents | None] = {}
        self._missing: dict[Window, int] = {}
        """Windows yet to be drawn before this one may be painted, of those yet to be painted."""
        self._readers: dict[Window, int] = {}
        """Windows yet to be painted that need this one's latents."""
        self._planned = {window for level in plan.levels for window in plan.windows(level)}
        for window in self._planned - set(done):
            patches = self._patches(window)
            self._missing[window] = len(patches)
            for patch in patches:
                self._readers[patch] = self._readers.get(patch, 0) + 1

    def __len__(self) -> int:
        """Windows whose latents are kept."""
        return len(self._drawn)

    def wants(self, window: Window) -> bool:
        """Whether a window is still to be drawn: for itself, or for neighbours not painted yet."""
        return self._readers.get(window, 0) > 0 and window not in self._drawn

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
        """The planned windows that overlap a window, itself included, in a fixed order."""
        if not self._halo:
            return [window]
        return [near for near in _square(window) if near in self._planned]

    def _blend(self, window: Window, own: Latents, patches: Collection[Window]) -> Latents:
        if len(patches) == 1:
            return own
        cells, step = own.shape[1], own.shape[1] - 2 * self._halo
        weights = _weights(cells, self._halo)
        mixed, total = np.zeros(own.shape, np.float32), np.zeros((cells, cells), np.float32)
        for patch in patches:
            latents = self._drawn[patch]
            if latents is None:
                continue
            down, across = (
                (patch.row - window.row) * step,
                (patch.column - window.column) * step,
            )
            (here_y, there_y), (here_x, there_x) = _overlap(down, cells), _overlap(across, cells)
            weight = weights[there_y, there_x]
            mixed[:, here_y, here_x] += latents[:, there_y, there_x] * weight
            total[here_y, here_x] += weight
        return mixed / total


def _square(window: Window) -> Iterator[Window]:
    for row in (window.row - 1, window.row, window.row + 1):
        for column in (window.column - 1, window.column, window.column + 1):
            yield Window(window.level, column, row, window.side, window.halo)


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
