"""What a worker of a cluster does for a run: looks what it would be, draws shards of it.

A shard is drawn into a file on the worker's own disk (SQLite's write-ahead log is not for network
file systems), and moved, finished, into a folder beside the output that all machines see.
"""

import getpass
import hashlib
import json
import os
import platform
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from c2gm.runtime.archive import sync
from c2gm.runtime.errors import (
    AreaError,
    BundleError,
    C2GMError,
    OutputError,
    ReferenceMapError,
    SceneError,
)
from c2gm.runtime.infer import run
from c2gm.runtime.job import InferOptions, prepare
from c2gm.runtime.mbtiles import LockedPartial, translated
from c2gm.runtime.merge import run_of
from c2gm.runtime.progress import QuietReport
from c2gm.runtime.shards import Shard

RECORD = "run.json"
"""In the folder of shards: whose they are."""

_LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a worker finds a run to be. `windows`: of the whole map; `backend`: its name."""

    fingerprint: Mapping[str, str]
    windows: int
    backend: str
    bundle: Path
    told: str
    """Model and backend, for users."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """A shard to be drawn: `options` and `fingerprint` are the whole run's."""

    options: InferOptions
    shard: Shard
    folder: Path
    fingerprint: Mapping[str, str]

    @property
    def target(self) -> Path:
        """Where the finished shard goes."""
        return self.folder / self.shard.file_name(self.options.output_path.stem)


def look_ahead(options: InferOptions) -> Outlook:
    """On a worker: open everything that the run needs, draw nothing. Raises C2GMError."""
    with _named():
        _check_paths(options)
        with prepare(options) as job:
            return Outlook(
                fingerprint=job.fingerprint(),
                windows=sum(job.plan.window_count(level) for level in job.plan.levels),
                backend=job.backend.name,
                bundle=job.bundle.folder
                if options.model is not None
                else Path(job.bundle.folder.stem),
                told=f"model {job.model_name}, {job.backend_text}",
                warnings=job.warnings,
            )


def draw_shard(task: Task) -> str:
    """On a worker: draw a shard, or go on with it, and move it to its place; returns the host.

    Raises C2GMError.
    """
    options = replace(task.options, shard=task.shard, overwrite=True)
    expected = run_of(task.fingerprint, task.shard)
    with _named():
        _check_paths(options)
        local = local_folder(task.fingerprint) / task.target.name
        while True:
            if _fingerprint(task.folder) != task.fingerprint:
                raise OutputError(
                    f"there is no folder {task.folder} of this run here; let all workers see it at "
                    "the same path (a shared file system)"
                )
            if task.target.exists():
                return platform.node()
            try:
                if not local.exists():
                    local.parent.mkdir(exist_ok=True)
                    run(replace(options, output=local), QuietReport(), expected)
                _move(local, task.target)
            except LockedPartial:  # a worker that its driver believes to be dead
                time.sleep(_LOOK_AGAIN_S)
            except FileNotFoundError:  # moved by such a one meanwhile
                continue


def local_folder(fingerprint: Mapping[str, str]) -> Path:
    """Where a machine's workers draw shards of a run: in its folder for temporary files."""
    key = hashlib.sha256(json.dumps(dict(fingerprint), sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"c2gm-{getpass.getuser()}"
    with translated(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    if os.name == "posix" and (found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode)):
        raise OutputError(f"{folder} is somebody else's; set TMPDIR to a folder of your own")
    return folder / key


def forget(fingerprint: Mapping[str, str]) -> None:
    """On a worker: remove what shards drawn elsewhere left on this machine."""
    shutil.rmtree(local_folder(fingerprint), ignore_errors=True)


def read_record(folder: Path) -> tuple[dict[str, str], int] | None:
    """Fingerprint and number of shards; None where there is no record."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return dict(found["fingerprint"]), int(found["shards"])
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError):
        raise OutputError(f"{folder / RECORD} is damaged; delete {folder}") from None


def _fingerprint(folder: Path) -> Mapping[str, str] | None:
    found = read_record(folder)
    return None if found is None else found[0]


def _move(local: Path, target: Path) -> None:
    """Move a finished file to another file system, whole or not at all.

    Raises FileNotFoundError where it is gone, OutputError, DiskFullError.
    """
    beside = target.with_name(f"{target.name}.{platform.node()}-{os.getpid()}")
    with local.open("rb") as source, translated(target):
        with beside.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        sync(beside)
        os.replace(beside, target)
        if os.name == "posix":
            sync(target.parent)
    local.unlink(missing_ok=True)


def _check_paths(options: InferOptions) -> None:
    """Raises what fits where this machine lacks a file that the driver named."""
    needed: tuple[tuple[Path | None, type[C2GMError]], ...] = (
        (options.imagery, SceneError),
        (options.model if options.model and options.model.is_absolute() else None, BundleError),
        (options.reference, ReferenceMapError),
        (options.aoi, AreaError),
    )
    for path, kind in needed:
        if path is not None and not path.exists():
            raise kind(
                f"there is no {path} here; scene, model and maps must lie at the same path on "
                "every worker (a shared file system)"
            )


@contextmanager
def _named() -> Iterator[None]:
    """Errors say on which machine they happened."""
    try:
        yield
    except C2GMError as error:
        raise type(error)(f"worker {platform.node()}: {error}") from None
