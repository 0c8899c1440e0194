"""Folder pairs of XYZ tiles, as tile servers and gdal2tiles write them.

    SET/imagery/{z}/{x}/{y}.png      SET/map/{z}/{x}/{y}.png       (or .jpg, .webp)

References are cut from the maps of ancestors. Every eighth of the coarsest tiles (by a hash of its
place), with all its descendants, is for validation.
"""

from pathlib import Path

import mercantile
import numpy as np

from c2gm.model.data.mosaic import Picture
from c2gm.model.data.pairs import Split
from c2gm.model.data.tilesets import read_picture
from c2gm.runtime.errors import DataError
from c2gm.runtime.levels import LEVELS, SPANS, TILE_SIZE
from c2gm.runtime.pixels import enlarge

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def is_xyz(path: Path) -> bool:
    """Whether a folder holds a pair of XYZ folders."""
    return (path / "imagery").is_dir() and (path / "map").is_dir()


class XYZTiles:
    """One split of a pair of XYZ folders, opened for reading; a `tilesets.TileSet`.

    Raises DataError if the split is empty, or if the map of an ancestor that a reference needs is
    missing (it names the file).
    """

    def __init__(self, path: Path, split: Split = "train") -> None:
        self.path = path
        self._imagery, self._maps = _files(path / "imagery"), _files(path / "map")
        both = sorted(set(self._imagery) & set(self._maps))
        if not both:
            raise DataError(f"{path} has no tile with both imagery/Z/X/Y and map/Z/X/Y")
        self.coarsest = min(tile.z for tile in both)
        wanted = split == "validation"
        self.tiles = [tile for tile in both if _held_out(tile, self.coarsest) == wanted]
        if not self.tiles:
            raise DataError(
                f"none of the level-{self.coarsest} tiles of {path} falls to {split}; "
                "add more ground"
            )
        for tile in self.tiles:
            for span in SPANS:
                if tile.z - span >= self.coarsest:
                    self._ancestor(tile, span)

    def imagery(self, tile: mercantile.Tile) -> Picture:
        """RGBA (256, 256, 4)."""
        return read_picture(self._imagery[tile])

    def map(self, tile: mercantile.Tile) -> Picture:
        """RGB (256, 256, 3)."""
        return read_picture(self._maps[tile])[..., :3].copy()

    def reference(self, tile: mercantile.Tile, span: int) -> Picture:
        """RGBA (256, 256, 4): the ancestor's map under the tile, enlarged."""
        ancestor = read_picture(self._ancestor(tile, span))
        side, mask = TILE_SIZE >> span, (1 << span) - 1
        left, top = (tile.x & mask) * side, (tile.y & mask) * side
        return enlarge(ancestor[top : top + side, left : left + side], span)

    def _ancestor(self, tile: mercantile.Tile, span: int) -> Path:
        ancestor = mercantile.parent(tile, zoom=tile.z - span)
        if ancestor not in self._maps:
            file = self.path / "map" / f"{ancestor.z}" / f"{ancestor.x}" / f"{ancestor.y}.png"
            raise DataError(
                f"{file} is missing, the reference of tile {tile.z}/{tile.x}/{tile.y}; "
                "add it or take the tile out"
            )
        return self._maps[ancestor]


def _files(folder: Path) -> dict[mercantile.Tile, Path]:
    found = {}
    for file in folder.glob("*/*/*"):
        parts = (*file.parts[-3:-1], file.stem)
        if file.suffix.lower() in _SUFFIXES and all(part.isdigit() for part in parts):
            z, x, y = map(int, parts)
            if z in LEVELS:
                found[mercantile.Tile(x=x, y=y, z=z)] = file
    return found


def _held_out(tile: mercantile.Tile, coarsest: int) -> bool:
    top = tile if tile.z == coarsest else mercantile.parent(tile, zoom=coarsest)
    return bool(np.random.default_rng([top.x, top.y]).random() < 1 / 8)
