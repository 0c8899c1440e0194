"""The procedural world: made of dice that fall the same way every time, and true to its map."""

from pathlib import Path

import mercantile
import numpy as np
import pytest
import rasterio
import shapely

from c2gm.model.maps.vectors import LAYERS, VectorMap
from c2gm.model.synthetic import Painter, PaintStyle, generate_world, random_style
from c2gm.runtime.errors import OptionError
from c2gm.runtime.levels import EARTH_CIRCUMFERENCE_M

TOWN = Path(__file__).parent / "data" / "town.tif"
CENTRE = (1_650_000.0, 5_620_000.0)
BOUNDS = (CENTRE[0] - 2800, CENTRE[1] - 2800, CENTRE[0] + 2800, CENTRE[1] + 2800)


@pytest.fixture(scope="module")
def world() -> VectorMap:
    return generate_world(3, BOUNDS)


def pixel_at(level: int, x: float, y: float) -> tuple[int, int]:
    """Column and row of a point of EPSG:3857 on the level's pixel grid."""
    tile = mercantile.xy_bounds(0, 0, level)
    unit = (tile.right - tile.left) / 256
    half = EARTH_CIRCUMFERENCE_M / 2
    return int((x + half) / unit), int((half - y) / unit)


def test_world_repeats_and_keeps_inside_its_bounds(world: VectorMap) -> None:
    again = generate_world(3, BOUNDS)
    frame = shapely.box(*BOUNDS).buffer(0.01)
    for name in LAYERS:
        assert len(world[name].kind) > 0, name
        assert np.array_equal(world[name].kind, again[name].kind)
        assert shapely.equals_exact(world[name].geometry, again[name].geometry).all()
        assert shapely.within(world[name].geometry, frame).all(), name
    other = generate_world(4, BOUNDS)
    assert len(other["building"].kind) != len(world["building"].kind)


def test_world_too_small_says_so() -> None:
    with pytest.raises(OptionError, match="too small"):
        generate_world(1, (0.0, 0.0, 900.0, 900.0))


@pytest.mark.parametrize(
    ("level", "style"),
    [
        (17, PaintStyle(seed=1)),
        (15, PaintStyle(seed=2, jpeg_quality=70, native_resolution=6.3)),
        (12, PaintStyle(seed=3, blur=0.7, season="dry")),
    ],
)
def test_overlapping_windows_agree(world: VectorMap, level: int, style: PaintStyle) -> None:
    painter = Painter(world, style)
    left, top = pixel_at(level, *CENTRE)
    whole = painter.paint(level, left - 90, top - 90, 180, 180).astype(int)
    part = painter.paint(level, left - 33, top - 51, 90, 80).astype(int)
    difference = np.abs(whole[39:119, 57:147] - part)
    # Skia anti-aliases an edge in one of two ways, by how much else is drawn with it.
    assert difference.mean() < 0.5
    assert np.mean(difference > 12) < 0.01
    assert np.array_equal(whole, Painter(world, style).paint(level, left - 90, top - 90, 180, 180))


def test_what_is_painted_follows_the_map(world: VectorMap) -> None:
    style = PaintStyle(seed=4, noise=0.0, haze=0.0)
    painter = Painter(world, style)
    cover, water = world["landcover"], world["water"]
    woods = cover.geometry[cover.kind == "wood"]
    wood = woods[np.argmax(shapely.area(woods))].buffer(-60)
    lake = water.geometry[np.argmax(shapely.area(water.geometry))].buffer(-10)
    farms = cover.geometry[cover.kind == "farmland"]
    farm = farms[np.argmax(shapely.area(farms))].buffer(-20)
    means = []
    for area in (wood, lake, farm):
        spot = area.representative_point()
        column, row = pixel_at(16, spot.x, spot.y)
        means.append(painter.paint(16, column - 3, row - 3, 7, 7).mean((0, 1)))
    forest, surface, field = means
    assert forest.mean() < 0.8 * field.mean()
    assert surface[2] > surface[0] + 5  # water is bluish, land is not
    assert field[2] < field[1]


def test_every_random_style_paints(world: VectorMap) -> None:
    left, top = pixel_at(14, *CENTRE)
    looks = []
    for seed in range(3):
        style = random_style(np.random.default_rng(seed))
        assert style == random_style(np.random.default_rng(seed))
        picture = Painter(world, style).paint(14, left, top, 64, 48)
        assert picture.shape == (48, 64, 3) and picture.dtype == np.uint8
        assert picture.std() > 4
        looks.append(picture.mean())
    assert np.ptp(looks) > 1


def test_unknown_season_is_refused() -> None:
    with pytest.raises(ValueError, match="season"):
        PaintStyle(season="monsoon")


def test_town_is_a_georeferenced_scene_with_a_mask() -> None:
    with rasterio.open(TOWN) as raster:
        assert raster.crs.to_epsg() == 32633
        assert raster.res == (2.4, 2.4)
        assert raster.shape == (1400, 1400) and raster.count == 3
        mask = raster.dataset_mask()
        assert 0.9 < (mask == 255).mean() < 1.0
        assert (raster.read(1)[mask == 255]).std() > 20
    assert TOWN.stat().st_size < 3_000_000


def test_bare_land_paints_too() -> None:
    for level in (10, 14, 18):
        assert Painter({}, PaintStyle()).paint(level, 1000, 1000, 20, 30).shape == (30, 20, 3)
