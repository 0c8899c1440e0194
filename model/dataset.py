"""Training pairs from areas: which windows are drawn, how they become batches of tensors.

Split by ground: every area names validation ground (mosaic.py), about an eighth of it. Training
windows may overlap it, but there every pixel of imagery, map and reference is made invalid; so no
pixel of it is seen in training, at any level. For validation everything else is invalid.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from c2gm.model.augment import degrade_reference, fill_gaps, random_footprint, turn, vary_imagery
from c2gm.model.cartography import BACKGROUND
from c2gm.model.mosaic import CELL, GROUND_LEVEL, Area, Extent, Picture, crop, open_areas
from c2gm.model.mosaic_build import luma
from c2gm.runtime.errors import DataError
from c2gm.runtime.levels import SPANS, TILE_SIZE, prompt_keys
from c2gm.runtime.pixels import enlarge, to_network

Split = Literal["train", "validation"]
Batch = dict[str, Tensor]

ALIGNMENT = 1 << max(SPANS)
"""Windows begin at multiples of this, so that references are exact crops of coarser maps."""

DETAIL_STD = 8.0
"""A map window has detail if the standard deviation of its Y (0..255) exceeds this."""

PROMPT_INDEX = {key: index for index, key in enumerate(prompt_keys())}
"""Row of a (level, span) pair in any table that follows `prompt_keys()`."""

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

    Of all samples `no_reference_share` get no reference; of the others the first of `spans` gets
    `first_span_share`. `degrade` spoils references as generation does (stage 2).
    """

    spans: tuple[int, ...] = SPANS
    no_reference_share: float = 0.2
    first_span_share: float = 0.75
    sides: tuple[int, ...] = (192, 256, 320)
    side_weights: tuple[float, ...] = (0.25, 0.6, 0.15)
    augment: bool = True
    degrade: bool = False


@dataclass(frozen=True)
class Window:
    """A place in an area: `extent` in pixels of `level`, a multiple of 64 wide and high."""

    area: Area
    level: int
    extent: Extent


@dataclass(frozen=True)
class Sample:
    """One pair. `imagery` RGBA (H, H, 4), `target` RGB (H, H, 3), all uint8; `reference` RGBA
    (H, H, 4), enlarged, or None; `span` levels up to it. `detail`: see DETAIL_STD."""

    imagery: Picture
    target: Picture
    reference: Picture | None
    level: int
    span: int | None
    window: Window
    detail: bool


