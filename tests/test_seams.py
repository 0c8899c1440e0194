"""The measure of seams, proven on maps whose seams are known; what levels keep of each other."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from mercantile import Tile
from PIL import Image
from typer.testing import CliRunner

from c2gm.benchmarks.windows import paired
from c2gm.model.evaluation.cli import app
from c2gm.model.evaluation.consistency import agreement, shares
from c2gm.model.evaluation.result_map import ResultMap
from c2gm.model.evaluation.seams import Border, LevelLines, groups, measure_lines, ratios
from c2gm.model.evaluation.seams_picture import draw_worst, worst_borders
from c2gm.model.maps.style import PALETTE
from c2gm.runtime.errors import LevelError, OptionError, OutputError, SeamError
from c2gm.runtime.infer import run
from c2gm.runtime.job import InferOptions
from c2gm.runtime.pixels import Picture
from c2gm.runtime.progress import QuietReport
from c2gm.runtime.tile_codec import encode_tile

SIDE, LEVEL = 8, 14
TOWN = Path(__file__).parent / "data" / "town.tif"


@cache
def continuous(seed: int = 0) -> Picture:
    """A map of 8 x 8 tiles: areas with crisp edges in the palette's colours, lines across."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((90, 90, 4)).astype(np.float32)
    size = SIDE * 256
    layers = [
        np.asarray(Image.fromarray(coarse[..., k]).resize((size, size), Image.Resampling.BICUBIC))
        for k in range(4)
    ]
    names = ("wood", "water", "residential", "background")
    palette = np.array([PALETTE[name] for name in names], np.uint8)
    drawn = palette[np.argmax(layers, axis=0)]
    y, x = np.mgrid[:size, :size]
    for slope in rng.uniform(-2, 2, 12):
        drawn[np.abs(y - slope * x - rng.uniform(-size, size)) < 4] = PALETTE["street"]
    noise = rng.integers(-2, 3, drawn.shape)
    return np.clip(drawn + noise, 0, 255).astype(np.uint8)


def cut(whole: Picture) -> dict[Tile, Picture]:
    """Tiles by address, the north-west one at the corner of a coarser tile."""
    return {
        Tile(16 + x, 32 + y, LEVEL): whole[256 * y : 256 * (y + 1), 256 * x : 256 * (x + 1)].copy()
        for y in range(SIDE)
        for x in range(SIDE)
    }


def lines_of(tiles: dict[Tile, Picture], window: int = 1) -> LevelLines:
    ordered = sorted(tiles.items(), key=lambda item: (item[0].y, item[0].x))
    return measure_lines(ordered, window)[LEVEL]


def numbers(tiles: dict[Tile, Picture]) -> dict[str, float]:
    lines = lines_of(tiles)
    found = ratios(lines.borders, lines.controls)
    return {name: ratio.ratio for name, ratio in found.items() if ratio is not None}


def tone_drift(tiles: dict[Tile, Picture]) -> dict[Tile, Picture]:
    rng = np.random.default_rng(1)
    return {
        tile: np.clip(picture.astype(int) + rng.integers(-6, 7), 0, 255).astype(np.uint8)
        for tile, picture in tiles.items()
    }


def independent(tiles: dict[Tile, Picture]) -> dict[Tile, Picture]:
    order = np.random.default_rng(2).permutation(len(tiles))
    pictures = list(tiles.values())
    return {tile: pictures[k] for tile, k in zip(tiles, order, strict=True)}


def feathered(tiles: dict[Tile, Picture], reach: int) -> dict[Tile, Picture]:
    """Smoothed across every border, over `reach` pixels on either side."""
    rows = [np.hstack([tiles[Tile(16 + x, 32 + y, LEVEL)] for x in range(SIDE)]) for y in range(8)]
    whole = np.vstack(rows).astype(np.float32)
    for _ in range(2):
        for at in range(256, SIDE * 256, 256):
            band = whole[:, at - reach - 3 : at + reach + 3]
            smooth = np.stack([np.roll(band, k, axis=1) for k in range(-3, 4)]).mean(axis=0)
            whole[:, at - reach : at + reach] = smooth[:, 3:-3]
        whole = whole.transpose(1, 0, 2)
    return cut(whole.astype(np.uint8))


