"""The evaluation protocol: validation tiles in, scores beside the enlarged reference out."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2gm.model.config import GUIDE_FROM
from c2gm.model.data.dataset import DETAIL_STD, Sample, validation_samples
from c2gm.model.evaluation.cascade_painter import CascadePainter
from c2gm.model.evaluation.metrics import SSIM_RADIUS, Pictures
from c2gm.model.evaluation.painter import Painter
from c2gm.model.evaluation.scores import FEWEST_TILES, METRICS, Indices, Networks, Scores, TrueMaps
from c2gm.model.evaluation.tile_scores import tile_scores
from c2gm.model.maps.cartography import BACKGROUND
from c2gm.runtime.errors import DataError, OptionError
from c2gm.runtime.levels import LEVELS, SPANS, check_spans

Progress = Callable[[int, int], None]
"""Called with tiles painted so far and in all."""

CONDITIONS = {
    "with": ("with_reference",),
    "without": ("without_reference",),
    "both": ("with_reference", "without_reference"),
    "cascade": ("cascade",),
    "all": ("with_reference", "without_reference", "cascade"),
}
"""Under which conditions tiles are painted, by the option's value: from the true map of a coarser
level, from imagery alone, or from the maps that the painter itself drew, level by level."""


@dataclass(frozen=True)
class EvaluateOptions:
    """What is scored. `per_level` tiles of each level, and as many detailed ones; `references`:
    a key of `CONDITIONS`; `spans` in order of preference; `coarsest`: where cascades begin."""

    dataset: Path
    per_level: int = 16
    references: str = "both"
    spans: tuple[int, ...] = SPANS
    coarsest: int = GUIDE_FROM
    batch: int = 8

    def __post_init__(self) -> None:
        if self.per_level < 1 or self.batch < 1:
            raise OptionError(
                f"--per-level {self.per_level} and --batch {self.batch} must be 1 or more"
            )
        if self.references not in CONDITIONS:
            raise OptionError(
                f"--references {self.references!r}: choose from {', '.join(CONDITIONS)}"
            )
        if self.coarsest not in LEVELS:
            raise OptionError(
                f"--coarsest {self.coarsest}: expected {min(LEVELS)} to {max(LEVELS)}"
            )
        check_spans(self.spans)


def choose_tiles(options: EvaluateOptions) -> tuple[list[Sample], dict[str, Indices], list[str]]:
    """The tiles, each once; which of them are in the sets `all` and `detailed`; warnings.

    Tiles whose valid part is too small for one SSIM window are left out.
    """
    arguments = options.dataset, options.per_level, options.spans
    sets = {"all": validation_samples(*arguments)}
    warnings: list[str] = []
    try:
        sets["detailed"] = validation_samples(*arguments, detailed=True)
    except DataError as error:  # the first call found ground, so what is missing is detail
        sets["detailed"] = []
        warnings.append(f"no detailed tiles are scored: {error}")
    samples: list[Sample] = []
    found: dict[tuple[object, ...], int] = {}
    members: dict[str, list[int]] = {name: [] for name in sets}
    inner = slice(SSIM_RADIUS, -SSIM_RADIUS)
    left_out = 0
    for name, chosen in sets.items():
        for sample in chosen:
            if not sample.imagery[inner, inner, 3].any():
                left_out += 1
                continue
            if sample.reference is not None and not sample.reference[..., 3].any():
                sample = replace(sample, reference=None, span=None)  # as the runtime takes it
            key = (sample.window.area.name, sample.level, sample.window.extent)
            if key not in found:
                found[key] = len(samples)
                samples.append(sample)
            members[name].append(found[key])
    if left_out:
        warnings.append(f"{left_out} tiles with hardly any valid pixel are left out")
    indices = {name: np.array(rows, dtype=np.int64) for name, rows in members.items()}
    return samples, indices, warnings


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate`. `report` is ready for JSON; `sets` are the tiles of `all` and
    `detailed`; `pictures` the maps (n, 256, 256, 3) painted under each condition, plain background
    where none was."""

    report: dict[str, Any]
    samples: list[Sample]
    sets: dict[str, Indices]
    pictures: dict[str, Pictures]


