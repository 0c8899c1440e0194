"""The shards of a run through a `concurrent.futures.Executor`: dealt, kept, merged.

Finished shards lie in a folder beside the output, where they outlive worker and driver: the same
command goes on with what it finds there. A shard whose worker died is drawn by another one; on the
same machine it goes on where the first one stopped.
"""

import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, as_completed
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from c2gm.runtime.archive import check_output, sync
from c2gm.runtime.errors import BackendError, Interrupted, OutputError
from c2gm.runtime.job import InferOptions, check_options
from c2gm.runtime.mbtiles import differences, translated
from c2gm.runtime.merge import Merged, merge
from c2gm.runtime.progress import Pace, ProgressReport, spoken_duration
from c2gm.runtime.shard_worker import RECORD, Outlook, Task, draw_shard, read_record
from c2gm.runtime.shards import Shard
from c2gm.runtime.verify import verify_file

SHARDS_A_WORKER = 3
"""So many even out workers of unlike speed, and bound what a death costs."""

SHARD_WINDOWS = 500
"""Smaller shards than this draw too much around themselves to be worth having several a worker."""


def everywhere(options: InferOptions) -> InferOptions:
    """Options that mean the same in another process's working folder. Raises as `check_options`."""
    check_options(options)
    check_output(options.output_path, options.overwrite)
    model = options.model
    return replace(
        options,
        imagery=options.imagery.absolute(),
        output=options.output_path.absolute(),
        model=model.absolute() if model is not None and model.exists() else model,
        reference=None if options.reference is None else options.reference.absolute(),
        aoi=None if options.aoi is None else options.aoi.absolute(),
    )


def draw_map(
    executor: Executor,
    options: InferOptions,
    outlook: Outlook,
    workers: int,
    shards: int | None,
    progress: ProgressReport,
) -> Merged:
    """Have all shards drawn, merge them, remove them. `shards`: default a few for each worker.

    `options` are `everywhere`'s. Raises C2GMError; Interrupted after Ctrl-C.
    """
    start = perf_counter()
    output = options.output_path
    if options.model is None:  # what a backend's default is depends on the machine
        options = replace(options, model=outlook.bundle)
    options = replace(options, backend=outlook.backend)
    folder = output.with_name(output.name + ".shards")
    count = _begin(folder, outlook, workers, shards, options.overwrite)
    tasks = [
        Task(options, Shard(index + 1, count), folder, outlook.fingerprint)
        for index in range(count)
    ]
    try:
        missing = [task for task in tasks if not _is_whole(task.target, progress)]
        few = "1 worker" if workers == 1 else f"{workers} workers"
        progress.note(f"{count} shards for {few}: {outlook.told}")
        if len(missing) < count:
            progress.note(f"going on with {folder}, which holds {count - len(missing)} of them")
        _draw(executor, missing, count, progress)
        merged = merge([task.target for task in tasks], output, progress, options.overwrite)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; finished shards are in {folder}, the same command goes on"
        ) from None
    except (CancelledError, BrokenExecutor) as error:
        raise BackendError(
            f"the workers were lost ({type(error).__name__}); finished shards are in {folder}, the "
            "same command goes on"
        ) from None
    finally:
        progress.close()
    shutil.rmtree(folder)
    return replace(merged, seconds_total=perf_counter() - start)


def _draw(executor: Executor, tasks: Sequence[Task], count: int, progress: ProgressReport) -> None:
    """Run tasks on the workers; the first that fails for good ends it, finished ones stay."""
    futures = {executor.submit(draw_shard, task): task for task in tasks}
    pace = Pace(count, count - len(tasks), first=1)
    try:
        for future in as_completed(futures):
            host = future.result()
            pace.advance(1)
            left = pace.seconds_left
            rest = "" if not left else f", {spoken_duration(left)} left"
            shard = futures[future].shard
            progress.note(f"{pace.done} of {count} shards: {shard} was drawn on {host}{rest}")
    finally:
        for future in futures:
            future.cancel()


def _begin(
    folder: Path, outlook: Outlook, workers: int, shards: int | None, overwrite: bool
) -> int:
    """Make the folder of shards, or go on with it; returns the number of shards.

    Raises OutputError where it is another run's, and for another number than it was begun with.
    """
    with translated(folder):
        found = read_record(folder)
        if found is not None and overwrite and found[0] != outlook.fingerprint:
            shutil.rmtree(folder)
            found = None
        if found is not None:
            fingerprint, count = found
            what = differences(fingerprint, outlook.fingerprint)
            if not what and shards not in (None, count):
                what = f"shards was {count}, now {shards}"
            if what:
                raise OutputError(
                    f"{folder} was begun by another run ({what}); run that command to finish it, "
                    "or delete the folder"
                )
            return count
        few = max(workers, min(SHARDS_A_WORKER * workers, outlook.windows // SHARD_WINDOWS))
        count = few if shards is None else shards
        Shard(count, count)
        folder.mkdir(exist_ok=True)
        record = folder / RECORD
        content = {"fingerprint": dict(outlook.fingerprint), "shards": count}
        beside = record.with_suffix(".new")
        beside.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")
        sync(beside)
        os.replace(beside, record)
    return count


def _is_whole(target: Path, progress: ProgressReport) -> bool:
    """Whether a former driver's shard is there and as it was made; a damaged one is removed."""
    if not target.exists():
        return False
    try:
        verify_file(target, decode=False)
    except OutputError as error:
        progress.note(f"warning: {error}; it is drawn again")
        target.unlink()
        return False
    return True
