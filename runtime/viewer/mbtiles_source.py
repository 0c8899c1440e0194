"""An MBTiles file as the viewer reads it: ours or others', never written to."""

import json
import math
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from mercantile import Tile

from c2gm.runtime.errors import MapError
from c2gm.runtime.footprint import Box, degrees_from_world
from c2gm.runtime.mbtiles import has_ledger, tms_address
from c2gm.runtime.viewer.source import About, Keys, picture_suffix

_FINEST = 30  # beyond it columns and rows leave 31 bits

GENERATED = "AI-generated map: drawn by a model, not surveyed. Check before use."
"""What stands under every map of c2gm."""

Stamp = tuple[int, int, int]


class MbtilesSource:
    """An MBTiles file, opened by `MbtilesSource.open`.

    SQLite opens it immutable: it takes no lock and leaves no file beside it. That is right only
    while nobody writes, so every read looks whether somebody has begun to, and refuses then.
    """

    suffix: str

    def __init__(self, path: Path, connection: sqlite3.Connection, stamp: Stamp) -> None:
        self.path = path
        self._connection = connection
        self._stamp = stamp
        self._lock = threading.Lock()
        with self._reading():
            self._keys = _read_keys(path, connection)
            if not self._keys:
                raise MapError(f"{path} holds no tile yet; look again when its run has made some")
            self.levels = tuple(self._keys)
            self.suffix = _suffix(path, connection)
            self.bounds, self.about = _describe(path, connection, self._keys)

    @classmethod
    def open(cls, path: Path) -> "MbtilesSource":
        """Open a finished file, or a partial one that no run holds. Raises MapError."""
        if not path.is_file():
            found = "is a folder" if path.is_dir() else "does not exist"
            raise MapError(f"{path} {found}; give an MBTiles file, as c2gm-infer makes them")
        stamp = _stamp(path)
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        try:
            connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise MapError(f"{path} cannot be opened ({error}); check its permissions") from None
        try:
            return cls(path, connection, stamp)
        except BaseException:
            connection.close()
            raise

    def keys(self, level: int) -> Keys:
        """All tiles of a level."""
        return self._keys.get(level, np.empty(0, np.int64))

    def get_tile(self, tile: Tile) -> bytes | None:
        """A tile as the file holds it. Raises MapError where the file is damaged or written to."""
        with self._reading():
            row = self._connection.execute(
                "SELECT tile_data FROM tiles WHERE zoom_level=? AND tile_column=? AND tile_row=?",
                tms_address(tile),
            ).fetchone()
        return None if row is None else bytes(row[0])

    def size_bytes(self) -> int:
        """All tiles together."""
        with self._reading():
            (size,) = self._connection.execute(
                "SELECT COALESCE(SUM(LENGTH(tile_data)), 0) FROM tiles"
            ).fetchone()
        return int(size)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise MapError(
                    f"{self.path} is not an MBTiles file, or it is damaged ({error}); give a map "
                    "made by c2gm-infer, or another MBTiles file"
                ) from None
            if _stamp(self.path) != self._stamp:
                raise MapError(
                    f"{self.path} has changed since it was opened; start c2gm-view again"
                )


def _stamp(path: Path) -> Stamp:
    """What changes when a file is replaced or written to. Raises MapError while somebody writes."""
    for suffix in ("-wal", "-journal"):
        beside = path.with_name(path.name + suffix)
        if beside.is_file() and beside.stat().st_size:
            raise MapError(
                f"{path} is being written, or a run on it was killed ({beside.name} lies beside "
                "it); wait for the run, or run its command again to finish it"
            )
    try:
        found = path.stat()
    except OSError as error:
        raise MapError(f"{path} cannot be read ({error}); start c2gm-view again") from None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read_keys(path: Path, connection: sqlite3.Connection) -> dict[int, Keys]:
    levels = [level for (level,) in connection.execute("SELECT DISTINCT zoom_level FROM tiles")]
    if any(not isinstance(level, int) or not 0 <= level <= _FINEST for level in levels):
        raise MapError(f"{path} has tiles of levels {levels!s:.60}, expected 0 to {_FINEST}")
    keys = {}
    for level in sorted(levels):
        rows = connection.execute(
            "SELECT tile_column, tile_row FROM tiles WHERE zoom_level=?", (level,)
        )
        try:
            pairs = np.fromiter((n for row in rows for n in row), np.int64).reshape(-1, 2)
        except (TypeError, ValueError, OverflowError):
            raise MapError(f"{path} has tiles of level {level} without a place") from None
        last = (1 << level) - 1
        if pairs.min() < 0 or pairs.max() > last:
            raise MapError(f"{path} has tiles beyond the world at level {level}; make it again")
        keys[level] = np.unique((last - pairs[:, 1]) << 32 | pairs[:, 0])
    return keys


