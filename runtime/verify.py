"""Is a finished map whole? Every tile is decoded and compared with what its run wrote down.

A run seals its file when it finishes: the number of tiles of each level, and a digest of their
addresses and bytes in order. A tile that is lost, added, changed or damaged later breaks the seal.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from c2gm.runtime.errors import OutputError
from c2gm.runtime.mbtiles import has_ledger, translated
from c2gm.runtime.tile_codec import check_tile, decode_tile

SEAL = "c2gm_tiles"
"""Metadata row of a finished file."""

PUBLISHED = "c2gm_published"
"""Metadata row of a file that was published from a finished one: how (JSON)."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A file that is whole: its tiles by level, and what made it."""

    path: Path
    tiles: Mapping[int, int]
    model: str
    version: str


@dataclass(frozen=True, slots=True)
class Seal:
    """What a finished file holds: tiles of each level, their digests, and that of the metadata."""

    tiles: Mapping[str, int]
    sha256: Mapping[str, str]
    metadata_sha256: str

    def text(self) -> str:
        """As it stands in the file (JSON)."""
        return json.dumps(asdict(self), sort_keys=True)


def seal(connection: sqlite3.Connection, look: Callable[[bytes], object] = bytes) -> Seal:
    """The seal of what a file holds now; `look` is shown every tile's data."""
    counts: dict[int, int] = {}
    digests: dict[int, Any] = {}
    rows = connection.execute(
        "SELECT zoom_level, tile_column, tile_row, tile_data FROM tiles "
        "ORDER BY zoom_level, tile_column, tile_row"
    )
    for level, column, row, data in rows:
        try:
            look(data)
        except OutputError as error:
            raise OutputError(f"tile {level}/{column}/{row} (TMS row): {error}") from None
        digest = digests.setdefault(level, hashlib.sha256())
        digest.update(f"{column}/{row}/{len(data)}:".encode() + data)
        counts[level] = counts.get(level, 0) + 1
    metadata = connection.execute(
        "SELECT name, value FROM metadata WHERE name <> ? ORDER BY name", (SEAL,)
    ).fetchall()
    return Seal(
        tiles={str(level): count for level, count in counts.items()},
        sha256={str(level): digest.hexdigest() for level, digest in digests.items()},
        metadata_sha256=hashlib.sha256(json.dumps(metadata).encode()).hexdigest(),
    )


def verify_file(path: Path, decode: bool = True) -> Verified:
    """Check a finished file: SQLite's own structure, that every tile decodes, and the seal.

    `decode`: False trusts the seal alone: tiles that are as they were sealed did decode then.
    Nothing is written. Raises OutputError with the first thing that is wrong.
    """
    if not path.is_file():
        raise OutputError(f"{path} is not a file; give a map made by c2gm-infer")
    with translated(path), closing(read_only(path)) as connection:
        try:
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise OutputError(f"a run is writing {path}; verify it when it ends") from None
            raise OutputError(
                f"{path} is no MBTiles file, or damaged ({error}); give a map that c2gm-infer or "
                "c2gm-publish wrote as MBTiles, or make it again"
            ) from None
        if found != "ok":
            raise OutputError(f"{path} is damaged ({found}); make it again")
        if has_ledger(connection):
            raise OutputError(f"{path} is not finished; run its command again, it goes on")
        try:
            rows = dict(connection.execute("SELECT name, value FROM metadata"))
            expected, origin = Seal(**json.loads(rows[SEAL])), json.loads(rows["c2gm"])
            levels = sorted({int(level) for level in expected.tiles})
            look = _look(rows)
        except (sqlite3.Error, KeyError, ValueError, TypeError, AttributeError):
            raise OutputError(
                f"{path} says nothing that it could be compared with; it is not a map of this "
                "version of c2gm-infer"
            ) from None
        try:
            here = seal(connection, look if decode else bytes)
        except OutputError as error:
            raise OutputError(f"{path} is damaged: {error}") from None
    for level in sorted({*levels, *map(int, here.tiles)}):
        made, left = expected.tiles.get(str(level), 0), here.tiles.get(str(level), 0)
        if made != left:
            raise OutputError(f"{path} has {left} tiles of level {level}, {made} were made")
    if expected != here:
        changed = [z for z, digest in here.sha256.items() if expected.sha256.get(z) != digest]
        what = f"tiles of level {', '.join(changed)}" if changed else "metadata"
        raise OutputError(f"{path} has other {what} than were made; make it again")
    tiles = {int(level): count for level, count in here.tiles.items()}
    return Verified(path, tiles, str(origin.get("model")), str(origin.get("version")))


def _look(rows: Mapping[str, str]) -> Callable[[bytes], object]:
    """What a file's tiles are checked with. Raises KeyError, ValueError for a broken row."""
    if PUBLISHED not in rows:
        return decode_tile
    return partial(check_tile, kind=rows["format"], side=int(json.loads(rows[PUBLISHED])["size"]))


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that cannot write."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
