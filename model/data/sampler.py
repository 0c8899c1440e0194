"""Drawing training windows: even over levels, half of them where the map has much to say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from c2gm.model.data.augment import fill_gaps, random_footprint, turn, vary_imagery
from c2gm.model.data.mosaic import CELL, GROUND_LEVEL, Area, Extent, open_areas
from c2gm.model.data.pairs import Sample, Split, Window, cut, has_reference, imagery_of
from c2gm.model.data.recolour import recolour
from c2gm.runtime.errors import DataError
from c2gm.runtime.levels import SPANS, TILE_SIZE

ALIGNMENT = 1 << max(SPANS)
"""Windows begin at multiples of this, so that references are exact crops of coarser maps."""

_COARSE = 14  # below this level small valid patches in large empty windows are normal
_SMALLEST_SHARE = {True: 0.01, False: 0.3}  # of valid pixels, by level < _COARSE
_KIND_SHARES = {
    True: {"real": 0.2, "dubai": 0.0, "painted": 0.8},
    False: {"real": 0.55, "dubai": 0.08, "painted": 0.37},
}
_TRIES = 6


@dataclass(frozen=True)
class SamplerOptions:
    """How windows are drawn. `sides` in pixels with `side_weights`, one side per batch.

    `kinds`: only areas of these kinds, all if empty. `level_weights`: how often each level is
    drawn; a level that is not named weighs 1. Of all samples `no_reference_share` get no reference;
    of the others the first of `spans` gets `first_span_share`. Of the references `generated_share`
    are the model's own maps, where an area has some, and of the rest `degraded_share` are spoilt as
    generation spoils them (stage 2).
    """

    spans: tuple[int, ...] = SPANS
    no_reference_share: float = 0.2
    first_span_share: float = 0.75
    sides: tuple[int, ...] = (128, 192, 256, 320)
    side_weights: tuple[float, ...] = (0.3, 0.2, 0.4, 0.1)
    level_weights: Mapping[int, float] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    augment: bool = True
    degraded_share: float = 0.0
    generated_share: float = 0.0


def draw_span(spans: Sequence[int], options: SamplerOptions, rng: Generator) -> int | None:
    """One of the spans that a window can have, preferred first, or None for no reference."""
    if not spans or rng.random() < options.no_reference_share:
        return None
    return spans[0] if rng.random() < options.first_span_share else spans[-1]


def level_shares(levels: Sequence[int], options: SamplerOptions) -> NDArray[np.float64]:
    """Probability of each of `levels`, which add up to 1."""
    return _normalised([options.level_weights.get(level, 1.0) for level in levels])


def augmented(sample: Sample, rng: Generator) -> Sample:
    """The sample turned, with its imagery varied; rarely with gaps that claim to be imagery."""
    symmetry = int(rng.integers(8))
    imagery, reference = vary_imagery(sample.imagery, rng), sample.reference
    if rng.random() < 0.04:
        fill_gaps(imagery, int(rng.choice((0, 255))))
        if reference is not None:
            reference[..., 3] = 255
    return replace(
        sample,
        imagery=turn(imagery, symmetry),
        target=turn(sample.target, symmetry),
        reference=None if reference is None else turn(reference, symmetry),
    )


class _Pool:
    """The cells of one area and level, with two ways of drawing one."""

    def __init__(self, area: Area, level: int, split: Split) -> None:
        self.area, self.level = area, level
        cells = area.cells(level)
        held_out = held_out_share(area, level, cells.valid.shape)
        usable = cells.valid * (held_out if split == "validation" else 1.0 - held_out)
        self.pixels = float(usable.sum()) * CELL * CELL
        usable = usable * (1.0 - 0.9 * np.minimum(1.0, 1.5 * cells.doubtful))
        self._columns = int(usable.shape[1])
        self._uniform = np.cumsum(usable.ravel())
        self._detail = np.cumsum((usable * (0.02 + cells.detail)).ravel())

    def draw_cell(self, rng: Generator) -> tuple[int, int]:
        """Row and column of a cell: half of them by detail, half anywhere on valid ground."""
        table = self._detail if rng.random() < 0.5 else self._uniform
        index = int(np.searchsorted(table, rng.random() * table[-1], side="right"))
        row, column = divmod(min(index, len(table) - 1), self._columns)
        return row, column


class TileSampler:
    """Draws samples; the same (seed, index) always gives the same sample.

    Raises DataError if the dataset has no usable ground for the split.
    """

    def __init__(
        self,
        dataset: Path | str,
        split: Split = "train",
        spans: tuple[int, ...] = SPANS,
        seed: int = 0,
        options: SamplerOptions | None = None,
    ) -> None:
        self.options = options or SamplerOptions(spans=spans)
        self.split: Split = split
        self.seed = seed
        kinds = self.options.kinds
        self.areas = [a for a in open_areas(Path(dataset)) if not kinds or a.kind in kinds]
        self._pools: dict[int, list[_Pool]] = {}
        for area in self.areas:
            for level in area.targets:
                pool = _Pool(area, level, split)
                if pool.pixels > 0:
                    self._pools.setdefault(level, []).append(pool)
        self.levels = sorted(z for z in self._pools if self.options.level_weights.get(z, 1.0) > 0)
        if not self.levels:
            raise DataError(f"no ground for {split} in {dataset}; build more areas")
        self._level_shares = level_shares(self.levels, self.options)
        self._area_shares = {z: _area_shares(self._pools[z], z) for z in self.levels}

    def sample(self, index: int, side: int = TILE_SIZE, row: int = 0) -> Sample:
        """Sample number (index, row), `side` x `side` pixels."""
        rng = np.random.default_rng([self.seed, self.split == "train", index, row])
        level = int(rng.choice(self.levels, p=self._level_shares))
        best: tuple[float, Window] | None = None
        for _ in range(_TRIES):
            window = self._draw_window(level, side, rng)
            imagery = imagery_of(window, self.split)
            share = float((imagery[..., 3] > 0).mean())
            if best is None or share > best[0]:
                best = share, window
            if share >= _SMALLEST_SHARE[level < _COARSE]:
                break
        assert best is not None
        return self._finish(best[1], rng)

    def batch(self, index: int, size: int) -> list[Sample]:
        """Batch number `index`: samples of one side, `size` of 256 px or as many pixels of others.

        Small windows show a batch more places, large ones more of each.
        """
        rng = np.random.default_rng([self.seed, self.split == "train", index])
        side = int(rng.choice(self.options.sides, p=_normalised(self.options.side_weights)))
        count = max(1, round(size * (TILE_SIZE / side) ** 2))
        return [self.sample(index, side, row) for row in range(count)]

    def _draw_window(self, level: int, side: int, rng: Generator) -> Window:
        pools = self._pools[level]
        pool = pools[int(rng.choice(len(pools), p=self._area_shares[level]))]
        row, column = pool.draw_cell(rng)
        extent = pool.area.levels[level]
        reach = rng.integers(0, side - CELL + 1, 2)
        left = extent.left + column * CELL - int(reach[0])
        top = extent.top + row * CELL - int(reach[1])
        if level >= _COARSE and rng.random() < 0.85:
            left = _keep_inside(left, side, extent.left, extent.width)
            top = _keep_inside(top, side, extent.top, extent.height)
        left, top = left // ALIGNMENT * ALIGNMENT, top // ALIGNMENT * ALIGNMENT
        return Window(pool.area, level, Extent(left, top, side, side))

    def _finish(self, window: Window, rng: Generator) -> Sample:
        span = self._draw_span(window, rng)
        footprint = None
        if self.options.augment and rng.random() < (0.35 if window.level < _COARSE else 0.1):
            valid = imagery_of(window, self.split)[..., 3] > 0
            footprint = random_footprint(valid, rng)
        degrade = rng if rng.random() < self.options.degraded_share else None
        generated = rng.random() < self.options.generated_share
        sample = cut(window, span, self.split, footprint, degrade, generated)
        if not self.options.augment:
            return sample
        imagery = recolour(sample.imagery, sample.target, rng)
        return augmented(replace(sample, imagery=imagery), rng)

    def _draw_span(self, window: Window, rng: Generator) -> int | None:
        spans = [s for s in self.options.spans if has_reference(window.area, window.level, s)]
        return draw_span(spans, self.options, rng)


def _keep_inside(start: int, side: int, low: int, size: int) -> int:
    return start if size < side else min(max(start, low), low + size - side)


def held_out_share(area: Area, level: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Share of each cell that is validation ground, float32 (rows, columns)."""
    extent = area.levels[level]
    share = np.zeros(shape, dtype=np.float32)
    for ground in area.validation:
        rows, columns = ground.finer(level - GROUND_LEVEL).within(extent)
        share += np.outer(_coverage(rows, shape[0]), _coverage(columns, shape[1]))
    return share


def _coverage(part: slice, cells: int) -> NDArray[np.float32]:
    starts = np.arange(cells) * CELL
    covered = np.minimum(starts + CELL, part.stop) - np.maximum(starts, part.start)
    return np.asarray(np.maximum(covered, 0) / CELL, dtype=np.float32)


def _area_shares(pools: Sequence[_Pool], level: int) -> NDArray[np.float64]:
    """Kinds of areas have fixed shares; within a kind areas count by the root of their size."""
    kinds = _KIND_SHARES[level < _COARSE]
    roots = np.array([pool.pixels**0.5 for pool in pools])
    names = np.array([pool.area.kind for pool in pools])
    shares = np.zeros(len(pools))
    for kind in np.unique(names):
        chosen = names == kind
        shares[chosen] = max(kinds[str(kind)], 1e-6) * roots[chosen] / roots[chosen].sum()
    return _normalised(shares)


def _normalised(weights: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.asarray(weights, dtype=np.float64)
    return np.asarray(values / values.sum())
