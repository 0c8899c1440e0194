"""Training from folders of tiles: what such a folder must offer, and sampling from it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import mercantile
import numpy as np
from PIL import Image, UnidentifiedImageError

from c2gm.model.data.augment import degrade_reference
from c2gm.model.data.mosaic import Area, Extent, Picture
from c2gm.model.data.mosaic_build import luma
from c2gm.model.data.pairs import DETAIL_STD, PROMPT_INDEX, Sample, Split, Window
from c2gm.model.data.sampler import SamplerOptions, augmented, draw_span, level_shares
from c2gm.runtime.errors import DataError
from c2gm.runtime.levels import SPANS, TILE_SIZE
from c2gm.runtime.pixels import enlarge


class TileSet(Protocol):
    """Pairs of imagery and map tiles with their references."""

    @property
    def path(self) -> Path:
        """The folder."""
        ...

    @property
    def tiles(self) -> Sequence[mercantile.Tile]:
        """All tiles of the split."""
        ...

    @property
    def coarsest(self) -> int:
        """Tiles have a reference of every span that does not reach above this level."""
        ...

    def imagery(self, tile: mercantile.Tile) -> Picture:
        """RGBA (256, 256, 4)."""
        ...

    def map(self, tile: mercantile.Tile) -> Picture:
        """RGB (256, 256, 3)."""
        ...

    def reference(self, tile: mercantile.Tile, span: int) -> Picture:
        """RGBA (256, 256, 4): the map `span` levels up, the part under this tile, enlarged."""
        ...


class TileSetSampler:
    """Draws whole tiles of a tile set; `sampler.TileSampler`'s counterpart."""

    def __init__(
        self, tiles: TileSet, split: Split, seed: int = 0, options: SamplerOptions | None = None
    ) -> None:
        self._tiles, self._split = tiles, split
        self.seed = seed
        self.options = options or SamplerOptions()
        self._by_level: dict[int, list[mercantile.Tile]] = {}
        for tile in tiles.tiles:
            self._by_level.setdefault(tile.z, []).append(tile)
        weights = self.options.level_weights
        self.levels = sorted(z for z in self._by_level if weights.get(z, 1.0) > 0)
        if not self.levels:
            raise DataError(f"{tiles.path} has no tiles of the levels to train on")
        self._level_shares = level_shares(self.levels, self.options)

    def sample(self, index: int, row: int = 0) -> Sample:
        """Sample number (index, row), 256 x 256 pixels."""
        rng = np.random.default_rng([self.seed, self._split == "train", index, row])
        tiles = self._by_level[int(rng.choice(self.levels, p=self._level_shares))]
        tile = tiles[int(rng.integers(len(tiles)))]
        span = draw_span(_spans(self._tiles, tile, self.options.spans), self.options, rng)
        sample = read_sample(self._tiles, tile, span)
        degraded = rng.random() < self.options.degraded_share
        if degraded and sample.reference is not None and span is not None:
            sample.reference[:] = _degraded(sample.reference, span, rng)
        return augmented(sample, rng) if self.options.augment else sample

    def batch(self, index: int, size: int) -> list[Sample]:
        """`size` samples: batch number `index`."""
        return [self.sample(index, row) for row in range(size)]


def read_sample(tiles: TileSet, tile: mercantile.Tile, span: int | None) -> Sample:
    """The pair of a tile, without augmentation."""
    imagery, target = tiles.imagery(tile), tiles.map(tile)
    reference = None if span is None else tiles.reference(tile, span)
    extent = Extent(tile.x * TILE_SIZE, tile.y * TILE_SIZE, TILE_SIZE, TILE_SIZE)
    area = Area(tiles.path, tiles.path.name, "real", "", "", {}, (), ())
    detail = bool(luma(target).std() > DETAIL_STD)
    return Sample(imagery, target, reference, tile.z, span, Window(area, tile.z, extent), detail)


def tile_validation_samples(
    tiles: TileSet, per_level: int, spans: Sequence[int] = SPANS, detailed: bool = False
) -> list[Sample]:
    """Up to `per_level` fixed tiles a level with the first reference they can have."""
    rng = np.random.default_rng(0)
    samples: list[Sample] = []
    for level in sorted({tile.z for tile in tiles.tiles}):
        found = sorted(tile for tile in tiles.tiles if tile.z == level)
        chosen = 0
        for index in rng.permutation(len(found)):
            if chosen == per_level:
                break
            tile = found[index]
            span = next(iter(_spans(tiles, tile, spans)), None)
            sample = read_sample(tiles, tile, span)
            if sample.detail or not detailed:
                samples.append(sample)
                chosen += 1
    if not samples:
        raise DataError(f"no validation tile{' with detail' if detailed else ''} in {tiles.path}")
    return samples


def read_picture(path: Path) -> Picture:
    """RGBA (256, 256, 4) of a tile file. Raises DataError if it is no picture of that size."""
    try:
        with Image.open(path) as image:
            picture = np.array(image.convert("RGBA"))
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"cannot read tile {path}: {error}") from None
    if picture.shape[:2] != (TILE_SIZE, TILE_SIZE):
        raise DataError(f"tile {path} has {picture.shape[1]} x {picture.shape[0]} px, need 256")
    picture[..., 3] = np.where(picture[..., 3] > 127, 255, 0)
    return picture


def _spans(tiles: TileSet, tile: mercantile.Tile, spans: Sequence[int]) -> list[int]:
    return [
        span for span in spans if tile.z - span >= tiles.coarsest and (tile.z, span) in PROMPT_INDEX
    ]


def _degraded(reference: Picture, span: int, rng: np.random.Generator) -> Picture:
    """Degrade at the parent's own size, from which the reference was enlarged."""
    side = TILE_SIZE >> span
    colours = Image.fromarray(np.ascontiguousarray(reference[..., :3]))
    small = np.asarray(colours.resize((side, side), Image.Resampling.BOX))
    alpha = reference[:: 1 << span, :: 1 << span, 3:]
    return enlarge(degrade_reference(np.concatenate([small, alpha], axis=2), rng), span)
