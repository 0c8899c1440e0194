"""The worst tile borders of a map, each with its neighbourhood, as one picture."""

from collections.abc import Mapping, Sequence

import numpy as np
from mercantile import Tile
from PIL import Image, ImageDraw, ImageFont

from c2gm.model.evaluation.result_map import ResultMap
from c2gm.model.evaluation.seams import Border, LevelLines
from c2gm.runtime.levels import TILE_SIZE

SIDE, GAP, LABEL = 256, 10, 34

VISIBLE = 4.0
"""Grey levels of excess below which a border does not stand out and is not shown."""


def worst_borders(lines: LevelLines, count: int) -> list[Border]:
    """Borders whose step stands out from what is beside them, worst first."""
    visible = [border for border in lines.borders if border.excess >= VISIBLE]
    return sorted(visible, key=lambda border: -border.excess)[:count]


def draw_worst(
    result: ResultMap, levels: Mapping[int, LevelLines], count: int = 6
) -> Image.Image | None:
    """A row a level, `count` borders each; ticks show where the border lies.

    A level of which no border stands out is a line of text. None where no level has a border.
    """
    rows = {z: worst_borders(lines, count) for z, lines in levels.items() if lines.borders}
    if not rows:
        return None
    width = count * (SIDE + GAP) + GAP
    heights = [(SIDE if borders else 0) + LABEL + 2 * GAP for borders in rows.values()]
    sheet = Image.new("RGB", (width, sum(heights) + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for row, (level, borders) in enumerate(rows.items()):
        top = GAP + sum(heights[:row])
        if not borders:
            text = f"level {level}: none of {len(levels[level].borders)} borders stands out"
            pen.text((GAP, top), text, fill="black", font=font)
        for column, border in enumerate(borders):
            left = GAP + column * (SIDE + GAP)
            tile, side = border.tile, "east" if border.upright else "south"
            text = f"{tile.z}/{tile.x}/{tile.y} {side}\n"
            text += f"{border.kind(result.cascade)}, {border.excess:.0f} grey levels"
            pen.text((left, top), text, fill="black", font=font)
            sheet.paste(_around(result, border), (left, top + LABEL))
            _ticks(pen, left, top + LABEL, border.upright)
    return sheet


def _around(result: ResultMap, border: Border) -> Image.Image:
    """The square whose middle is the border's."""
    tile = border.tile
    other = Tile(tile.x + border.upright, tile.y + (not border.upright), tile.z)
    white = np.full((TILE_SIZE, TILE_SIZE, 4), 255, np.uint8)
    found = [result.tile(place) for place in (tile, other)]
    pair = [white if picture is None else picture for picture in found]
    joined = np.concatenate(pair, axis=1 if border.upright else 0)
    half = TILE_SIZE // 2
    cut = joined[:, half : half + SIDE] if border.upright else joined[half : half + SIDE]
    return Image.fromarray(np.where(cut[..., 3:] > 0, cut[..., :3], 255).astype(np.uint8))


def _ticks(pen: ImageDraw.ImageDraw, left: int, top: int, upright: bool) -> None:
    middle = SIDE // 2
    lines: Sequence[tuple[int, int, int, int]] = (
        ((middle, -GAP // 2, middle, 6), (middle, SIDE - 6, middle, SIDE + GAP // 2))
        if upright
        else ((-GAP // 2, middle, 6, middle), (SIDE - 6, middle, SIDE + GAP // 2, middle))
    )
    for x0, y0, x1, y1 in lines:
        pen.line((left + x0, top + y0, left + x1, top + y1), fill="red", width=2)
