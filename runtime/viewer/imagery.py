"""Imagery under a map: tiles of the scene, warped when they are asked for."""

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from mercantile import Tile
from PIL import Image

from c2gm.runtime.errors import SceneError
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.scene import Scene
from c2gm.runtime.viewer.source import Keys, TileSource, tile_of

QUALITY = 90
"""Of WebP, which unlike JPEG has transparency and unlike PNG is small: one kind for all tiles.

On aerial imagery of levels 15-17 a tile takes 10-30 kB, and steps across tile borders are 1.03 to
1.12 times those of the imagery; at quality 82 they are 1.12 to 1.15 times, and begin to show.
"""

CACHED_TILES = 1024
"""About 30 MB."""

FINER_THAN_DATA = 1
"""Tiles of the scene are made up to this many levels finer than it; beyond, browsers enlarge."""

_PROBES = 12


class ImageryTiles:
    """The scene's tiles where the map has some, opened by `ImageryTiles.open`."""

    suffix = "webp"

    def __init__(self, scene: Scene, keys: dict[int, Keys], credit: str) -> None:
        self._scene = scene
        self._keys = keys
        self.name = scene.path.name
        self.credit = credit
        self.levels = tuple(level for level, found in keys.items() if len(found))
        self._made = lru_cache(CACHED_TILES)(self._make)

    @classmethod
    def open(cls, path: Path, under: TileSource, credit: str = "") -> "ImageryTiles":
        """Open a scene for a map; `credit` names whom it is owed to.

        Raises SceneError where it is unusable or lies elsewhere.
        """
        scene = Scene.open(path)
        try:
            finest = max(scene.native_level + FINER_THAN_DATA, under.levels[0])
            keys = {
                level: np.intersect1d(
                    under.keys(level),
                    np.concatenate([part.tiles(level) for part in scene.footprints]),
                )
                for level in under.levels
                if level <= finest
            }
            if not any(map(len, keys.values())):
                raise SceneError(
                    f"{path} and the map do not overlap; give the imagery that the map was made of"
                )
            return cls(scene, keys, credit)
        except BaseException:
            scene.close()
            raise

    def keys(self, level: int) -> Keys:
        """All tiles of a level."""
        return self._keys.get(level, np.empty(0, np.int64))

    def get_tile(self, tile: Tile) -> bytes | None:
        """WebP of a tile, transparent where the scene has no data. Raises SceneError."""
        keys, key = self.keys(tile.z), tile.y << 32 | tile.x
        place = int(np.searchsorted(keys, key))
        return self._made(tile) if place < len(keys) and keys[place] == key else None

    def size_bytes(self) -> int:
        """Estimated from some tiles of each level."""
        total = 0.0
        for level in self.levels:
            keys = self.keys(level)
            some = keys[:: max(1, len(keys) // _PROBES)]
            sizes = [len(self._made(tile_of(key, level))) for key in some.tolist()]
            total += sum(sizes) / len(sizes) * len(keys)
        return round(total)

    def close(self) -> None:
        """Close the scene."""
        self._scene.close()

    def _make(self, tile: Tile) -> bytes:
        left, top = tile.x * TILE_SIZE, tile.y * TILE_SIZE
        picture = self._scene.read(tile.z, left, top, TILE_SIZE, TILE_SIZE)
        opaque = bool((picture[..., 3] == 255).all())
        buffer = io.BytesIO()
        image = Image.fromarray(np.ascontiguousarray(picture[..., :3] if opaque else picture))
        image.save(buffer, "WEBP", quality=QUALITY, method=2)
        return buffer.getvalue()
