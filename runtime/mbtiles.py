"""MBTiles as SQLite sees it: schema, metadata, connection and errors. Used by `archive`."""

import errno
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mercantile import Tile
from numpy.typing import NDArray

from c2gm.runtime.errors import DiskFullError, OutputError
from c2gm.runtime.footprint import snapped
from c2gm.runtime.grid import Plan
from c2gm.runtime.levels import TILE_SIZE

APPLICATION_ID = 0x4D504258
"""SQLite application id of MBTiles ("MPBX")."""

TILE_TABLES = (
    "CREATE TABLE metadata (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE tiles (zoom_level INTEGER NOT NULL, tile_column INTEGER NOT NULL,
    tile_row INTEGER NOT NULL, tile_data BLOB NOT NULL)""",
    "CREATE UNIQUE INDEX tile_index ON tiles (zoom_level, tile_column, tile_row)",
)

_TABLES = (
    *TILE_TABLES,
    # One row a planned tile; sha256 is null for a tile that turned out to hold no data.
    """CREATE TABLE c2gm_ledger (window TEXT NOT NULL, zoom_level INTEGER NOT NULL,
    tile_column INTEGER NOT NULL, tile_row INTEGER NOT NULL, sha256 TEXT,
    PRIMARY KEY (zoom_level, tile_column, tile_row)) WITHOUT ROWID""",
)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the file says about itself. `c2gm` holds JSON values: model, seed, versions ...

    `date`: the day on which the map was begun (ISO 8601); a run that goes on keeps the first.
    """

    name: str
    attribution: str
    description: str
    version: str
    date: str
    c2gm: Mapping[str, object] = field(default_factory=dict)


class UnusablePartial(OutputError):
    """A partial file that this run cannot go on with, and that --overwrite may drop."""


class LockedPartial(OutputError):
    """A partial file that another run is writing."""


def connect(partial: Path, rows: Mapping[str, str]) -> sqlite3.Connection:
    """Open or create a partial file and lock it; `rows` are its metadata (`metadata_rows`).

    Raises UnusablePartial for a damaged file or one whose fingerprint differs, OutputError where
    another run holds it or the folder cannot be written, DiskFullError.
    """
    with translated(partial):
        connection = sqlite3.connect(
            partial, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            with transaction(connection):
                _begin(partial, connection, rows)
        except BaseException:
            connection.close()
            raise
    return connection


def _begin(partial: Path, connection: sqlite3.Connection, rows: Mapping[str, str]) -> None:
    if connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        found = dict(connection.execute("SELECT name, value FROM metadata"))
        _check_fingerprint(partial, found.get("c2gm_fingerprint"), rows["c2gm_fingerprint"])
        if not has_ledger(connection):  # sealed: what it says is part of the seal
            return
        rows = {**rows, "date": found.get("date", rows["date"])}
    else:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        for statement in _TABLES:
            connection.execute(statement)
    connection.executemany("INSERT OR REPLACE INTO metadata VALUES (?, ?)", rows.items())


def _check_fingerprint(partial: Path, found: str | None, expected: str) -> None:
    try:
        theirs = json.loads(found or "")
    except ValueError:
        theirs = None
    if not isinstance(theirs, dict):
        raise UnusablePartial(
            f"{partial} was not written by c2gm-infer; delete it, or start anew with --overwrite"
        )
    if what := differences(theirs, json.loads(expected)):
        raise UnusablePartial(
            f"{partial} was begun by another run ({what}); run that command to finish it, or "
            "start anew with --overwrite"
        )


def differences(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """How two fingerprints differ, for users; empty where they do not."""
    return "; ".join(
        f"{name} was {theirs.get(name)!s:.60}, now {ours.get(name)!s:.60}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    )


def metadata_rows(plan: Plan, metadata: Metadata, fingerprint: Mapping[str, str]) -> dict[str, str]:
    """All rows of the metadata table (MBTiles 1.3, section "Metadata"), ours under `c2gm*`."""
    west, south, east, north = snapped(plan.bounds, TILE_SIZE << plan.levels[-1])
    return {
        "name": metadata.name,
        "format": "png",
        "type": "baselayer",
        "version": metadata.version,
        "description": metadata.description,
        "attribution": metadata.attribution,
        "date": metadata.date,
        "bounds": f"{west:.8f},{south:.8f},{east:.8f},{north:.8f}",
        "center": f"{(west + east) / 2:.8f},{(south + north) / 2:.8f},{plan.levels[0]}",
        "minzoom": str(plan.levels[0]),
        "maxzoom": str(plan.levels[-1]),
        "c2gm": json.dumps(dict(metadata.c2gm), sort_keys=True),
        "c2gm_fingerprint": json.dumps(dict(fingerprint), sort_keys=True),
    }


def tms_address(tile: Tile) -> tuple[int, int, int]:
    """Zoom, column, row as MBTiles counts them: rows from the south (TMS)."""
    return tile.z, tile.x, (1 << tile.z) - 1 - tile.y


def tile_keys(
    connection: sqlite3.Connection, level: int, table: str = "tiles"
) -> NDArray[np.int64]:
    """Tiles of a level in a table of the file, as `Plan.keys` has them, ascending."""
    rows = connection.execute(
        f"SELECT tile_column, tile_row FROM {table} WHERE zoom_level=?", (level,)
    )
    last = (1 << level) - 1
    return np.sort(np.fromiter(((last - row) << 32 | column for column, row in rows), np.int64))


def has_ledger(connection: sqlite3.Connection) -> bool:
    """Whether the file is still being written."""
    query = "SELECT 1 FROM sqlite_master WHERE name='c2gm_ledger'"
    return connection.execute(query).fetchone() is not None


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing of what is executed inside."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and the file system into ours."""
    full = f"no space left for {path}; free some and run the same command again, it goes on"
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise DiskFullError(full) from None
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise LockedPartial(
                f"another run is writing {path}; wait for it, or give another --output"
            ) from None
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise UnusablePartial(
                f"{path} is damaged ({error}); delete it, or start anew with --overwrite"
            ) from None
        raise OutputError(f"{path} cannot be written ({error}); check folder and disk") from None
    except UnicodeDecodeError:  # of the name of a damaged table, in what SQLite would have said
        raise UnusablePartial(
            f"{path} is damaged (names in it are no text); delete it, or start anew with "
            "--overwrite"
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(full) from None
        raise OutputError(f"{path} cannot be written ({error}); check folder and disk") from None
