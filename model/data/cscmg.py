"""The CSCMG layout: folders of tiles named `{z}_{x}_{y}.png`, with ready-made references.

    SET/train/  rs_256/  map_256/  ref_scale_2_256/  ref_scale_4_256/  tilelist_18_14.csv
    SET/val/    the same

A tile list names its finest and coarsest level and has a column `tilename` (`{z}_{x}_{y}`).
References are the part of the coarser map under the tile, enlarged to 256 px: scale 2 from one
level up, scale 4 from two. The published files are partly JPEG data under a .png name.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import mercantile
from PIL import Image

from c2gm.model.data.mosaic import Extent, Picture, open_areas
from c2gm.model.data.pairs import Sample, Split, Window, cut, has_reference
from c2gm.model.data.tilesets import read_picture
from c2gm.runtime.errors import DataError, OutputError
from c2gm.runtime.levels import LEVELS, SPANS, TILE_SIZE

SPLIT_FOLDERS: dict[Split, str] = {"train": "train", "validation": "val"}
_IMAGERY, _MAP = "rs_256", "map_256"


def _reference_folder(span: int) -> str:
    return f"ref_scale_{1 << span}_256"


def tile_name(tile: mercantile.Tile) -> str:
    """`{z}_{x}_{y}`."""
    return f"{tile.z}_{tile.x}_{tile.y}"


def parse_tile_name(name: str) -> mercantile.Tile:
    """The tile of `{z}_{x}_{y}`. Raises DataError for anything else or a level without prompt."""
    parts = name.split("_")
    if len(parts) != 3 or not all(part.isdigit() for part in parts) or int(parts[0]) not in LEVELS:
        raise DataError(
            f"tile name {name!r} is not LEVEL_X_Y with a level of {min(LEVELS)} to {max(LEVELS)}"
        )
    z, x, y = map(int, parts)
    return mercantile.Tile(x=x, y=y, z=z)


def is_cscmg(path: Path) -> bool:
    """Whether a folder holds a CSCMG set, or one split of one."""
    return any((folder / _IMAGERY).is_dir() for folder in (path, path / "train", path / "val"))


class CSCMGTiles:
    """One split of a CSCMG set, opened for reading; a `tilesets.TileSet`.

    All tile lists of the folder count together. Raises DataError if there is none, or if a listed
    tile lacks its imagery, its map or one of its references (it names the missing file).
    """

    def __init__(self, path: Path, split: Split = "train") -> None:
        self.path = path / SPLIT_FOLDERS[split] if not (path / _IMAGERY).is_dir() else path
        self.tiles = self._listed()
        maps = self._present(_MAP)
        self.coarsest = min(parse_tile_name(name).z for name in maps)
        present = {_IMAGERY: self._present(_IMAGERY), _MAP: maps}
        present |= {_reference_folder(s): self._present(_reference_folder(s)) for s in SPANS}
        for tile in self.tiles:
            for folder in self._folders(tile):
                if tile_name(tile) not in present[folder]:
                    raise DataError(
                        f"{self._file(folder, tile)} is missing, but its tile is in the list; "
                        "add the file or take the tile out of the list"
                    )

    def imagery(self, tile: mercantile.Tile) -> Picture:
        """RGBA (256, 256, 4)."""
        return read_picture(self._file(_IMAGERY, tile))

    def map(self, tile: mercantile.Tile) -> Picture:
        """RGB (256, 256, 3)."""
        return read_picture(self._file(_MAP, tile))[..., :3].copy()

    def reference(self, tile: mercantile.Tile, span: int) -> Picture:
        """RGBA (256, 256, 4), as stored."""
        return read_picture(self._file(_reference_folder(span), tile))

    def _folders(self, tile: mercantile.Tile) -> Iterator[str]:
        yield from (_IMAGERY, _MAP)
        yield from (_reference_folder(s) for s in SPANS if tile.z - s >= self.coarsest)

    def _file(self, folder: str, tile: mercantile.Tile) -> Path:
        return self.path / folder / f"{tile_name(tile)}.png"

    def _present(self, folder: str) -> set[str]:
        return {file.stem for file in (self.path / folder).glob("*.png")}

    def _listed(self) -> list[mercantile.Tile]:
        lists = sorted(self.path.glob("tilelist_*.csv"))
        names: set[str] = set()
        for file in lists:
            with file.open(newline="") as stream:
                reader = csv.DictReader(stream)
                if "tilename" not in (reader.fieldnames or ()):
                    raise DataError(f"{file} has no column tilename (found {reader.fieldnames})")
                names.update(row["tilename"] for row in reader)
        if not names:
            raise DataError(f"{self.path} has no tile list (tilelist_FINEST_COARSEST.csv)")
        return sorted(parse_tile_name(name) for name in names)


def write_cscmg(
    dataset: Path, output: Path, levels: tuple[int, ...], smallest_share: float = 0.5
) -> dict[Split, int]:
    """Write both splits of a dataset's areas as a CSCMG set; returns the number of tiles of each.

    Tiles need `smallest_share` of valid imagery of their split. Only tiles with all references
    down to min(levels) are written, the first area that covers a tile provides it. Raises
    OutputError if `output` exists and is not empty.
    """
    if output.exists() and any(output.iterdir()):
        raise OutputError(f"{output} exists and is not empty; choose another folder")
    counts: dict[Split, int] = {}
    for split, folder in SPLIT_FOLDERS.items():
        target = output / folder
        for name in (_IMAGERY, _MAP, *(_reference_folder(span) for span in SPANS)):
            (target / name).mkdir(parents=True, exist_ok=True)
        written: set[str] = set()
        for tile, samples in _tiles(dataset, split, levels, smallest_share):
            if tile_name(tile) not in written:
                _write_tile(target, tile_name(tile), samples)
                written.add(tile_name(tile))
        with (target / f"tilelist_{max(levels)}_{min(levels)}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([["tilename"], *([name] for name in sorted(written))])
        counts[split] = len(written)
    return counts


def _tiles(
    dataset: Path, split: Split, levels: tuple[int, ...], smallest_share: float
) -> Iterator[tuple[mercantile.Tile, dict[int, Sample]]]:
    """Tiles with their samples by span; real areas first."""
    areas = sorted(open_areas(dataset), key=lambda area: (area.kind != "real", area.name))
    for area in areas:
        for level in sorted(set(levels) & set(area.targets)):
            spans = [span for span in SPANS if level - span >= min(levels)]
            if not all(has_reference(area, level, span) for span in spans):
                continue
            extent = area.levels[level]
            rows = range(extent.top // TILE_SIZE, -(-(extent.top + extent.height) // TILE_SIZE))
            columns = range(extent.left // TILE_SIZE, -(-(extent.left + extent.width) // TILE_SIZE))
            for y in rows:
                for x in columns:
                    place = Extent(x * TILE_SIZE, y * TILE_SIZE, TILE_SIZE, TILE_SIZE)
                    window = Window(area, level, place)
                    plain = cut(window, None, split)
                    if (plain.imagery[..., 3] > 0).mean() >= smallest_share:
                        cuts = {span: cut(window, span, split) for span in spans}
                        yield mercantile.Tile(x=x, y=y, z=level), {0: plain, **cuts}


def _write_tile(target: Path, name: str, samples: dict[int, Sample]) -> None:
    plain = samples[0]
    _save(plain.imagery, target / _IMAGERY / f"{name}.png")
    _save(plain.target, target / _MAP / f"{name}.png")
    for span, sample in samples.items():
        if sample.reference is not None:
            _save(sample.reference, target / _reference_folder(span) / f"{name}.png")


def _save(picture: Picture, file: Path) -> None:
    """As RGB where everything is valid, as the published set is; else as RGBA."""
    whole = picture.shape[2] == 3 or bool((picture[..., 3] > 0).all())
    Image.fromarray(picture[..., :3] if whole else picture).save(file)
