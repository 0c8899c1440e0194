"""Fixed validation tiles of areas: the same for every run, none twice."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from c2gm.model.data.mosaic import GROUND_LEVEL, Area, Extent, open_areas
from c2gm.model.data.pairs import Sample, Window, cut, has_reference, imagery_of
from c2gm.runtime.errors import DataError
from c2gm.runtime.levels import SPANS, TILE_SIZE


def area_validation_samples(
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
        chosen_areas = _mixed([area for area in areas if level in area.targets], level)
        queues = [_validation_windows(area, level, side) for area in chosen_areas]
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


def _mixed(areas: list[Area], level: int) -> list[Area]:
    """The areas shuffled once, kinds taking turns, real ones first."""
    shuffled = [areas[i] for i in np.random.default_rng(level).permutation(len(areas))]
    turns = {"real": 0.0, "painted": 0.1, "dubai": 0.2}
    keys = []
    for area in shuffled:
        keys.append(turns[area.kind])
        turns[area.kind] += 1.0
    return [shuffled[i] for i in np.argsort(keys)]


def _next_sample(queue: list[Window], spans: Sequence[int], detailed: bool) -> Sample | None:
    while queue:
        window = queue.pop()
        span = next((s for s in spans if has_reference(window.area, window.level, s)), None)
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
            if not any(ground.overlaps(window.extent) for ground in grounds):
                continue
            share = float((imagery_of(window, "validation")[::8, ::8, 3] > 0).mean())
            if share >= 0.02:
                ranked.append((min(share, 0.6), order, window))
    ranked.sort(key=lambda item: item[:2])
    return [window for _, _, window in ranked]
