"""The MBTiles file of a run with its ledger: every commit is whole, every run can go on.

A run writes `NAME.mbtiles.partial` (SQLite in WAL mode, synchronous=FULL). The tiles of a window
and its rows of the ledger enter in one transaction: what the ledger lists is there after any crash.
`finish` checks every planned tile, takes the ledger out and renames the file. The connection holds
SQLite's exclusive lock: a second run on the same output is refused.
"""

import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from mercantile import Tile

from c2gm.runtime.cpu import available_cores
from c2gm.runtime.errors import OutputError
from c2gm.runtime.grid import Plan, Window
from c2gm.runtime.mbtiles import (
    Metadata,
    UnusablePartial,
    connect,
    has_ledger,
    metadata_rows,
    tile_keys,
    tms_address,
    transaction,
    translated,
)
from c2gm.runtime.tile_codec import decode_tile
from c2gm.runtime.verify import SEAL, seal

_VERIFIED_AT_A_TIME = 256


class Archive:
    """The output of one run, opened by `Archive.open`; a context manager. Any thread may call it.

    Leaving the context without `finish` keeps the partial file for the next run, unless an error
    came before anything was in it.
    """

    def __init__(
        self, output: Path, connection: sqlite3.Connection, plan: Plan, overwrite: bool = False
    ) -> None:
        self.output = output
        self._overwrite = overwrite
        self.partial = partial_path(output)
        self._connection = connection
        self._plan = plan
        self._lock = threading.RLock()

    @classmethod
    def open(
        cls,
        output: Path,
        plan: Plan,
        metadata: Metadata,
        fingerprint: Mapping[str, str],
        overwrite: bool = False,
        output_may_exist: bool = False,
    ) -> Self:
        """Begin a run's output, or go on with its partial file.

        `fingerprint` names everything that decides what the tiles look like; a partial file with
        another one is refused. `overwrite` allows to replace a finished output (when this run
        finishes) and to drop a foreign or damaged partial file. `output_may_exist`: of a run that
        was stopped while its outputs got their names. Raises OutputError, DiskFullError.
        """
        rows = metadata_rows(plan, metadata, fingerprint)
        return cls.begin(output, plan, rows, overwrite, output_may_exist)

    @classmethod
    def begin(
        cls,
        output: Path,
        plan: Plan,
        rows: Mapping[str, str],
        overwrite: bool = False,
        output_may_exist: bool = False,
    ) -> Self:
        """As `open`, with the rows of the metadata table as they are to be (`metadata_rows`)."""
        check_output(output, overwrite or output_may_exist)
        partial = partial_path(output)
        try:
            connection = connect(partial, rows)
        except UnusablePartial:
            if not overwrite:
                raise
            _remove(partial)
            connection = connect(partial, rows)
        return cls(output, connection, plan, overwrite)

    def done(self) -> frozenset[str]:
        """Keys of the windows whose tiles are all in the file."""
        with self._locked():
            if not has_ledger(self._connection):  # a run that ended between finish and rename
                plan = self._plan
                return frozenset(w.key for level in plan.levels for w in plan.windows(level))
            rows = self._connection.execute("SELECT DISTINCT window FROM c2gm_ledger")
            return frozenset(key for (key,) in rows)

    def get_tile(self, tile: Tile) -> bytes | None:
        """PNG of a tile; None where it is not made yet or holds no data."""
        with self._locked():
            row = self._connection.execute(
                "SELECT tile_data FROM tiles WHERE zoom_level=? AND tile_column=? AND tile_row=?",
                tms_address(tile),
            ).fetchone()
        return None if row is None else bytes(row[0])

    def put_window(self, window: Window, tiles: Sequence[tuple[Tile, bytes | None]]) -> None:
        """Commit a finished window: its planned tiles as PNG, None for tiles without data.

        Either all of it is in the file afterwards, power cut or not, or nothing. Raises
        DiskFullError, OutputError; ValueError unless `tiles` are the planned tiles of the window.
        """
        self.put_windows([(window, tiles)])

    def put_windows(
        self, windows: Sequence[tuple[Window, Sequence[tuple[Tile, bytes | None]]]]
    ) -> None:
        """Commit several windows at once, all or none; see `put_window`."""
        for window, tiles in windows:
            planned = self._plan.tiles_of(window)
            if not planned or sorted(tile for tile, _ in tiles) != sorted(planned):
                found = [tile for tile, _ in tiles]
                raise ValueError(f"window {window.key} holds {planned}, got {found}")
        ledger = [
            (window.key, *tms_address(tile), data and hashlib.sha256(data).hexdigest())
            for window, tiles in windows
            for tile, data in tiles
        ]
        rows = [
            (*tms_address(tile), data)
            for _, tiles in windows
            for tile, data in tiles
            if data is not None
        ]
        with self._locked(), transaction(self._connection):
            self._connection.executemany("INSERT OR REPLACE INTO tiles VALUES (?, ?, ?, ?)", rows)
            self._connection.executemany(
                "INSERT OR REPLACE INTO c2gm_ledger VALUES (?, ?, ?, ?, ?)", ledger
            )

    def seal(self) -> sqlite3.Connection:
        """Verify every planned tile, take the ledger out; returns the connection, to be read from.

        Raises OutputError where a tile is missing or damaged: it is struck from the ledger, so that
        the same command makes it anew. Raises DiskFullError.
        """
        with self._locked():
            if has_ledger(self._connection):
                self._verify()
                with transaction(self._connection):
                    self._connection.execute(
                        "INSERT OR REPLACE INTO metadata VALUES (?, ?)",
                        (SEAL, seal(self._connection).text()),
                    )
                    self._connection.execute("DROP TABLE c2gm_ledger")
        return self._connection

    def discard(self) -> None:
        """Delete the partial file: the run's outputs were published from it."""
        self.close()
        _remove(self.partial)

    def finish(self) -> Path:
        """Seal, and rename to the output; returns its path. Raises as `seal`."""
        with self._locked():
            self.seal()
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.execute("PRAGMA journal_mode=DELETE")
            self._connection.close()
            sync(self.partial)
            check_output(self.output, self._overwrite)  # it may have appeared while the run went on
            os.replace(self.partial, self.output)
            if os.name == "posix":  # elsewhere folders cannot be synchronised
                sync(self.output.parent)
        return self.output

    def close(self) -> None:
        """Close the file and give up its lock."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            if error is not None and self._empty():
                _remove(self.partial)  # before the lock is given up: it is nobody else's yet
        self.close()

    def _empty(self) -> bool:
        """Whether the file is open, holds no window yet, and can be removed while it is open."""
        try:
            query = "SELECT (SELECT 1 FROM c2gm_ledger LIMIT 1) IS NULL"
            return os.name == "posix" and bool(self._connection.execute(query).fetchone()[0])
        except sqlite3.Error:  # closed by `finish`, or damaged: then it is kept
            return False

    def _verify(self) -> None:
        for level in self._plan.levels:
            keys = tile_keys(self._connection, level, "c2gm_ledger")
            missing = np.setdiff1d(self._plan.keys[level], keys).size
            if missing:
                raise OutputError(
                    f"{self.partial} lacks {missing} of {self._plan.tile_count(level)} tiles of "
                    f"level {level}; run the same command again to make them"
                )
        damaged = [window for window, whole in self._check_tiles() if not whole]
        if damaged:
            with transaction(self._connection):
                self._connection.executemany(
                    "DELETE FROM c2gm_ledger WHERE window=?", [(window,) for window in damaged]
                )
            raise OutputError(
                f"{self.partial} holds damaged tiles in {len(damaged)} windows (the first: "
                f"{damaged[0]}); run the same command again to make them anew"
            )

    def _check_tiles(self) -> Iterator[tuple[str, bool]]:
        """(window, whole) of every tile in the ledger."""
        rows = self._connection.execute(
            "SELECT window, sha256, tile_data FROM c2gm_ledger LEFT JOIN tiles "
            "USING (zoom_level, tile_column, tile_row)"
        )
        with ThreadPoolExecutor(available_cores(), "c2gm-verify") as threads:
            while some := rows.fetchmany(_VERIFIED_AT_A_TIME):
                yield from threads.map(_check_tile, some)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock, translated(self.partial):
            yield


def _check_tile(row: tuple[str, str | None, bytes | None]) -> tuple[str, bool]:
    """(window, whole) of a window, a hash and a tile; both are None where there is no data."""
    window, sha256, data = row
    if sha256 is None or data is None:
        return window, sha256 is None and data is None
    try:
        decode_tile(data)
    except OutputError:
        return window, False
    return window, hashlib.sha256(data).hexdigest() == sha256


def partial_path(output: Path) -> Path:
    """Where a run writes until it is finished."""
    return output.with_name(output.name + ".partial")


def check_output(output: Path, overwrite: bool = False) -> None:
    """Refuse early what `Archive.open` would refuse. Raises OutputError."""
    try:
        os.lstat(partial_path(output))
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        raise OutputError(
            f"{output.parent} is not a folder; create it, or give another --output"
        ) from None
    except OSError as error:
        raise OutputError(
            f"{output} cannot be written ({error.strerror}); give another --output"
        ) from None
    if output.is_dir():
        raise OutputError(f"{output} is a folder, expected a file name; give --output FILE.mbtiles")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists; give another --output, or --overwrite to replace it")
    if not output.parent.is_dir():
        raise OutputError(f"{output.parent} is not a folder; create it, or give another --output")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{output.parent} cannot be written; give --output in another folder")


def _remove(partial: Path) -> None:
    with translated(partial):
        for suffix in ("-wal", "-shm", "-journal", ""):
            partial.with_name(partial.name + suffix).unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