class _Pool:
    """The cells of one area and level, with two ways of drawing one."""

    def __init__(self, area: Area, level: int, split: Split) -> None:
        self.area, self.level = area, level
        cells = area.cells(level)
        held_out = _held_out_share(area, level, cells.valid.shape)
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

    Levels are drawn evenly, unless `level_weights` says otherwise. Raises DataError if the dataset
    has no usable ground for the split.
    """

    def __init__(
        self,
        dataset: Path | str,
        split: Split = "train",
        spans: tuple[int, ...] = SPANS,
        seed: int = 0,
        options: SamplerOptions | None = None,
        level_weights: Mapping[int, float] | None = None,
    ) -> None:
        self.options = options or SamplerOptions(spans=spans)
        self.split: Split = split
        self.seed = seed
        self.areas = open_areas(Path(dataset))
        self._pools: dict[int, list[_Pool]] = {}
        for area in self.areas:
            for level in area.targets:
                pool = _Pool(area, level, split)
                if pool.pixels > 0:
                    self._pools.setdefault(level, []).append(pool)
        weights = {
            z: 1.0 if level_weights is None else level_weights.get(z, 0.0) for z in self._pools
        }
        self.levels = sorted(z for z, weight in weights.items() if weight > 0)
        if not self.levels:
            raise DataError(f"no ground for {split} in {dataset}; build more areas")
        self._level_shares = _normalised([weights[z] for z in self.levels])
        self._area_shares = {z: _area_shares(self._pools[z], z) for z in self.levels}

    def sample(self, index: int, side: int = TILE_SIZE, row: int = 0) -> Sample:
        """Sample number (index, row), `side` x `side` pixels."""
        rng = np.random.default_rng([self.seed, self.split == "train", index, row])
        level = int(rng.choice(self.levels, p=self._level_shares))
        best: tuple[float, Window] | None = None
        for _ in range(_TRIES):
            window = self._draw_window(level, side, rng)
            imagery = _imagery(window, self.split)
            share = float((imagery[..., 3] > 0).mean())
            if best is None or share > best[0]:
                best = share, window
            if share >= _SMALLEST_SHARE[level < _COARSE]:
                break
        assert best is not None
        return self._finish(best[1], rng)

    def batch(self, index: int, size: int) -> list[Sample]:
        """`size` samples of one window side: batch number `index`."""
        rng = np.random.default_rng([self.seed, self.split == "train", index])
        side = int(rng.choice(self.options.sides, p=_normalised(self.options.side_weights)))
        return [self.sample(index, side, row) for row in range(size)]

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
            valid = _imagery(window, self.split)[..., 3] > 0
            footprint = random_footprint(valid, rng)
        degrade = rng if self.options.degrade else None
        sample = cut(window, span, self.split, footprint, degrade)
        if not self.options.augment:
            return sample
        symmetry = int(rng.integers(8))
        imagery, reference = vary_imagery(sample.imagery, rng), sample.reference
        if rng.random() < 0.04:
            fill_gaps(imagery, int(rng.choice((0, 255))))
            if reference is not None:
                reference[..., 3] = 255
        return Sample(
            imagery=turn(imagery, symmetry),
            target=turn(sample.target, symmetry),
            reference=None if reference is None else turn(reference, symmetry),
            level=sample.level,
            span=sample.span,
            window=window,
            detail=sample.detail,
        )

    def _draw_span(self, window: Window, rng: Generator) -> int | None:
        spans = [s for s in self.options.spans if _has_reference(window.area, window.level, s)]
        if not spans or rng.random() < self.options.no_reference_share:
            return None
        return spans[0] if rng.random() < self.options.first_span_share else spans[-1]


def cut(
    window: Window,
    span: int | None,
    split: Split,
    footprint: NDArray[np.bool_] | None = None,
    degrade: Generator | None = None,
) -> Sample:
    """The pair at a window, of the split's ground only, without augmentation.

    `footprint` (H, H) limits the imagery further; the reference ends where it ends. `degrade`
    spoils the reference with that generator.
    """
    imagery = _imagery(window, split)
    if footprint is not None:
        imagery *= footprint[..., None]
    target = crop(window.area.map(window.level), window.area.levels[window.level], window.extent)
    target[imagery[..., 3] == 0] = BACKGROUND
    reference = None
    if span is not None:
        reference = _reference(window, span, split, footprint)
        if degrade is not None:
            reference = degrade_reference(reference, degrade)
        reference = enlarge(reference, span)
    detail = bool(luma(target).std() > DETAIL_STD)
    return Sample(imagery, target, reference, window.level, span, window, detail)


def _imagery(window: Window, split: Split) -> Picture:
    """RGBA of the window; pixels of the other split's ground are 0."""
    area, level = window.area, window.level
    picture = crop(area.imagery(level), area.levels[level], window.extent)
    if split == "train":
        for ground in area.validation:
            picture[ground.finer(level - GROUND_LEVEL).within(window.extent)] = 0
        return picture
    kept = np.zeros_like(picture)
    for ground in area.validation:
        part = ground.finer(level - GROUND_LEVEL).within(window.extent)
        kept[part] = picture[part]
    return kept


def _reference(
    window: Window, span: int, split: Split, footprint: NDArray[np.bool_] | None
) -> Picture:
    """RGBA at the coarser level's own size: its map, valid where its imagery is."""
    parent = Window(window.area, window.level - span, window.extent.coarser(span))
    picture = _imagery(parent, split)
    if footprint is not None:
        factor, (height, width) = 1 << span, picture.shape[:2]
        blocks = footprint.reshape(height, factor, width, factor)
        picture *= (blocks.mean(axis=(1, 3)) >= 0.5)[..., None]
    drawn = crop(parent.area.map(parent.level), parent.area.levels[parent.level], parent.extent)
    picture[..., :3] = np.where(picture[..., 3:] > 0, drawn, np.array(BACKGROUND, np.uint8))
    return picture


def validation_samples(
    dataset: Path | str,
    per_level: int,
    spans: Sequence[int] = SPANS,
    side: int = TILE_SIZE,
    detailed: bool = False,
) -> list[Sample]:
    """Fixed windows of validation ground, aligned to tiles, with the first reference they can have.

    At most `per_level` a level (coarse levels may have fewer), spread over the areas, none twice;
    those with the most valid imagery win. `detailed` asks for windows with detail only.
    """
    areas = open_areas(Path(dataset))
    samples: list[Sample] = []
    for level in sorted({level for area in areas for level in area.targets}):
        queues = [_validation_windows(area, level, side) for area in areas if level in area.targets]
        chosen: list[Sample] = []
        while len(chosen) < per_level and any(queues):
            for queue in queues:
                found = _next_sample(queue, spans, detailed) if len(chosen) < per_level else None
                if found is not None:
                    chosen.append(found)
        samples += chosen
    if not samples:
        raise DataError(f"no validation ground in {dataset}; build more areas")
    return samples