def test_a_continuous_map_has_no_seams() -> None:
    lines = lines_of(cut(continuous()))
    for name, ratio in ratios(lines.borders, lines.controls).items():
        assert ratio is not None
        assert 0.85 < ratio.ratio < 1.15 and ratio.low < 1 < ratio.high, name


@pytest.mark.parametrize(
    ("disturb", "least"), [(tone_drift, (1.8, 0.0, 1.4, 0.9)), (independent, (4.0, 4.0, 4.0, 0.9))]
)
def test_seams_show(
    disturb: Callable[[dict[Tile, Picture]], dict[Tile, Picture]], least: tuple[float, ...]
) -> None:
    found = numbers(disturb(cut(continuous())))
    for (name, value), expected in zip(found.items(), least, strict=True):
        assert value > expected, name


def test_a_map_smoothed_over_its_borders_reads_below_one() -> None:
    tiles = cut(continuous())
    narrow, wide = numbers(feathered(tiles, 2)), numbers(feathered(tiles, 12))
    assert all(narrow[name] < 0.75 for name in ("gradient", "edges", "residual")), narrow
    assert wide["activity"] < 0.8 < 0.95 < narrow["activity"], (narrow, wide)


def test_one_shifted_tile_is_found_by_its_borders() -> None:
    tiles = cut(continuous())
    shifted = Tile(19, 35, LEVEL)
    tiles[shifted] = np.roll(tiles[shifted], (37, 21), axis=(0, 1))
    worst = worst_borders(lines_of(tiles), 4)
    beside = {(shifted, True), (shifted, False)}
    beside |= {(Tile(18, 35, LEVEL), True), (Tile(19, 34, LEVEL), False)}
    assert {(border.tile, border.upright) for border in worst} == beside


def test_borders_are_told_apart() -> None:
    found = dict(groups(lines_of(cut(continuous()), window=2)))
    assert len(found["all"]) == 2 * SIDE * (SIDE - 1)
    assert len(found["siblings"]) == len(found["inside windows"]) == 2 * SIDE * 4
    assert (len(found["families"]), len(found["references"])) == (2 * SIDE * 2, 2 * SIDE)
    assert all(border.inside_window for border in found["siblings"])
    assert "inside windows" not in dict(groups(lines_of(cut(continuous()))))
    found = dict(groups(lines_of(cut(continuous())), "2x"))
    assert "families" not in found and len(found["references"]) == 2 * SIDE * 3


def test_ground_without_data_is_left_out() -> None:
    opaque = np.full((256, 256), 255, np.uint8)
    tiles = {tile: np.dstack([picture, opaque]) for tile, picture in cut(continuous()).items()}
    whole = numbers(tiles)
    for tile, picture in tiles.items():
        if tile.x == 20:
            picture[:, :60] = 0
        if tile.y == 36:
            picture[-3:] = 0
    del tiles[Tile(16, 32, LEVEL)]
    lines = lines_of(tiles)
    assert not any(b.upright and b.tile.x == 19 for b in lines.borders)
    assert not any(not b.upright and b.tile.y == 36 for b in lines.borders)
    assert not any(b.tile == Tile(16, 32, LEVEL) for b in lines.borders)
    for name, value in numbers(tiles).items():
        assert value == pytest.approx(whole[name], rel=0.2)


