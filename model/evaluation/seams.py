"""How visible tile borders are: what happens across them, against what happens elsewhere.

Four numbers (none is a standard), each compared with the same number on lines through the middle
of the same tiles, so that a picture without seams reads 1 whatever it shows. All are two-sided: a
map that was smoothed over its borders reads below 1.

- gradient: the step across a line, as a multiple of the steps `BESIDE` pixels beside it;
- edges: the share of pixels with a step of `EDGE_STEP` or more across the line, likewise;
- residual: by how much the step across differs from the mean of its two neighbours (second order:
  what a smooth continuation does not explain), likewise;
- activity: the steps within `REACH` pixels of a line, against those around the middle lines: below
  1 where a map was smoothed or left empty more widely along its borders.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from mercantile import Tile
from numpy.typing import NDArray

from c2gm.runtime.grid import Cascade
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.pixels import Picture

REACH = 16
"""Pixels on either side of a line that are looked at; lines of pixels without data there are not
counted."""

BESIDE = 3
EDGE_STEP = 16.0
GRAIN, NEAR, FAR = 2.0, 2, 10
"""Grey levels, mean over R, G and B: neighbouring classes of the map's palette differ by more."""

STATISTICS = ("gradient", "edges", "residual", "activity")

Kind = Literal["siblings", "families", "references"]
"""What two tiles share: their parent, only the tile two levels up, or neither. In a 4X cascade the
references of the last come from different tiles; in a 2X cascade those of the last two, and there
are no families."""

Strip = NDArray[np.float32]

Sums = NDArray[np.float64]
"""(13,): pixels; of step, edge and residual the sum on the line and the mean of both beside it; the
sum of steps around the line, by their number, and the pixels again; of residuals up to `GRAIN` the
sum on the line, the mean of both beside it, and by their number those within `NEAR` px of the line
and from `FAR` px on."""


@dataclass(frozen=True, slots=True)
class Border:
    """The line between two tiles. `upright`: between a tile and its eastern neighbour."""

    tile: Tile
    upright: bool
    inside_window: bool
    sums: Sums = field(repr=False)

    @property
    def neighbour(self) -> Tile:
        """The tile on the other side, to the east or south."""
        return Tile(self.tile.x + self.upright, self.tile.y + (not self.upright), self.tile.z)

    @property
    def place(self) -> int:
        """Where the line is, in tiles from the world's west or north edge."""
        return int(self.tile.x if self.upright else self.tile.y) + 1

    def kind(self, cascade: Cascade = "4x") -> Kind:
        """See `Kind`."""
        if self.place % 2:
            return "siblings"
        return "families" if self.place % 4 and cascade == "4x" else "references"

    @property
    def excess(self) -> float:
        """Grey levels by which the step across the border exceeds the steps beside it."""
        return float((self.sums[1] - self.sums[2]) / self.sums[0])


@dataclass(frozen=True, slots=True)
class Middle:
    """The line through the middle of a tile, as a control."""

    place: float
    upright: bool
    sums: Sums = field(repr=False)


@dataclass(slots=True)
class LevelLines:
    """All lines of a level: borders, and as controls the tiles' middle lines."""

    borders: list[Border] = field(default_factory=list)
    controls: list[Middle] = field(default_factory=list)


def measure_lines(tiles: Iterable[tuple[Tile, Picture]], window: int = 1) -> dict[int, LevelLines]:
    """Measure a map. `tiles`: level by level, row by row from north to south, west to east.

    Pictures RGB or RGBA (256, 256, n), alpha 0 where there is no data. `window`: tiles a side that
    were made in one piece, for telling borders inside from those between.
    """
    levels: dict[int, LevelLines] = {}
    above: dict[Tile, Strip] = {}
    west: tuple[Tile, Strip] | None = None
    middle = TILE_SIZE // 2
    for tile, picture in tiles:
        shown = _with_validity(picture)
        lines = levels.setdefault(tile.z, LevelLines())
        for upright, turned in ((True, shown), (False, shown.transpose(1, 0, 2))):
            sums = line_sums(turned[:, middle - REACH : middle + REACH])
            if sums[0]:
                place = (tile.x if upright else tile.y) + 0.5
                lines.controls.append(Middle(place, upright, sums))
        if west is not None and west[0] == Tile(tile.x - 1, tile.y, tile.z):
            strip = np.concatenate([west[1], shown[:, :REACH]], axis=1)
            _add(lines, west[0], True, tile.x % window != 0, strip)
        north = above.pop(Tile(tile.x, tile.y - 1, tile.z), None)
        if north is not None:
            strip = np.concatenate([north, shown[:REACH]], axis=0).transpose(1, 0, 2)
            _add(lines, Tile(tile.x, tile.y - 1, tile.z), False, tile.y % window != 0, strip)
        west = tile, shown[:, -REACH:].copy()
        above[tile] = shown[-REACH:].copy()
        # Tiles whose southern neighbour is missing would stay for ever.
        if len(above) > 2 << 16:
            above = {t: p for t, p in above.items() if t.z == tile.z and t.y >= tile.y - 1}
    return levels


