"""A map that is quickly made: the real archive over a real scene, painted without a model."""

from pathlib import Path

import numpy as np
from mercantile import Tile

from c2gm.runtime.archive import Archive
from c2gm.runtime.grid import Plan, Window, plan
from c2gm.runtime.mbtiles import Metadata
from c2gm.runtime.pixels import Picture
from c2gm.runtime.scene import Scene
from c2gm.runtime.tile_codec import encode_tile

LEVELS = (13, 14, 16)
ATTRIBUTION = "Painted by a test, <a href='https://example.org'>nobody</a> &amp; co."
METADATA = Metadata(
    name="painted & <b>bold</b>",
    attribution=ATTRIBUTION,
    description="a painted map",
    version="1",
    date="2026-01-02",
    c2gm={"model": "brush", "version": "0.0", "seed": 7, "steps": 3, "training_data": ["a", "b"]},
)


def picture_of(tile: Tile) -> Picture:
    """Four flat fields of colours that no other tile near by has; one of them has no data."""
    rng = np.random.default_rng([tile.z, tile.x, tile.y])
    picture = np.full((256, 256, 4), 255, np.uint8)
    fields = rng.integers(30, 226, (2, 2, 3)).astype(np.uint8)
    picture[..., :3] = fields.repeat(128, axis=0).repeat(128, axis=1)
    if (tile.x + tile.y) % 3 == 0:
        picture[128:, 128:, 3] = 0
    return picture


def planned(scene: Path) -> Plan:
    """All tiles of LEVELS over the scene."""
    with Scene.open(scene) as opened:
        return plan(LEVELS, opened.footprints)


def open_painting(scene: Path, output: Path) -> Archive:
    """The archive of a run, begun or gone on with."""
    return Archive.open(output, planned(scene), METADATA, {"scene": "small"})


def paint(archive: Archive, window: Window, tiles: list[Tile]) -> None:
    """One window of it."""
    archive.put_window(window, [(tile, encode_tile(picture_of(tile))) for tile in tiles])


def paint_map(scene: Path, output: Path) -> Path:
    """A finished map of the scene."""
    everything = planned(scene)
    with open_painting(scene, output) as archive:
        for level in LEVELS:
            for window in everything.windows(level):
                paint(archive, window, everything.tiles_of(window))
        return archive.finish()