def test_levels_that_agree_and_levels_that_do_not() -> None:
    coarse = np.full((64, 64, 4), 255, np.uint8)
    coarse[..., :3] = PALETTE["background"]
    coarse[:20, :, :3], coarse[40:60, 10:30, :3] = PALETTE["wood"], PALETTE["water"]
    coarse[:, 50:52, :3] = PALETTE["street"]
    same = coarse.repeat(4, axis=0).repeat(4, axis=1)
    found = shares(agreement(same, coarse, 2))
    for name in ("wood", "water", "road"):
        assert found[name] == {"kept": 1.0, "new": 0.0}
    assert found["building"] == {"kept": None, "new": None}
    dry = same.copy()
    dry[160:240, 40:120, :3] = PALETTE["background"]
    dry[:, 200:208, :3], dry[:, 100:104, :3] = PALETTE["background"], PALETTE["street"]
    found = shares(agreement(dry, coarse, 2))
    assert found["water"] == {"kept": 0.0, "new": None}
    assert found["road"] == {"kept": 0.0, "new": 1.0}
    dry[..., 3] = 0
    assert shares(agreement(dry, coarse, 2))["wood"] == {"kept": None, "new": None}


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A finished map of two levels, as any MBTiles reader sees it."""
    return write_map(tmp_path / "map.mbtiles", cut(continuous()))


def write_map(path: Path, tiles: dict[Tile, Picture]) -> Path:
    """Tiles as levels LEVEL and LEVEL - 2 of a file."""
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("CREATE TABLE metadata (name TEXT, value TEXT)")
        file.execute(
            "CREATE TABLE tiles (zoom_level INT, tile_column INT, tile_row INT, tile_data BLOB)"
        )
        for tile, picture in tiles.items():
            for level in (LEVEL, LEVEL - 2):
                x, y = (value >> (LEVEL - level) for value in (tile.x, tile.y))
                file.execute(
                    "DELETE FROM tiles WHERE (zoom_level, tile_column) = (?, ?) AND tile_row = ?",
                    (level, x, (1 << level) - 1 - y),
                )
                file.execute(
                    "INSERT INTO tiles VALUES (?, ?, ?, ?)",
                    (level, x, (1 << level) - 1 - y, encode_tile(picture)),
                )
    return path


def test_the_command_reports_and_draws(result: Path, tmp_path: Path) -> None:
    report, picture = tmp_path / "seams.json", tmp_path / "worst.png"
    arguments = ["seams", str(result), "--output", str(report), "--picture", str(picture)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and "seams: 1 is none" in done.stdout
    found = json.loads(report.read_text(encoding="utf-8"))
    assert 0.8 < found["seams"][str(LEVEL)]["all"]["gradient"]["ratio"] < 1.2
    assert set(found["consistency"]) == {f"{LEVEL} from {LEVEL - 2}"}
    with Image.open(picture) as image:
        assert image.width > 1000


def one_line_shifted(tiles: dict[Tile, Picture]) -> dict[Tile, Picture]:
    """Two parts that do not know of each other, as shards that were drawn alone would be."""
    rows = [np.hstack([tiles[Tile(16 + x, 32 + y, LEVEL)] for x in range(SIDE)]) for y in range(8)]
    whole = np.vstack(rows)
    whole[:, 4 * 256 :] = np.roll(whole[:, 4 * 256 :], 29, axis=0)
    return cut(whole)


def one_line_feathered(tiles: dict[Tile, Picture], reach: int) -> dict[Tile, Picture]:
    """Smoothed across the line west of column 20, and nowhere else."""
    soft = feathered(tiles, reach)
    found = dict(tiles)
    for y in range(32, 32 + SIDE):
        west, east = Tile(19, y, LEVEL), Tile(20, y, LEVEL)
        found[west], found[east] = tiles[west].copy(), tiles[east].copy()
        found[west][24:-24, -24:] = soft[west][24:-24, -24:]
        found[east][24:-24, :24] = soft[east][24:-24, :24]
    return found


def one_tile_shifted(tiles: dict[Tile, Picture]) -> dict[Tile, Picture]:
    tile = Tile(19, 35, LEVEL)
    return {**tiles, tile: np.roll(tiles[tile], (37, 21), axis=(0, 1))}


def toned(tiles: dict[Tile, Picture], levels: int) -> dict[Tile, Picture]:
    """A map without grain, and one tile of it a little darker than it should be."""
    calm = {tile: picture // 8 * 8 for tile, picture in tiles.items()}
    tile = Tile(19, 35, LEVEL)
    darker = np.clip(calm[tile].astype(int) - levels, 0, 255).astype(np.uint8)
    return {**calm, tile: darker}


@pytest.mark.parametrize(
    ("disturb", "message"),
    [
        (independent, f"seams above 1.2: level {LEVEL} gradient"),
        (lambda tiles: feathered(tiles, 12), f"level {LEVEL} activity"),
        (lambda tiles: feathered(tiles, 2), f"level {LEVEL} residual 0"),
        (lambda tiles: toned(tiles, 5), f"level {LEVEL} around {LEVEL}/19/35 "),
        (one_line_shifted, f"level {LEVEL} along column 20 "),
        (lambda tiles: one_line_feathered(tiles, 2), f"level {LEVEL} smoothed along column 20"),
        (lambda tiles: one_line_feathered(tiles, 12), f"level {LEVEL} smoothed along column 20"),
        (one_tile_shifted, rf"(east|south) of {LEVEL}/(18|19)/(34|35) "),
        (lambda tiles: tiles, None),
    ],
)
def test_a_map_with_a_seam_fails_the_check(
    disturb: Callable[[dict[Tile, Picture]], dict[Tile, Picture]],
    message: str | None,
    tmp_path: Path,
) -> None:
    """Exit codes for scripts: seams everywhere, along one line, at one tile; smoothed borders."""
    path = write_map(tmp_path / "map.mbtiles", disturb(cut(continuous())))
    arguments = ["seams", str(path), "--levels", str(LEVEL), "--fail-above", "1.2"]
    if message is None:
        assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
        return
    with pytest.raises(SeamError, match=message):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_the_picture_shows_what_stands_out_and_says_where_nothing_does(tmp_path: Path) -> None:
    heights = []
    for name, tiles in (("good", cut(continuous())), ("bad", independent(cut(continuous())))):
        with ResultMap(write_map(tmp_path / f"{name}.mbtiles", tiles)) as found:
            picture = draw_worst(found, {LEVEL: lines_of(tiles)})
        assert picture is not None
        heights.append(picture.height)
    assert heights[0] < 100 < 256 < heights[1]


def test_maps_that_are_made_by_default_have_no_seams(tmp_path: Path) -> None:
    """The shipped model on a real run: if windows were not blended, this would read 10 and more."""
    output = tmp_path / "town.mbtiles"
    options = InferOptions(TOWN, "14-15", output, bounds=(17.785, 46.59, 17.815, 46.612))
    numbers_of = {}
    for halo in (0, 32):
        run(replace(options, halo=halo, overwrite=True), QuietReport())
        with ResultMap(output) as found:
            lines = measure_lines(found.tiles(15), found.window)[15]
        ratio = ratios(lines.borders, lines.controls)
        numbers_of[halo] = [ratio[name] for name in ("gradient", "residual")]
    assert all(ratio is not None and ratio.ratio > 5 for ratio in numbers_of[0])
    assert all(ratio is not None and 0.6 < ratio.ratio < 1.5 for ratio in numbers_of[32])


def test_unusable_input_is_told(result: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.mbtiles"
    text.write_text("no database, but long enough to be looked at as one", encoding="utf-8")
    cases: Iterator[tuple[list[str], type[Exception], str]] = iter(
        (
            (["seams", str(tmp_path / "none.mbtiles")], OutputError, "is not a file"),
            (["seams", str(text)], OutputError, "is no MBTiles file"),
            (["seams", str(result), "--levels", "9"], LevelError, "it has 12, 14"),
            (["seams", str(result), "--output", "/nowhere/x.json"], OutputError, "not a folder"),
            (["seams", str(result), "--output", str(tmp_path)], OutputError, "is a folder"),
            (["seams", str(result), "--picture", str(tmp_path / "x.jpg")], OutputError, ".png"),
            ([], OptionError, "Missing option '--dataset'"),
        )
    )
    for arguments, kind, message in cases:
        with pytest.raises(kind, match=message):
            CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_a_borders_excess_is_in_grey_levels() -> None:
    border = Border(Tile(0, 0, 1), True, False, np.array([10.0, 50.0, 20.0, 0, 0, 0, 0, 0, 0]))
    assert border.excess == 3.0


def test_seams_on_the_same_lines_are_told_from_what_lies_there() -> None:
    """Half of a map has seams; the other map, of the same ground, is made in larger windows."""
    tiles = cut(continuous())
    plain = lines_of(tiles, window=4)
    assert paired(lines_of(tiles), plain)["gradient"]["ratio"] == 1
    found = paired(lines_of(tone_drift(tiles)), plain)
    inside = sum(border.inside_window for border in plain.borders)
    assert found["borders"] == inside < len(plain.borders)
    assert found["gradient"]["low"] > 1.5 and found["residual"]["low"] > 1.2
