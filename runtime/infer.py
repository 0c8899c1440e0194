"""The job: a scene goes in, a queue of windows runs through a full batch, tiles go into a file."""

import os
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from c2gm.runtime.archive import Archive, check_output, partial_path
from c2gm.runtime.cascade import Cascade
from c2gm.runtime.errors import Interrupted, OutputError
from c2gm.runtime.grid import Plan, Window, parse_levels
from c2gm.runtime.job import InferOptions, Job, check_options, prepare
from c2gm.runtime.mbtiles import differences
from c2gm.runtime.pixels import Picture
from c2gm.runtime.progress import ProgressReport
from c2gm.runtime.publish.publication import Publication
from c2gm.runtime.publish.source import FinishedMap
from c2gm.runtime.quilt import Latents, Painting, Quilt
from c2gm.runtime.start import STOPPED
from c2gm.runtime.work import work_of
from c2gm.runtime.workers import Finished, Ground, Reader, Writer, cut_tiles

PARTS = (
    "load",
    "plan",
    "scene",
    "reference",
    "condition",
    "denoise",
    "decode",
    "encode",
    "archive",
)
"""Parts of a run that are timed: loading the model, planning, reading the scene (the first look
included), making references, the three graphs, encoding and committing tiles (verifying and
publishing included).
The work of scene, reference, encode and archive on single windows runs beside the others."""


LARGE_SCENE_BYTES = 100_000_000
"""From this size on a scene takes seconds to read, and the user is told."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did. `outputs`: all files and folders, `output` first.

    `tiles`: by level, made or kept.

    `seconds`, `processor_seconds`: by part (see `PARTS` and `Stopwatch`).
    """

    output: Path
    outputs: tuple[Path, ...]
    tiles: Mapping[int, int]
    tiles_without_data: int
    tiles_resumed: int
    seconds: Mapping[str, float]
    processor_seconds: Mapping[str, float]
    seconds_total: float
    tiles_per_second: float
    steps_per_window: float
    backend: str
    model: str
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """Plain values for `json.dumps`, seconds rounded to milliseconds."""
        document: dict[str, Any] = asdict(self)
        document["output"] = str(self.output)
        document["outputs"] = [str(path) for path in self.outputs]
        document["tiles"] = {str(level): count for level, count in self.tiles.items()}
        for name in ("seconds", "processor_seconds"):
            document[name] = {part: round(value, 3) for part, value in document[name].items()}
        for name in ("seconds_total", "tiles_per_second", "steps_per_window"):
            document[name] = round(document[name], 3)
        return document


def run(
    options: InferOptions, progress: ProgressReport, expected: Mapping[str, str] | None = None
) -> Summary:
    """Make all tiles of a run, or go on where a former one stopped.

    `expected`: the fingerprint that the run must have, where it is a part of another one. Raises
    C2GMError; OutputError if it has another one, before anything is drawn; Interrupted after
    Ctrl-C, with the finished tiles kept for the next run.
    """
    start = perf_counter()
    check_options(options)
    publication = _publication(options)
    if os.path.isfile(options.imagery) and options.imagery.stat().st_size > LARGE_SCENE_BYTES:
        progress.note(f"reading {options.imagery}, all of it once")
    outputs: tuple[Path, ...] = ()
    with prepare(options) as job:
        for warning in job.warnings:
            progress.note(f"warning: {warning}")
        try:
            with job.stopwatch.part("scene"):
                fingerprint = job.fingerprint()
            if expected is not None and (what := differences(expected, fingerprint)):
                raise OutputError(f"this would be a part of another map: {what}")
            with Archive.open(
                options.output_path,
                job.plan,
                job.metadata(),
                fingerprint,
                options.overwrite,
                output_may_exist=options.output_path.name in publication.moving,
            ) as archive:
                count = _generate(job, archive, progress)
                with job.stopwatch.part("archive"):
                    outputs = _finish(archive, publication, progress)
        except KeyboardInterrupt:
            if outputs:
                raise Interrupted(f"stopped, but {outputs[0]} is finished and whole") from None
            raise Interrupted(_left_behind(options.output_path)) from None
        finally:
            progress.close()
    total = perf_counter() - start
    made = sum(count.tiles.values()) - count.resumed
    seconds, processor = job.stopwatch.seconds, job.stopwatch.processor_seconds
    return Summary(
        output=outputs[0],
        outputs=outputs,
        tiles=count.tiles,
        tiles_without_data=count.without_data,
        tiles_resumed=count.resumed,
        seconds={part: seconds.get(part, 0.0) for part in PARTS},
        processor_seconds={part: processor.get(part, 0.0) for part in PARTS},
        seconds_total=total,
        tiles_per_second=made / total,
        steps_per_window=count.steps / count.drawn if count.drawn else 0.0,
        backend=job.backend_text,
        model=job.model_name,
        warnings=job.warnings,
    )


def _publication(options: InferOptions) -> Publication:
    """Where the outputs go. Raises OutputError for what stands in their way."""
    output, wanted = options.output_path, options.publish
    publication = Publication(
        output.with_suffix(""), wanted, wanted.keeps_archive, options.overwrite
    )
    if publication.moving and not partial_path(output).exists():
        publication.clean()  # of a run that had finished
    publication.check(parse_levels(options.levels))
    check_output(output, options.overwrite or output.name in publication.moving)
    return publication