def _suffix(path: Path, connection: sqlite3.Connection) -> str:
    """Of the first tile: what the file is, whatever its metadata says."""
    (data,) = connection.execute("SELECT tile_data FROM tiles LIMIT 1").fetchone()
    suffix = picture_suffix(data) if isinstance(data, bytes) else None
    if suffix is None:
        row = connection.execute("SELECT value FROM metadata WHERE name='format'").fetchone()
        kind = row[0] if row else "unknown"
        raise MapError(
            f"{path} holds tiles of the format {kind!s:.40}, expected png, jpg or webp; give a map "
            "of pictures"
        )
    return suffix


def _describe(
    path: Path, connection: sqlite3.Connection, keys: Mapping[int, Keys]
) -> tuple[Box, About]:
    rows = {
        str(name): str(value)
        for name, value in connection.execute("SELECT name, value FROM metadata")
    }
    try:
        origin = json.loads(rows.get("c2gm", "null"))
    except ValueError:
        origin = None
    ours = origin if isinstance(origin, dict) else {}
    brief, more = _provenance(ours, tuple(keys))
    if ours and rows.get("date"):
        brief.append(("Date", _plain(rows["date"])))
    if has_ledger(connection):
        count = sum(map(len, keys.values()))
        brief.insert(0, ("State", f"unfinished, {count} tiles so far"))
    about = About(
        name=_plain(rows.get("name", "")) or path.stem,
        description=_plain(rows.get("description", "")),
        attribution=_plain(rows.get("attribution", "")),
        caution=GENERATED if ours else "",
        brief=tuple(brief),
        more=tuple(more),
    )
    return _bounds(rows.get("bounds", ""), keys), about


def _provenance(
    ours: Mapping[str, object], levels: tuple[int, ...]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Labels and values of the row `c2gm` (see `Job.metadata`), those that are there."""

    def said(*names: tuple[str, str]) -> list[tuple[str, str]]:
        return [(label, _text(ours[name])) for label, name in names if ours.get(name) is not None]

    brief = said(
        ("Model", "model"),
        ("c2gm version", "version"),
        ("Seed", "seed"),
        ("Steps", "steps"),
    )
    more = said(
        ("Precision", "precision"),
        ("Cascade", "cascade"),
        ("Imagery", "imagery"),
        ("Backend", "backend"),
        ("Weights", "weights"),
        ("Licence of the weights", "licence"),
        ("Trained on", "training_data"),
        ("Model SHA-256", "model_sha256"),
    )
    return [*brief, ("Levels", spoken_levels(levels))], more


def spoken_levels(levels: tuple[int, ...]) -> str:
    """`10-14, 16`."""
    parts: list[list[int]] = []
    for level in levels:
        if parts and parts[-1][-1] == level - 1:
            parts[-1].append(level)
        else:
            parts.append([level])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def _text(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def _bounds(text: str, keys: Mapping[int, Keys]) -> Box:
    """As the metadata say, where that is a box on the earth; else around the finest tiles."""
    try:
        west, south, east, north = map(float, text.split(","))
    except ValueError:
        west = south = east = north = math.nan
    if -180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and west != east:
        return west, south, east, north
    level, finest = max(keys.items())
    rows, columns = finest >> 32, finest & 0xFFFFFFFF
    side = 1 / (1 << level)
    west, north = degrees_from_world(int(columns.min()) * side, int(rows.min()) * side)
    east, south = degrees_from_world((int(columns.max()) + 1) * side, (int(rows.max()) + 1) * side)
    return west, south, east, north


class _PlainText(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def _plain(text: str) -> str:
    """Text without the markup that MBTiles allow in an attribution."""
    parser = _PlainText()
    parser.feed(text)
    parser.close()
    return " ".join("".join(parser.parts).split())
