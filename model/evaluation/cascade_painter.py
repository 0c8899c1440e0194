"""A painter whose references are its own maps: what a cascade gives, tile by tile.

Every validation tile is drawn from the map that the painter drew of the tile above it, which it
drew from the one above that, down from a coarsest level that has no reference.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from c2gm.model.data.mosaic import Area, Extent, Picture
from c2gm.model.data.pairs import Sample, Window, has_reference, imagery_of
from c2gm.model.evaluation.metrics import Pictures
from c2gm.model.evaluation.painter import Painter
from c2gm.model.maps.cartography import BACKGROUND
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.pixels import enlarge

Place = tuple[str, int, int, int]
"""Area, level, left and top of a tile in pixels of the level."""


class CascadePainter:
    """Wraps a painter; `spans` in order of preference, `coarsest` the level where it begins.

    A tile whose area has no imagery further up is begun there. Drawn tiles are kept, so that
    siblings share their parent, as in a cascade.
    """

    def __init__(self, painter: Painter, spans: Sequence[int], coarsest: int) -> None:
        self._painter, self._spans, self._coarsest = painter, tuple(spans), coarsest
        self._drawn: dict[Place, Picture] = {}

    def paint(self, samples: Sequence[Sample]) -> Pictures:
        """See `Painter.paint`; the samples' own references play no part."""
        return self._painter.paint([self._guided(sample) for sample in samples])

    def _guided(self, sample: Sample) -> Sample:
        window = sample.window
        span = self._span(window.area, window.level)
        if span is None:
            return replace(sample, reference=None, span=None)
        part = Window(window.area, window.level - span, window.extent.coarser(span))
        reference = np.zeros((part.extent.height, part.extent.width, 4), dtype=np.uint8)
        reference[..., 3] = imagery_of(part, "validation")[..., 3]
        if not reference[..., 3].any():
            return replace(sample, reference=None, span=None)
        tile = _tile_around(part)
        reference[..., :3] = self._tile(tile)[part.extent.within(tile.extent)]
        reference[reference[..., 3] == 0] = (*BACKGROUND, 0)
        return replace(sample, reference=enlarge(reference, span), span=span)

    def _tile(self, window: Window) -> Picture:
        extent = window.extent
        place = (window.area.name, window.level, extent.left, extent.top)
        if place not in self._drawn:
            imagery = imagery_of(window, "validation")
            blank = np.zeros((*imagery.shape[:2], 3), dtype=np.uint8)
            sample = Sample(imagery, blank, None, window.level, None, window, False)
            self._drawn[place] = self._painter.paint([self._guided(sample)])[0]
        return self._drawn[place]

    def _span(self, area: Area, level: int) -> int | None:
        fitting = (s for s in self._spans if level - s >= self._coarsest)
        return next((s for s in fitting if has_reference(area, level, s)), None)


def _tile_around(window: Window) -> Window:
    """The whole tile that a part of one lies in."""
    left = window.extent.left // TILE_SIZE * TILE_SIZE
    top = window.extent.top // TILE_SIZE * TILE_SIZE
    return Window(window.area, window.level, Extent(left, top, TILE_SIZE, TILE_SIZE))
