"""The face of training data: whatever a dataset folder holds, batches of pairs come out.

A dataset folder is one of three: areas built by `c2gm-dataset build` (mosaic.py), a CSCMG set
(cscmg.py), or a pair of XYZ folders (xyz.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch.utils.data import DataLoader, IterableDataset

from c2gm.model.data.cscmg import CSCMGTiles, is_cscmg
from c2gm.model.data.pairs import (
    DETAIL_STD,
    PROMPT_INDEX,
    Batch,
    Sample,
    Split,
    Window,
    collate,
    cut,
)
from c2gm.model.data.sampler import SamplerOptions, TileSampler
from c2gm.model.data.tilesets import TileSet, TileSetSampler, tile_validation_samples
from c2gm.model.data.validation_tiles import area_validation_samples
from c2gm.model.data.xyz import XYZTiles, is_xyz
from c2gm.runtime.errors import DataError
from c2gm.runtime.levels import SPANS, TILE_SIZE

__all__ = [
    "DETAIL_STD",
    "PROMPT_INDEX",
    "Batch",
    "BatchStream",
    "MapPairs",
    "Sample",
    "SamplerOptions",
    "Split",
    "TileSampler",
    "Window",
    "collate",
    "cut",
    "open_sampler",
    "validation_samples",
]


References = Literal["true", "degraded", "generated", "mixed"]

REFERENCE_SHARES: dict[References, tuple[float, float]] = {
    "true": (0.0, 0.0),
    "degraded": (0.0, 1.0),
    "generated": (0.7, 1.0),
    "mixed": (0.3, 0.3),
}
"""Share of the model's own maps, and share of the rest that is degraded; what is left is true."""


class Sampler(Protocol):
    """What `TileSampler` and `TileSetSampler` have in common."""

    levels: list[int]

    def batch(self, index: int, size: int) -> list[Sample]:
        """Batch number `index`: `size` tiles' worth of samples, the same at every call."""
        ...


def _tile_set(dataset: Path, split: Split) -> TileSet | None:
    if is_cscmg(dataset):
        return CSCMGTiles(dataset, split)
    if is_xyz(dataset):
        return XYZTiles(dataset, split)
    return None


def open_sampler(
    dataset: Path, split: Split = "train", seed: int = 0, options: SamplerOptions | None = None
) -> Sampler:
    """The sampler for whatever the folder holds. Raises DataError if it holds nothing usable."""
    tiles = _tile_set(dataset, split)
    if tiles is None:
        return TileSampler(dataset, split, seed=seed, options=options)
    return TileSetSampler(tiles, split, seed=seed, options=options)


def validation_samples(
    dataset: Path | str,
    per_level: int,
    spans: Sequence[int] = SPANS,
    side: int = TILE_SIZE,
    detailed: bool = False,
) -> list[Sample]:
    """Fixed validation tiles, at most `per_level` a level, with the first reference they can have.

    Coarse levels of areas may have fewer. `detailed` asks for tiles with detail only (DETAIL_STD).
    `side` other than 256 works for areas only.
    """
    tiles = _tile_set(Path(dataset), "validation")
    if tiles is None:
        return area_validation_samples(dataset, per_level, spans, side, detailed)
    return tile_validation_samples(tiles, per_level, spans, detailed)


class BatchStream(IterableDataset[Batch]):
    """Endless batches of training step `start` on; with n worker processes each makes every n-th.

    Of `ranks` training processes each takes its own batch of every step, so that together they see
    as many different ones.
    """

    def __init__(
        self, sampler: Sampler, size: int, start: int = 0, rank: int = 0, ranks: int = 1
    ) -> None:
        self._sampler, self._size, self._start = sampler, size, start
        self._rank, self._ranks = rank, ranks

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        at = self._start + first
        while True:
            yield collate(self._sampler.batch(at * self._ranks + self._rank, self._size))
            at += step


class PairOptions(Protocol):
    """What `MapPairs` reads of the training options."""

    @property
    def batch(self) -> int: ...
    @property
    def workers(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def no_reference_share(self) -> float: ...
    @property
    def references(self) -> References: ...
    @property
    def spans(self) -> tuple[int, ...]: ...
    @property
    def kinds(self) -> tuple[str, ...]: ...
    @property
    def level_weights(self) -> Mapping[int, float]: ...


class MapPairs:
    """Training and validation batches of a dataset folder, as `c2gm-train` uses them."""

    def __init__(self, dataset: Path, options: PairOptions) -> None:
        self._dataset, self._options = dataset, options
        generated, degraded = REFERENCE_SHARES[options.references]
        chosen = SamplerOptions(
            spans=options.spans,
            kinds=options.kinds,
            no_reference_share=options.no_reference_share,
            degraded_share=degraded,
            generated_share=generated,
            level_weights=options.level_weights,
        )
        self._sampler = open_sampler(dataset, "train", options.seed, chosen)
        if chosen.generated_share and not _has_generated(self._sampler):
            raise DataError(
                f"{dataset} holds no maps that a model drew, which --references "
                f"{options.references} asks for; make them with c2gm-dataset own-references "
                f"--dataset {dataset}"
            )

    def batches(self, start_step: int, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """Endless training batches (see `collate`) of one of `ranks` processes.

        The same step and rank yield the same batch.
        """
        stream = BatchStream(self._sampler, self._options.batch, start_step, rank, ranks)
        return iter(DataLoader(stream, batch_size=None, num_workers=self._options.workers))

    def validation(self, count: int) -> list[Sample]:
        """About `count` fixed validation tiles with detail, the same number of every level."""
        per_level = max(1, count // len(self._sampler.levels))
        return validation_samples(self._dataset, per_level, detailed=True)


def _has_generated(sampler: Sampler) -> bool:
    return isinstance(sampler, TileSampler) and any(
        area.generated(level) is not None for area in sampler.areas for level in area.levels
    )