def line_sums(strip: Strip) -> Sums:
    """Sums of one line. `strip`: (n, 2 REACH, 4) across it, R, G, B and validity 0 or 1."""
    good = strip[..., 3].all(axis=1)
    colours = strip[good][..., :3]
    step = np.diff(colours, axis=1)
    size = np.abs(step).mean(axis=2)
    residual = np.abs(step[:, 1:-1] - (step[:, :-2] + step[:, 2:]) / 2).mean(axis=2)
    line = REACH - 1  # of the differences, the one across the line
    out = [float(len(colours))]
    for values, at in ((size, line), (size >= EDGE_STEP, line), (residual, line - 1)):
        beside = (values[:, at - BESIDE].sum() + values[:, at + BESIDE].sum()) / 2
        out += [float(values[:, at].sum()), float(beside)]
    around = np.delete(size, line, axis=1).mean(axis=1).sum() if len(size) else 0.0
    grain, distance = np.minimum(residual, GRAIN), np.abs(np.arange(residual.shape[1]) - line + 1)
    places = (distance == 0, distance == BESIDE, distance <= NEAR, distance >= FAR)
    grains = [grain[:, at].sum() / np.count_nonzero(at) for at in places]
    return np.array([*out, float(around), float(len(colours)), *grains])


@dataclass(frozen=True, slots=True)
class Ratio:
    """A statistic at borders over the same at control lines, and a 95 % interval of it."""

    at_borders: float
    at_controls: float
    ratio: float
    low: float
    high: float


LINE_EXCESS, BORDER_EXCESS, TILE_EXCESS = 1.0, 8.0, 2.0
"""Grey levels by which a whole meridian or parallel (the median of its borders), one border, or two
borders of one tile may exceed what is beside them."""

TILE_RATIO = 1.8
"""And by how many times, for a tile: a road along one border of it is no seam.

Maps without a seam stay below both, wherever a road or a wood's edge happens to lie, and lines
between windows that were not blended are above: docs/seams.md has the figures."""


SMOOTHED, SMOOTHED_BORDERS = 0.75, 5
"""A line of so many borders was smoothed where its grain is this share, or less, of that beside it,
or that near it of that far from it. Maps that are not stay above both (docs/seams.md); along fewer
borders what lies there decides, and so would single edges if they counted as what they are."""

_CALM = 0.1
"""Grey levels added to what is compared: a ratio of next to nothings means nothing."""


def _is_smoothed(borders: Sequence[Border]) -> bool:
    if len(borders) < SMOOTHED_BORDERS:
        return False
    sums = np.sum([border.sums for border in borders], axis=0)
    on, beside, near, far = sums[9:] / sums[0] + _CALM
    return bool(on <= SMOOTHED * beside or near <= SMOOTHED * far)


