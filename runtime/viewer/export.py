"""A view as a folder that opens without a server: written beside, then renamed."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from c2gm.runtime.errors import DiskFullError, MapError, OutputError
from c2gm.runtime.progress import ProgressReport, spoken_size
from c2gm.runtime.viewer.page import View, page_files
from c2gm.runtime.viewer.source import TileSource, count_tiles, tile_of

MARK = b'<meta name="generator" content="c2gm-view">'
"""By this in its index.html a folder of ours is known, which alone may be replaced."""


def check_folder(folder: Path, overwrite: bool) -> None:
    """Refuse early what cannot be written or must not be replaced. Raises OutputError."""
    if not folder.name:
        raise OutputError(f"{folder} has no name; give --html FOLDER, a folder to make")
    if not folder.parent.is_dir():
        raise OutputError(f"{folder.parent} is not a folder; create it, or give another --html")
    if not os.access(folder.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{folder.parent} cannot be written; give --html in another folder")
    for taken in (folder, _partial(folder)):
        if not (taken.exists() or taken.is_symlink()):
            continue
        if not overwrite:
            raise OutputError(f"{taken} exists; give another --html, or --overwrite to replace it")
        if not _is_ours(taken):
            raise OutputError(
                f"{taken} was not made by c2gm-view --html, so it is not replaced; give another "
                "--html"
            )


def export_folder(view: View, folder: Path, overwrite: bool, progress: ProgressReport) -> int:
    """Write page and tiles; returns the number of tiles.

    `folder` is there as a whole or not at all. Raises OutputError, DiskFullError, and what the
    view's tiles raise.
    """
    check_folder(folder, overwrite)
    total = sum(map(count_tiles, view.layers.values()))
    size = sum(source.size_bytes() for source in view.layers.values())
    progress.note(f"writing {total} tiles, about {spoken_size(size)}, to {folder}")
    free = shutil.disk_usage(folder.parent).free
    if size > free:
        raise DiskFullError(
            f"{folder.parent} has {spoken_size(free)} left, about {spoken_size(size)} are needed; "
            "give --html on another disk"
        )
    partial = _partial(folder)
    with _translated(folder):
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
        try:
            progress.start(total, 0)
            # First of all the page: it tells an unfinished folder of ours from another.
            for name, file in page_files(view).items():
                _write(partial / name, file.data)
            for name, source in view.layers.items():
                _write_tiles(partial / name, source, progress)
            if hasattr(os, "sync"):  # once for all: thousands of small files, synchronised one by
                os.sync()  # one, take minutes
            _replace(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            progress.close()
    return total


def _write_tiles(folder: Path, source: TileSource, progress: ProgressReport) -> None:
    for level in source.levels:
        for key in source.keys(level).tolist():
            tile = tile_of(key, level)
            data = source.get_tile(tile)
            if data is None:
                raise MapError(f"tile {level}/{tile.x}/{tile.y} is gone; start c2gm-view again")
            _write(folder / str(level) / str(tile.x) / f"{tile.y}.{source.suffix}", data)
            progress.advance(level, 1)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _replace(partial: Path, folder: Path) -> None:
    """Put the new folder where the old one is, which is gone only when the new one is there."""
    if not folder.exists():
        partial.rename(folder)
        return
    old = folder.with_name(folder.name + ".replaced")
    folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old)


def _partial(folder: Path) -> Path:
    return folder.with_name(folder.name + ".partial")


def _is_ours(folder: Path) -> bool:
    index = folder / "index.html"
    return not folder.is_symlink() and index.is_file() and MARK in index.read_bytes()


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"no space left for {folder}, nothing was kept; free some, or give --html elsewhere"
            ) from None
        raise OutputError(f"{folder} cannot be written ({error}); check folder and disk") from None