def _next_sample(queue: list[Window], spans: Sequence[int], detailed: bool) -> Sample | None:
    while queue:
        window = queue.pop()
        span = next((s for s in spans if _has_reference(window.area, window.level, s)), None)
        sample = cut(window, span, "validation")
        if sample.detail or not detailed:
            return sample
    return None


def _validation_windows(area: Area, level: int, side: int) -> list[Window]:
    """Windows with valid imagery on validation ground, best last, in an order drawn once."""
    extent = area.levels[level]
    rng = np.random.default_rng([level, *area.name.encode()])
    grounds = [ground.finer(level - GROUND_LEVEL) for ground in area.validation]
    ranked: list[tuple[float, float, Window]] = []
    for top in range(extent.top // side * side, extent.top + extent.height, side):
        for left in range(extent.left // side * side, extent.left + extent.width, side):
            window = Window(area, level, Extent(left, top, side, side))
            order = rng.random()
            if not any(_overlap(ground, window.extent) for ground in grounds):
                continue
            share = float((_imagery(window, "validation")[::8, ::8, 3] > 0).mean())
            if share >= 0.02:
                ranked.append((min(share, 0.6), order, window))
    ranked.sort(key=lambda item: item[:2])
    return [window for _, _, window in ranked]


def _overlap(one: Extent, other: Extent) -> bool:
    rows, columns = one.within(other)
    return bool(rows.stop > rows.start and columns.stop > columns.start)


def _has_reference(area: Area, level: int, span: int) -> bool:
    return level - span in area.levels and (level, span) in PROMPT_INDEX


def _keep_inside(start: int, side: int, low: int, size: int) -> int:
    return start if size < side else min(max(start, low), low + size - side)


def _held_out_share(area: Area, level: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
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


def collate(samples: Sequence[Sample]) -> Batch:
    """Tensors of samples of one side H: `imagery`, `image` (the map), `reference` float32
    (b, 3, H, H) in [-1, 1] with invalid pixels 0, `has_reference` float32 (b) 0 or 1, `prompt`
    int64 (b) into `prompt_keys()`, `level` int64 (b)."""
    empty = np.zeros(samples[0].imagery.shape, dtype=np.uint8)
    references = [empty if s.reference is None else s.reference for s in samples]
    return {
        "imagery": _stack([s.imagery for s in samples]),
        "image": _stack([s.target for s in samples]),
        "reference": _stack(references),
        "has_reference": torch.tensor([float(s.span is not None) for s in samples]),
        "prompt": torch.tensor([PROMPT_INDEX[s.level, s.span] for s in samples]),
        "level": torch.tensor([s.level for s in samples]),
    }


def _stack(pictures: Sequence[Picture]) -> Tensor:
    return torch.from_numpy(np.stack([to_network(picture) for picture in pictures]))


class BatchStream(IterableDataset[Batch]):
    """Endless batches from number `start` on; with n worker processes each makes every n-th."""

    def __init__(self, sampler: TileSampler, size: int, start: int = 0) -> None:
        self._sampler, self._size, self._start = sampler, size, start

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        index = self._start + first
        while True:
            yield collate(self._sampler.batch(index, self._size))
            index += step


class PairOptions(Protocol):
    """What `MapPairs` reads of the training options."""

    @property
    def batch(self) -> int: ...
    @property
    def workers(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def no_reference_share(self) -> float: ...
    @property
    def references(self) -> Literal["true", "degraded"]: ...


class MapPairs:
    """Training and validation batches of a dataset folder, as `c2gm-train` uses them."""

    def __init__(self, dataset: Path, options: PairOptions) -> None:
        self._dataset, self._options = dataset, options
        chosen = SamplerOptions(
            no_reference_share=options.no_reference_share,
            degrade=options.references == "degraded",
        )
        self._sampler = TileSampler(dataset, "train", seed=options.seed, options=chosen)

    def batches(self, start_step: int) -> Iterator[Batch]:
        """Endless training batches (see `collate`): the same step yields the same batch."""
        stream = BatchStream(self._sampler, self._options.batch, start_step)
        return iter(DataLoader(stream, batch_size=None, num_workers=self._options.workers))

    def validation(self, count: int, detailed: bool = False) -> Batch:
        """About `count` fixed validation tiles, the same number of every level."""
        per_level = max(1, count // len(self._sampler.levels))
        return collate(validation_samples(self._dataset, per_level, detailed=detailed))