def _finish(
    archive: Archive, publication: Publication, progress: ProgressReport
) -> tuple[Path, ...]:
    """Verify the archive, publish it, and give it its own name last, or delete it."""
    if publication.empty:
        return (archive.finish(),)
    source = FinishedMap(archive.partial, archive.seal())
    if not source.levels:
        progress.note("warning: no tile has data; there is nothing to publish but an empty map")
        return (archive.finish(),)
    outputs = publication.publish(source, progress.note)
    if publication.options.keeps_archive:
        outputs = (archive.finish(), *outputs)
    else:
        archive.discard()
    publication.clean()
    return outputs


def _left_behind(output: Path) -> str:
    """What Ctrl-C leaves, and how to go on."""
    partial = partial_path(output)
    if not partial.exists():
        return STOPPED
    return f"stopped; what is finished is in {partial}, the same command goes on from there"


@dataclass(slots=True)
class _Count:
    tiles: dict[int, int]
    without_data: int = 0
    resumed: int = 0
    steps: int = 0
    drawn: int = 0

    def add(self, window: Window, planned: int, made: int) -> None:
        self.tiles[window.level] += made
        self.without_data += planned - made


def _generate(job: Job, archive: Archive, progress: ProgressReport) -> _Count:
    """The loop: windows wait for their reference, take a row, leave it, free their children."""
    planned, stopwatch = job.plan, job.stopwatch
    with stopwatch.part("plan"):
        done, count = _resume(planned, archive)
        work = work_of(planned, job.recipe.spans, blend=job.recipe.blend, done=done)
        quilt, cascade = Quilt(work, job.recipe.blend), Cascade(work)
    if around := len(work.drawn - work.written) if planned.beyond else 0:
        part = "area" if job.options.shard is None else "shard"
        progress.note(f"{around} windows around the {part} are drawn, too, and not written")
    if count.resumed:
        progress.note(f"going on with {archive.partial}, which holds {count.resumed} tiles")
    total = sum(planned.tile_count(level) for level in planned.levels)
    progress.start(total, count.resumed + count.without_data)
    sampler = job.sampler()
    pictures = Finished(archive)
    reader = Reader(job.scene, job.base_map, job.recipe, stopwatch, ahead=2 * sampler.rows)
    # What waits here is still written after Ctrl-C: no more than about a second of work.
    writer = Writer(archive, stopwatch, waiting=max(2, 16 // planned.side**2))
    grounds: dict[Window, Ground] = {}  # of windows that are drawn, but not painted yet
    blended: deque[Painting] = deque()  # to be painted

    def put(ground: Ground, picture: Picture | None, corner: tuple[int, int] | None = None) -> None:
        """A window is finished: its tiles are committed, its children may begin."""
        window = ground.window
        if cascade.has_readers(window):
            pictures.keep(cut_tiles(planned.data_tiles(window), ground, picture, corner))
        cascade.finish(window)
        if window in work.written:
            tiles = cut_tiles(planned.tiles_of(window), ground, picture, corner)
            writer.put(window, list(tiles.items()))
            count.add(window, len(tiles), sum(image is not None for image in tiles.values()))
            progress.advance(window.level, len(tiles))

    try:
        while len(cascade):
            while reader.has_room and (ready := cascade.take()):
                reader.submit(ready, pictures.under(ready, work.spans[ready.level]))
                for parent in cascade.release(ready):
                    pictures.drop(parent)
            while sampler.free and blended:
                painting = blended.popleft()
                assert painting.latents is not None
                sampler.decode(painting, painting.latents)
            drawn: list[tuple[Ground, Latents | None]] = []
            while sampler.free and len(reader):
                ground, sample = reader.next()
                if sample is None:
                    drawn.append((ground, None))
                else:
                    sampler.admit(sample)
            for out in sampler.step():
                count.steps += out.steps
                count.drawn += out.steps > 0
                if isinstance(out.key, Painting):
                    for window in out.key.windows:
                        put(grounds.pop(window), out.picture, out.key.corner)
                elif out.picture is None:
                    drawn.append((out.key, out.latents))
                else:
                    put(out.key, out.picture)
            for ground, latents in drawn:
                if ground.window in work.painted:
                    grounds[ground.window] = ground
                else:
                    cascade.finish(ground.window)
                for painting in quilt.put(ground.window, latents):
                    if painting.latents is not None:
                        blended.append(painting)
                        continue
                    for window in painting.windows:
                        put(grounds.pop(window), None)
    finally:
        try:
            reader.close()
        finally:  # a second Ctrl-C, while a window is being read, must not leave the writer waiting
            writer.close()
            sampler.close()
    writer.raise_error()
    return count


def _resume(planned: Plan, archive: Archive) -> tuple[list[Window], _Count]:
    """What a former run left: its finished windows, and the count to go on with."""
    count = _Count(dict.fromkeys(planned.levels, 0))
    keys = archive.done()
    done = [w for level in planned.levels for w in planned.windows(level) if w.key in keys]
    for window in done:
        tiles = planned.tiles_of(window)
        made = sum(archive.get_tile(tile) is not None for tile in tiles)
        count.add(window, len(tiles), made)
        count.resumed += made
    return done, count
