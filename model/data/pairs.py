"""One training pair: where it lies, how it is cut from an area, how pairs become tensors.

Split by ground: every area names validation ground (mosaic.py), about an eighth of it. Training
windows may overlap it, but there every pixel of imagery, map and reference is made invalid; so no
pixel of it is seen in training, at any level. For validation everything else is invalid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from c2gm.model.data.augment import degrade_reference
from c2gm.model.data.mosaic import GROUND_LEVEL, Area, Extent, Picture, crop
from c2gm.model.data.mosaic_build import luma
from c2gm.model.maps.cartography import BACKGROUND
from c2gm.runtime.levels import prompt_keys
from c2gm.runtime.pixels import enlarge, to_network

Split = Literal["train", "validation"]
Batch = dict[str, Tensor]

DETAIL_STD = 8.0
"""A map window has detail if the standard deviation of its Y (0..255) exceeds this."""

PROMPT_INDEX = {key: index for index, key in enumerate(prompt_keys())}
"""Row of a (level, span) pair in any table that follows `prompt_keys()`."""


@dataclass(frozen=True)
class Window:
    """A place in an area: `extent` in pixels of `level`, a multiple of 64 wide and high."""

    area: Area
    level: int
    extent: Extent


@dataclass(frozen=True)
class Sample:
    """One pair. `imagery` RGBA (H, H, 4), `target` RGB (H, H, 3), all uint8; `reference` RGBA
    (H, H, 4), enlarged, or None; `span` levels up to it. `detail`: see DETAIL_STD."""

    imagery: Picture
    target: Picture
    reference: Picture | None
    level: int
    span: int | None
    window: Window
    detail: bool


def cut(
    window: Window,
    span: int | None,
    split: Split,
    footprint: NDArray[np.bool_] | None = None,
    degrade: Generator | None = None,
    generated: bool = False,
) -> Sample:
    """The pair at a window, of the split's ground only, without augmentation.

    `footprint` (H, H) limits the imagery further; the reference ends where it ends. `degrade`
    spoils the reference with that generator. With `generated` the reference is the model's own
    map, unspoilt, where the area has one (own_references.py).
    """
    imagery = imagery_of(window, split)
    if footprint is not None:
        imagery *= footprint[..., None]
    target = crop(window.area.map(window.level), window.area.levels[window.level], window.extent)
    target[imagery[..., 3] == 0] = BACKGROUND
    reference = None
    if span is not None:
        own = window.area.generated(window.level - span) if generated else None
        drawn = window.area.map(window.level - span) if own is None else own
        reference = _reference(window, span, split, footprint, drawn)
        if degrade is not None and own is None:
            reference = degrade_reference(reference, degrade)
        reference = enlarge(reference, span)
    detail = bool(luma(target).std() > DETAIL_STD)
    return Sample(imagery, target, reference, window.level, span, window, detail)


def imagery_of(window: Window, split: Split) -> Picture:
    """RGBA (H, H, 4) of the window; pixels of the other split's ground are 0."""
    area, level = window.area, window.level
    picture = crop(area.imagery(level), area.levels[level], window.extent)
    if split == "train":
        for ground in area.validation:
            picture[ground.finer(level - GROUND_LEVEL).within(window.extent)] = 0
        return picture
    kept = np.zeros_like(picture)
    for ground in area.validation:
        part = ground.finer(level - GROUND_LEVEL).within(window.extent)
        kept[part] = picture[part]
    return kept


def _reference(
    window: Window,
    span: int,
    split: Split,
    footprint: NDArray[np.bool_] | None,
    drawn: Picture,
) -> Picture:
    """RGBA at the coarser level's own size: `drawn`, its map, valid where its imagery is."""
    parent = Window(window.area, window.level - span, window.extent.coarser(span))
    picture = imagery_of(parent, split)
    if footprint is not None:
        factor, (height, width) = 1 << span, picture.shape[:2]
        blocks = footprint.reshape(height, factor, width, factor)
        picture *= (blocks.mean(axis=(1, 3)) >= 0.5)[..., None]
    part = crop(drawn, parent.area.levels[parent.level], parent.extent)
    picture[..., :3] = np.where(picture[..., 3:] > 0, part, np.array(BACKGROUND, np.uint8))
    return picture


def has_reference(area: Area, level: int, span: int) -> bool:
    """Whether a window of `level` has a reference `span` levels up in this area."""
    return level - span in area.levels and (level, span) in PROMPT_INDEX


def collate(samples: Sequence[Sample]) -> Batch:
    """Tensors of samples of one side H: `imagery`, `image` (the map), `reference` float32
    (b, 3, H, H) in [-1, 1] with invalid pixels 0, `has_reference` float32 (b) 0 or 1, `prompt`
    int64 (b) into `prompt_keys()`, `level` int64 (b)."""
    empty = np.zeros(samples[0].imagery.shape, dtype=np.uint8)
    references = [empty if s.reference is None else s.reference for s in samples]
    return {
        "imagery": _stack([s.imagery for s in samples]),
        "image": _stack([s.target for s in samples]),
        "reference": _stack(references),
        "has_reference": torch.tensor([float(s.span is not None) for s in samples]),
        "prompt": torch.tensor([PROMPT_INDEX[s.level, s.span] for s in samples]),
        "level": torch.tensor([s.level for s in samples]),
    }


def _stack(pictures: Sequence[Picture]) -> Tensor:
    return torch.from_numpy(np.stack([to_network(picture) for picture in pictures]))