def evaluate(
    painter: Painter, options: EvaluateOptions, networks: Networks, progress: Progress
) -> Evaluation:
    """Paint and score the validation tiles of a dataset folder.

    Raises DataError if the folder has no validation ground.
    """
    samples, sets, warnings = choose_tiles(options)
    given = _painted_tiles("with_reference", samples, options)
    valid = np.stack([sample.imagery[..., 3] > 0 for sample in samples])
    truth = TrueMaps(np.stack([sample.target for sample in samples]), valid, networks)
    baseline = Scores(truth)
    for tiles in _split(given, options.batch):
        baseline.add(tiles, np.stack([enlarged_reference(samples[i]) for i in tiles]))
    painted_tiles = {
        name: _painted_tiles(name, samples, options) for name in CONDITIONS[options.references]
    }
    by_painter = {"enlarged_reference": baseline}
    total, done = sum(len(tiles) for tiles in painted_tiles.values()), 0
    conditions: dict[str, Any] = {}
    pictures: dict[str, Pictures] = {}
    for name, painted in painted_tiles.items():
        scores, seconds = Scores(truth), 0.0
        by_painter[name] = scores
        brush: Painter = painter
        if name == "cascade":
            brush = CascadePainter(painter, options.spans, options.coarsest)
        pictures[name] = np.full_like(truth.pictures, BACKGROUND)
        for tiles in _split(painted, options.batch):
            chosen = [samples[i] for i in tiles]
            if name == "without_reference":
                chosen = [replace(sample, reference=None, span=None) for sample in chosen]
            start = time.perf_counter()
            output = brush.paint(chosen)
            seconds += time.perf_counter() - start
            pictures[name][tiles] = on_background(output, valid[tiles])
            scores.add(tiles, pictures[name][tiles])
            done += len(tiles)
            progress(done, total)
        conditions[name] = {"seconds_per_tile": round(seconds / max(len(painted), 1), 4)}
        for subset, members in sets.items():
            chosen_tiles = np.intersect1d(members, painted)
            conditions[name][subset] = _tables(samples, chosen_tiles, scores, baseline)
    for name in networks.pooled:
        if len(samples) < FEWEST_TILES[name]:
            warnings.append(
                f"{name} over {len(samples)} tiles or fewer, below {FEWEST_TILES[name]}: compare "
                "it only between runs over the same tiles, not with published figures"
            )
    report = {
        "areas": {sample.window.area.name: sample.window.area.kind for sample in samples},
        "tiles": len(samples),
        "detailed_means": f"standard deviation of the true map's Y above {DETAIL_STD:g}",
        "metrics": METRICS,
        "left_out": networks.left_out(),
        "warnings": warnings,
        "conditions": conditions,
        "tile_scores": tile_scores(samples, sets, by_painter),
    }
    return Evaluation(report, samples, sets, pictures)


def _painted_tiles(condition: str, samples: Sequence[Sample], options: EvaluateOptions) -> Indices:
    """Which tiles a condition is about."""
    if condition == "with_reference":
        chosen = [sample.reference is not None for sample in samples]
    else:
        coarsest = options.coarsest if condition == "cascade" else min(LEVELS)
        chosen = [sample.level >= coarsest for sample in samples]
    return np.flatnonzero(chosen)


def _tables(
    samples: Sequence[Sample], rows: Indices, scores: Scores, baseline: Scores
) -> dict[str, Any]:
    """Rows overall, by level, and by kind of area overall and by level."""
    levels = np.array([samples[i].level for i in rows])
    kinds = np.array([samples[i].window.area.kind for i in rows])

    def row(chosen: NDArray[np.bool_] | slice) -> dict[str, Any]:
        tiles = rows[chosen]
        return {
            "tiles": len(tiles),
            "model": scores.of(tiles),
            "enlarged_reference": baseline.of(tiles),
        }

    def by_level(chosen: NDArray[np.bool_]) -> dict[str, Any]:
        found = sorted(set(levels[chosen].tolist()))
        return {str(level): row(chosen & (levels == level)) for level in found}

    return {
        "overall": row(slice(None)),
        "levels": by_level(np.ones(len(rows), dtype=bool)),
        "kinds": {
            str(kind): {"overall": row(kinds == kind), "levels": by_level(kinds == kind)}
            for kind in sorted(set(kinds.tolist()))
        },
    }


def enlarged_reference(sample: Sample) -> NDArray[np.uint8]:
    """The baseline's picture (256, 256, 3) of a tile; plain background without a reference."""
    if sample.reference is None:
        return np.full(sample.target.shape, BACKGROUND, dtype=np.uint8)
    return on_background(sample.reference[..., :3], sample.imagery[..., 3] > 0)


def on_background(pictures: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Background wherever imagery is invalid, as in the true maps."""
    return np.where(valid[..., None], pictures, np.array(BACKGROUND, dtype=np.uint8))


def _split(rows: Indices, size: int) -> Iterator[Indices]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
