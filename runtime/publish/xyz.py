"""A folder of tiles, LEVEL/COLUMN/ROW.png, with its TileJSON: for any web server."""

import json
import os
from pathlib import Path

from c2gm.runtime.archive import sync
from c2gm.runtime.errors import OutputError
from c2gm.runtime.mbtiles import tms_address
from c2gm.runtime.publish.facts import Facts, extension
from c2gm.runtime.publish.tileset import TileSet

TILEJSON = "tile.json"


def write_xyz(folder: Path, tiles: TileSet, facts: Facts) -> None:
    """Write a new folder; with `tms` rows count from the south. Raises OutputError, OSError."""
    folder.mkdir()
    ending = extension(facts.options)
    made: set[Path] = set()
    for level in tiles.levels:
        for tile, data in tiles.encoded(tiles.tiles(level)):
            row = tms_address(tile)[2] if facts.options.tms else tile.y
            column = folder / str(level) / str(tile.x)
            if column not in made:
                column.mkdir(parents=True)
                made.add(column)
            path = column / f"{row}.{ending}"
            path.write_bytes(data)
            if not hasattr(os, "sync"):
                sync(path)
    document = facts.tilejson(
        [f"{{z}}/{{x}}/{{y}}.{ending}"], "tms" if facts.options.tms else "xyz"
    )
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / TILEJSON).write_text(text, encoding="utf-8")
    sync(folder / TILEJSON)
    if hasattr(os, "sync"):
        os.sync()  # one call for all files; fsync for each takes as long as drawing them


def check_replaceable(folder: Path) -> None:
    """Raises OutputError unless a folder is one of ours, which may be deleted as a whole."""
    try:
        document = json.loads((folder / TILEJSON).read_text(encoding="utf-8"))
        ours = "c2gm" in document and all(
            path.name == TILEJSON or (path.name.isdecimal() and path.is_dir())
            for path in folder.iterdir()
        )
    except (OSError, ValueError, TypeError):
        ours = False
    if not ours:
        raise OutputError(
            f"{folder} is not a folder of tiles made by c2gm, or holds more than that; it is not "
            "replaced: give another --output"
        )
