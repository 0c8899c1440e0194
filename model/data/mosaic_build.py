"""Building areas: imagery averaged down the levels, maps drawn for every level from vectors."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from c2gm.model.data.mosaic import CELL, Area, Extent, Kind, Picture, open_area, write_area_json
from c2gm.model.maps.cartography import BACKGROUND, PALETTE, Cartographer, VectorMap

_STRIP = 512  # rows at a time; a multiple of CELL
_WATER_BONUS = 4.0


@dataclass(frozen=True)
class AreaPlan:
    """What to build. `imagery` paints or reads RGBA of a window of level max(levels).

    `extent` is the area at that level, aligned so that it is whole pixels at every level.
    `map_from` names an area of the same vectors, extent and levels whose maps are shared.
    """

    name: str
    kind: Kind
    credit: str
    licence: str
    levels: tuple[int, ...]
    targets: tuple[int, ...]
    extent: Extent
    validation: tuple[Extent, ...]
    vectors: Callable[[], VectorMap]
    imagery: Callable[[Extent], Picture]
    vectors_name: str
    map_from: str | None = None


class AreaBuilder:
    """Builds areas into a dataset folder; keeps one cartographer for areas of the same vectors."""

    def __init__(self, dataset: Path) -> None:
        self._dataset = dataset
        self._cartographer: tuple[str, Cartographer] | None = None

    def build(self, plan: AreaPlan, maps_only: bool = False) -> Iterator[str]:
        """Build one area, yielding a line per step. It appears under its name when complete.

        With `maps_only` the imagery of a finished area is kept, if it still covers the same ground,
        and its maps are drawn again.
        """
        target = self._dataset / plan.name
        partial = self._dataset / f"{plan.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        finest = max(plan.levels)
        area = Area(
            path=partial,
            name=plan.name,
            kind=plan.kind,
            credit=plan.credit,
            licence=plan.licence,
            levels={z: plan.extent.coarser(finest - z) for z in sorted(plan.levels)},
            targets=plan.targets,
            validation=plan.validation,
        )
        keep = maps_only and target.exists() and open_area(target).levels == area.levels
        for level in sorted(plan.levels, reverse=True):
            if keep:
                os.link(target / f"imagery_{level}.npy", partial / f"imagery_{level}.npy")
            elif level == finest:
                self._take_imagery(area, plan)
            else:
                self._average_imagery(area, level)
            yield f"{plan.name}: imagery of level {level}"
        for level in sorted(plan.levels):
            if plan.map_from is None:
                self._draw(area, plan, level)
            else:
                name = f"map_{level}.npy"
                os.link(self._dataset / plan.map_from / name, partial / name)
            np.save(partial / f"cells_{level}.npy", _index_cells(area, level))
            yield f"{plan.name}: map of level {level}"
        write_area_json(area, partial)
        _replace(partial, target)

    def _take_imagery(self, area: Area, plan: AreaPlan) -> None:
        level, extent = max(area.levels.items())
        output = _create(area.path / f"imagery_{level}.npy", extent, 4)
        for strip in _strips(extent):
            rows, columns = strip.within(extent)
            output[rows, columns] = plan.imagery(strip)
        output.flush()

    def _average_imagery(self, area: Area, level: int) -> None:
        finer = min(z for z in area.levels if z > level)
        source, extent = area.imagery(finer), area.levels[level]
        output = _create(area.path / f"imagery_{level}.npy", extent, 4)
        factor = 1 << (finer - level)
        for strip in _strips(extent):
            rows, columns = strip.within(extent)
            part = source[rows.start * factor : rows.stop * factor]
            for _ in range(finer - level):
                part = halve(part)
            output[rows, columns] = part
        output.flush()

    def _draw(self, area: Area, plan: AreaPlan, level: int) -> None:
        if self._cartographer is None or self._cartographer[0] != plan.vectors_name:
            self._cartographer = (plan.vectors_name, Cartographer(plan.vectors()))
        extent = area.levels[level]
        output = _create(area.path / f"map_{level}.npy", extent, 3)
        for strip in _strips(extent):
            rows, columns = strip.within(extent)
            output[rows, columns] = self._cartographer[1].draw(
                level, strip.left, strip.top, strip.width, strip.height
            )
        output.flush()


def halve(picture: Picture) -> Picture:
    """RGBA picture of half the size: means of the valid ones of 2 x 2 pixels, valid from two on."""
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    blocks = picture[: height * 2, : width * 2].reshape(height, 2, width, 2, 4)
    valid = blocks[..., 3] > 0
    count = valid[:, 0, :, 0].astype(np.uint16)
    total = np.zeros((height, width, 3), dtype=np.uint16)
    everywhere = bool(valid.all())
    for row in (0, 1):
        for column in (0, 1):
            if (row, column) != (0, 0):
                count += valid[:, row, :, column]
            part = blocks[:, row, :, column, :3]
            total += part if everywhere else part * valid[:, row, :, column, None]
    result = np.empty((height, width, 4), dtype=np.uint8)
    if everywhere:
        result[..., :3] = (total + 2) >> 2
        result[..., 3] = 255
        return result
    divisor = np.maximum(count, 1)[..., None]
    kept = (count >= 2)[..., None]
    result[..., :3] = (total + (divisor >> 1)) // divisor * kept
    result[..., 3:] = kept * np.uint8(255)
    return result


def luma(picture: Picture) -> NDArray[np.float32]:
    """Y of BT.601, 0..255, of an RGB or RGBA picture (..., 3 or 4)."""
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.asarray(picture[..., :3].astype(np.float32) @ weights)


def _index_cells(area: Area, level: int) -> NDArray[np.float32]:
    """The arrays of CellIndex, stacked (3, rows, columns), of every n-th pixel at fine levels."""
    extent = area.levels[level]
    rows, columns = -(-extent.height // CELL), -(-extent.width // CELL)
    cells = np.zeros((3, rows, columns), dtype=np.float32)
    imagery, drawn = area.imagery(level), area.map(level)
    every = 1 if level < 15 else 2 if level < 18 else 4
    for top in range(0, extent.height, _STRIP):
        picture = np.ascontiguousarray(imagery[top : top + _STRIP : every, ::every])
        paper = np.ascontiguousarray(drawn[top : top + _STRIP : every, ::every])
        valid = picture[..., 3] > 0
        tone = paper[..., 1].astype(np.int16)
        edges = np.zeros(tone.shape, dtype=np.float32)
        edges[:, 1:] += np.abs(np.diff(tone, axis=1))
        edges[1:] += np.abs(np.diff(tone, axis=0))
        codes = _codes(paper)
        edges += _WATER_BONUS * (codes == _code(PALETTE["water"]))
        dark = (picture[..., 1] >= picture[..., 0]) & (picture[..., 1] < 90)
        doubtful = dark & valid & (codes == _code(BACKGROUND))
        part = slice(top // CELL, -(-min(top + _STRIP, extent.height) // CELL))
        cells[0, part] = _cell_means(valid, CELL // every)
        cells[1, part] = _cell_means(edges * valid, CELL // every)
        cells[2, part] = _cell_means(doubtful, CELL // every)
    return cells


def _cell_means(values: NDArray[np.generic], cell: int) -> NDArray[np.float32]:
    """Means over cells of `cell` pixels; what a cut cell lacks counts as 0."""
    height, width = values.shape
    rows, columns = -(-height // cell), -(-width // cell)
    padded = np.zeros((rows * cell, columns * cell), dtype=np.float32)
    padded[:height, :width] = values
    return np.asarray(padded.reshape(rows, cell, columns, cell).mean(axis=(1, 3)))


def _codes(paper: Picture) -> NDArray[np.int32]:
    wide = paper.astype(np.int32)
    return np.asarray((wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2])


def _code(colour: tuple[int, int, int]) -> int:
    return (colour[0] << 16) | (colour[1] << 8) | colour[2]


def class_shares(area: Area, level: int) -> dict[str, float]:
    """Share of each plain palette colour among valid pixels (every eighth row and column)."""
    valid = area.imagery(level)[::8, ::8, 3] > 0
    codes = _codes(area.map(level)[::8, ::8])[valid]
    found, counts = np.unique(codes, return_counts=True)
    names = {_code(colour): name for name, colour in PALETTE.items()}
    shares = {
        names[code]: round(count / max(len(codes), 1), 4)
        for code, count in zip(found.tolist(), counts.tolist(), strict=True)
        if code in names
    }
    return {name: share for name, share in shares.items() if share > 0}


def _create(
    path: Path, extent: Extent, channels: int
) -> "np.memmap[tuple[int, ...], np.dtype[np.uint8]]":
    shape = (extent.height, extent.width, channels)
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


def _strips(extent: Extent) -> Iterator[Extent]:
    for top in range(0, extent.height, _STRIP):
        height = min(_STRIP, extent.height - top)
        yield Extent(extent.left, extent.top + top, extent.width, height)


def _replace(partial: Path, target: Path) -> None:
    """Swap folders; a training run that has the old files mapped keeps reading them."""
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    open_area(target)
