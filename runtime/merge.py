"""The shards of a run become its map: the file that one machine would have made.

It is written as a run writes its own (archive.py): beside, in transactions, with a ledger; every
tile is verified before the file gets its name, and a merge that was stopped goes on.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np
from mercantile import Tile

from c2gm.runtime.archive import Archive, check_output, partial_path
from c2gm.runtime.errors import Interrupted, OptionError, OutputError
from c2gm.runtime.grid import Plan, Window
from c2gm.runtime.mbtiles import (
    UnusablePartial,
    differences,
    has_ledger,
    tile_keys,
    tms_address,
    translated,
)
from c2gm.runtime.progress import ProgressReport
from c2gm.runtime.shards import Shard, parse_shard
from c2gm.runtime.verify import SEAL, read_only, verify_file

_OWN_ROWS = ("name", "date", "c2gm", "c2gm_fingerprint", SEAL)
"""Rows of the metadata table that may differ from shard to shard."""

_COMMITTED_AT_A_TIME = 64
"""Windows; a kill loses so many at most."""


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A finished shard: its file, which one it is, its run's fingerprint, its metadata."""

    path: Path
    shard: Shard
    fingerprint: Mapping[str, str]
    rows: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge made. `tiles`: by level."""

    output: Path
    shards: int
    tiles: Mapping[int, int]
    seconds_total: float

    def as_json(self) -> dict[str, object]:
        """Plain values for `json.dumps`."""
        return {
            "output": str(self.output),
            "shards": self.shards,
            "tiles": {str(level): count for level, count in self.tiles.items()},
            "seconds_total": round(self.seconds_total, 3),
        }


def merge(
    shards: Sequence[Path], output: Path, progress: ProgressReport, overwrite: bool = False
) -> Merged:
    """Merge all shards of one run; they are left as they are.

    Raises OptionError, OutputError (a shard is missing, given twice, unfinished, damaged or of
    another run), DiskFullError; Interrupted after Ctrl-C.
    """
    start = perf_counter()
    if output.suffix != ".mbtiles":
        raise OptionError(f"--output is {output}, expected a name ending in .mbtiles")
    check_output(output, overwrite)
    if any(path.exists() and output.exists() and path.samefile(output) for path in shards):
        raise OptionError(f"{output} is also one of the shards; give another --output")
    parts = _of_one_run([read_shard(path) for path in shards])
    progress.note(f"checking {len(parts)} shards")
    counts = [sum(verify_file(part.path, decode=False).tiles.values()) for part in parts]
    plans = [_plan_of(part) for part in parts]
    whole = replace(
        plans[0],
        keys={
            level: np.unique(np.concatenate([part.keys[level] for part in plans]))
            for level in plans[0].levels
        },
    )
    tiles = {level: whole.tile_count(level) for level in whole.levels}
    if sum(tiles.values()) != sum(counts):
        raise OutputError(f"shards of {output} hold the same tiles; make them again")
    try:
        with Archive.begin(output, whole, _merged_rows(parts, output), overwrite) as archive:
            _copy(parts, plans, archive, sum(counts), progress)
            progress.note(f"verifying {sum(counts)} tiles")
            archive.finish()
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; what is merged is in {partial_path(output)}, the same command goes on"
        ) from None
    finally:
        progress.close()
    return Merged(output, len(parts), tiles, perf_counter() - start)


def read_shard(path: Path) -> ShardFile:
    """What a file says about itself. Raises OutputError for what is not a finished shard."""
    if not path.is_file():
        raise OutputError(f"{path} is not a file; give what c2gm-infer --shard wrote")
    try:
        with translated(path), closing(read_only(path)) as connection:
            if has_ledger(connection):
                raise OutputError(f"{path} is not finished; run its command again, it goes on")
            rows = dict(connection.execute("SELECT name, value FROM metadata"))
    except UnusablePartial:
        raise OutputError(
            f"{path} is no shard, or damaged; give what c2gm-infer --shard wrote, or make it again"
        ) from None
    try:
        fingerprint = dict(json.loads(rows["c2gm_fingerprint"]))
        text = str(fingerprint["shard"])
    except (KeyError, ValueError, TypeError):
        raise OutputError(f"{path} is not a shard that this version of c2gm-infer made") from None
    if text == "none":
        raise OutputError(f"{path} is a whole map, not a shard; leave it out")
    return ShardFile(path, parse_shard(text), fingerprint, rows)


def run_of(fingerprint: Mapping[str, str], shard: Shard | None = None) -> dict[str, str]:
    """Fingerprint of the run over the whole that a shard belongs to, or of another of its parts."""
    return {**fingerprint, "shard": "none" if shard is None else str(shard)}


def _of_one_run(parts: Iterable[ShardFile]) -> list[ShardFile]:
    """Shards in order. Raises OutputError unless they are all parts of one map, each once."""
    ordered = sorted(parts, key=lambda part: part.shard)
    first, found = ordered[0], dict[Shard, ShardFile]()
    for part in ordered:
        if part.shard.count != first.shard.count:
            raise OutputError(
                f"{first.path} is shard {first.shard}, {part.path} is {part.shard}; merge those of "
                "one count"
            )
        if part.shard in found:
            raise OutputError(
                f"{found[part.shard].path} and {part.path} are both shard {part.shard}; give one "
                "of them"
            )
        if what := differences(run_of(first.fingerprint), run_of(part.fingerprint)):
            raise OutputError(
                f"{part.path} is of another run than {first.path} ({what}); merge shards of one run"
            )
        if what := differences(_common(first), _common(part)):
            raise OutputError(f"{part.path} does not fit {first.path} ({what}); make it again")
        found[part.shard] = part
    wanted = [Shard(index + 1, first.shard.count) for index in range(first.shard.count)]
    if missing := [str(shard) for shard in wanted if shard not in found]:
        raise OutputError(
            f"shard {', '.join(missing)} is missing; make it with the others' command and --shard "
            f"{missing[0]}, and give all of them"
        )
    return ordered


def _common(part: ShardFile) -> dict[str, str]:
    """What all shards of a run say alike; each may have run on another machine."""
    rows = {name: value for name, value in part.rows.items() if name not in _OWN_ROWS}
    about = {name: json.dumps(value) for name, value in json.loads(part.rows["c2gm"]).items()}
    del about["backend"]
    return {**rows, **about}


def _merged_rows(parts: Sequence[ShardFile], output: Path) -> dict[str, str]:
    """The metadata of the whole map, row for row as one machine writes them."""
    rows = dict(parts[0].rows)
    del rows[SEAL]
    about = json.loads(rows["c2gm"])
    about["backend"] = "; ".join(
        sorted({str(json.loads(part.rows["c2gm"])["backend"]) for part in parts})
    )
    if "date" in rows:
        rows["date"] = min(part.rows["date"] for part in parts)
    return {
        **rows,
        "name": output.stem,
        "c2gm": json.dumps(about, sort_keys=True),
        "c2gm_fingerprint": json.dumps(run_of(parts[0].fingerprint), sort_keys=True),
    }


def _plan_of(part: ShardFile) -> Plan:
    """The tiles of a shard as the plan of a run that would make them."""
    fingerprint = part.fingerprint
    levels = tuple(map(int, fingerprint["levels"].split(",")))
    west, south, east, north = map(float, part.rows["bounds"].split(","))
    with translated(part.path), closing(read_only(part.path)) as connection:
        keys = {level: tile_keys(connection, level) for level in levels}
    side, halo = int(fingerprint["window"]), int(fingerprint["halo"])
    return Plan(levels, side, halo, (west, south, east, north), keys)


def _copy(
    parts: Sequence[ShardFile],
    plans: Sequence[Plan],
    archive: Archive,
    total: int,
    progress: ProgressReport,
) -> None:
    """All windows that a stopped merge has not copied yet, some at a time."""
    done = archive.done()
    kept = sum(
        len(planned.tiles_of(window))
        for planned in plans
        for level in planned.levels
        for window in planned.windows(level)
        if window.key in done
    )
    progress.start(total, kept)
    for part, planned in zip(parts, plans, strict=True):
        missing = (
            window
            for level in planned.levels
            for window in planned.windows(level)
            if window.key not in done
        )
        for some in _read(part.path, planned, missing):
            archive.put_windows(some)
            progress.advance(some[-1][0].level, sum(len(tiles) for _, tiles in some))


def _read(
    path: Path, planned: Plan, windows: Iterator[Window]
) -> Iterator[list[tuple[Window, list[tuple[Tile, bytes]]]]]:
    """Windows with their tiles out of a shard, some at a time."""
    with translated(path), closing(read_only(path)) as connection:

        def data(tile: Tile) -> bytes:
            query = (
                "SELECT tile_data FROM tiles WHERE zoom_level=? AND tile_column=? AND tile_row=?"
            )
            return bytes(connection.execute(query, tms_address(tile)).fetchone()[0])

        while some := list(islice(windows, _COMMITTED_AT_A_TIME)):
            yield [(w, [(tile, data(tile)) for tile in planned.tiles_of(w)]) for w in some]
