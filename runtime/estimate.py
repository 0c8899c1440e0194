"""What a run would do: tiles by level, and size and time from a short probe."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from c2gm.runtime.archive import check_output, partial_path
from c2gm.runtime.grid import Window
from c2gm.runtime.job import InferOptions, Job, check_options, prepare
from c2gm.runtime.progress import spoken_size
from c2gm.runtime.tile_codec import encode_tile
from c2gm.runtime.work import work_of
from c2gm.runtime.workers import Ground, Reader, cut_tiles, tiles_with_data

ADMISSION_SECONDS = 2.0
"""For so long a probe begins with further windows."""

PROBE_SECONDS = 10.0
"""A probe that takes longer ends before its windows are finished, and sizes stay unknown."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A plan and a guess. `tiles`: planned, by level, those without data included.

    `probe_tiles` of `probe_level` were really made (first level's way, without a reference) on this
    machine to extrapolate `bytes_estimated` and `seconds_estimated`; None where the probe did not
    get that far. `windows_around`: those outside the area asked for that are drawn, too, and not
    written; their time is in the estimate.
    """

    output: Path
    tiles: Mapping[int, int]
    windows_around: int
    bytes_estimated: int | None
    seconds_estimated: float | None
    bytes_free: int
    probe_level: int
    probe_tiles: int
    probe_seconds: float
    backend: str
    model: str
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """Plain values for `json.dumps`."""
        document = asdict(self)
        document["output"] = str(self.output)
        document["tiles"] = {str(level): count for level, count in self.tiles.items()}
        return document


def estimate(options: InferOptions) -> Estimate:
    """Plan a run and make some of its finest tiles; nothing is written. Raises C2GMError."""
    check_options(options)
    check_output(options.output_path, overwrite=True)  # nothing is written, so it may exist
    with prepare(options) as job:
        tiles = {level: job.plan.tile_count(level) for level in job.plan.levels}
        made, size, elapsed, share = _probe(job)
        total = sum(tiles.values())
        work = work_of(job.plan, job.recipe.spans, blend=job.recipe.blend)
        windows = len(work.drawn) / max(1, len(work.written))
        return Estimate(
            output=options.output_path,
            tiles=tiles,
            windows_around=len(work.drawn) - len(work.written),
            bytes_estimated=None if size is None or not made else round(size / made * total),
            seconds_estimated=elapsed / share / made * total * windows if made and share else None,
            bytes_free=shutil.disk_usage(options.output_path.absolute().parent).free,
            probe_level=job.plan.levels[-1],
            probe_tiles=made,
            probe_seconds=elapsed,
            backend=job.backend_text,
            model=job.model_name,
            warnings=job.warnings + _warnings(options, size and made and size / made * total),
        )


def _warnings(options: InferOptions, size: float | None) -> tuple[str, ...]:
    """What a run would meet that an estimate does not."""
    output, partial = options.output_path, partial_path(options.output_path)
    found: list[str] = []
    if output.exists() and not options.overwrite:
        found.append(f"{output} exists; the run will be refused without --overwrite")
    if partial.exists():
        found.append(f"{partial} exists; the same run goes on from there, and takes less")
    free = shutil.disk_usage(output.absolute().parent).free
    if size and size > free:
        found.append(
            f"the map may need {spoken_size(round(size))}, and {spoken_size(free)} are free"
        )
    return tuple(found)


def _probe(job: Job) -> tuple[int, int | None, float, float]:
    """Tiles, their PNG bytes (None if not finished), seconds, and share of the steps done."""
    sampler = job.sampler(blend=False)  # few windows, and each to its end
    recipe = replace(job.recipe, blend=False)
    reader = Reader(job.scene, None, recipe, job.stopwatch, ahead=1)
    waiting = _spread(list(job.plan.windows(job.plan.levels[-1])))
    tiles = size = windows = 0
    try:
        start = perf_counter()
        while waiting or sampler.busy:
            elapsed = perf_counter() - start
            if elapsed > ADMISSION_SECONDS:
                waiting.clear()
            if elapsed > PROBE_SECONDS:
                break
            while sampler.free and waiting:
                reader.submit(waiting.pop(), {})
                ground, sample = reader.next()
                if sample is not None:
                    sampler.admit(sample)
                    windows += 1
                    tiles += len(tiles_with_data(job.plan, ground))
            for out in sampler.step():
                assert isinstance(out.key, Ground)
                cut = cut_tiles(job.plan.tiles_of(out.key.window), out.key, out.picture)
                images = (image for image in cut.values() if image is not None)
                size += sum(len(encode_tile(image) or b"") for image in images)
        elapsed, steps = perf_counter() - start, sampler.steps_run
    finally:
        reader.close()
        sampler.close()
    if not sampler.busy:
        return tiles, size, elapsed, 1.0
    return tiles, None, elapsed, steps / (windows * job.steps)


def _spread(windows: list[Window]) -> list[Window]:
    """All windows in an order in which any first few are spread over the whole."""
    return [windows[i] for i in np.random.default_rng(0).permutation(len(windows))]