def outstanding(lines: LevelLines) -> list[str]:
    """Single lines and borders with a seam, for users: averages over a level would hide them.

    So are lines that were smoothed, which a seam may be hidden by.

    A line is named by the tile column or row that begins there.
    """
    found: list[str] = []
    together: dict[tuple[bool, int], list[Border]] = {}
    for border in lines.borders:
        together.setdefault((border.upright, border.place), []).append(border)
    alone: list[Border] = []
    around: dict[Tile, int] = {}
    for (upright, place), borders in sorted(together.items()):
        excess = float(np.median([border.excess for border in borders]))
        if len(borders) > 1 and excess >= LINE_EXCESS:
            what = "column" if upright else "row"
            found.append(f"along {what} {place} ({excess:.1f} grey levels)")
            continue
        if _is_smoothed(borders):
            found.append(f"smoothed along {'column' if upright else 'row'} {place}")
        alone += [border for border in borders if border.excess >= BORDER_EXCESS]
        for border in borders:
            far = border.sums[1] >= TILE_RATIO * (border.sums[2] + 0.5)
            if far and border.excess >= TILE_EXCESS:
                for tile in (border.tile, border.neighbour):
                    around[tile] = around.get(tile, 0) + 1
    for tile, count in around.items():
        if count > 1:
            found.append(f"around {tile.z}/{tile.x}/{tile.y} ({count} of its borders)")
    for border in sorted(alone, key=lambda border: -border.excess):
        side, tile = "east" if border.upright else "south", border.tile
        found.append(f"{side} of {tile.z}/{tile.x}/{tile.y} ({border.excess:.1f} grey levels)")
    return found


def ratios(
    borders: Sequence[Border], controls: Sequence[Middle], draws: int = 400
) -> Mapping[str, Ratio | None]:
    """The four numbers of some borders; None where nothing happens beside any control line.

    Intervals are by bootstrap from a fixed seed. Lines that continue each other, of one meridian or
    parallel, are drawn together: a road or a shore that follows one of them follows the next.
    """
    if not borders or not controls:
        return dict.fromkeys(STATISTICS)
    here, there = by_line(borders), by_line(controls)
    rng = np.random.default_rng(0)
    found: dict[str, Ratio | None] = {}
    resampled = [
        np.stack([lines[rng.integers(0, len(lines), len(lines))].sum(axis=0) for _ in range(draws)])
        for lines in (here, there)
    ]
    for index, name in enumerate(STATISTICS):
        at = 1 + 2 * index
        whole = [lines.sum(axis=0) for lines in (here, there)]
        if not whole[1][at + 1]:
            found[name] = None
            continue
        border, control = (float(share_across(sums, at)) for sums in whole)
        spread = share_across(resampled[0], at) / share_across(resampled[1], at)
        low, high = np.quantile(spread, [0.025, 0.975])
        found[name] = Ratio(border, control, border / control, float(low), float(high))
    return found


def by_line(lines: Sequence[Border] | Sequence[Middle]) -> NDArray[np.float64]:
    """Sums of all lines of one meridian or parallel together, (lines, 13), in order of place."""
    together: dict[tuple[bool, float], Sums] = {}
    for line in lines:
        key = line.upright, line.place
        together[key] = together[key] + line.sums if key in together else line.sums
    return np.stack([together[key] for key in sorted(together)])


def share_across(sums: NDArray[np.float64], at: int) -> NDArray[np.float64]:
    """What happens on lines over what happens beside them, (..., 13) -> (...).

    With half a grey level, or half an edge pixel, added to both: where next to nothing happens, a
    ratio of nothings means nothing.
    """
    return np.asarray((sums[..., at] + 0.5) / (sums[..., at + 1] + 0.5))


def groups(lines: LevelLines, cascade: Cascade = "4x") -> Iterator[tuple[str, list[Border]]]:
    """The borders of a level in the groups that are told apart: all, by kind, by window.

    Groups without a border are left out, and windows where each is a tile.
    """
    yield "all", lines.borders
    for kind in ("siblings", "families", "references"):
        if some := [border for border in lines.borders if border.kind(cascade) == kind]:
            yield kind, some
    if inside := [border for border in lines.borders if border.inside_window]:
        yield "inside windows", inside
        yield "between windows", [b for b in lines.borders if not b.inside_window]


def _with_validity(picture: Picture) -> NDArray[np.float32]:
    shown = np.ones((*picture.shape[:2], 4), np.float32)
    shown[..., :3] = picture[..., :3]
    if picture.shape[2] == 4:
        shown[..., 3] = picture[..., 3] > 0
    return shown


def _add(lines: LevelLines, tile: Tile, upright: bool, inside: bool, strip: Strip) -> None:
    sums = line_sums(strip)
    if sums[0]:
        lines.borders.append(Border(tile, upright, inside, sums))
