"""Levels, windows, footprints and plans: invariants of the quadtree."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mercantile import Tile, bounding_tile, parent
from mercantile import tile as tile_at

from c2gm.runtime.errors import AreaError, OptionError
from c2gm.runtime.footprint import Footprint, degrees_from_world, intersect, world_from_degrees
from c2gm.runtime.grid import Window, parse_levels, plan, reference_level, window_of

sides = st.sampled_from([1, 2, 4])
halos = st.sampled_from([0, 32, 64, 160])


@st.composite
def windows(draw: st.DrawFn) -> Window:
    level, side = draw(st.integers(6, 18)), draw(sides)
    last = (1 << level) // side - 1
    column, row = draw(st.integers(0, last)), draw(st.integers(0, last))
    return Window(level, column, row, side, draw(halos))


@st.composite
def footprints(draw: st.DrawFn) -> Footprint:
    left, top = draw(st.floats(0, 0.99)), draw(st.floats(0, 0.99))
    width, height = draw(st.floats(1e-5, 5e-3)), draw(st.floats(1e-5, 5e-3))
    shape = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    mask = np.random.default_rng(draw(st.integers(0, 99))).random(shape) < 0.4
    mask[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = True
    return Footprint(left, top, min(left + width, 1), min(top + height, 1), mask)


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("10-16", (10, 11, 12, 13, 14, 15, 16)),
        ("10,12,14", (10, 12, 14)),
        (" 15, 10 - 12,11", (10, 11, 12, 15)),
        ("9", (9,)),
    ],
)
def test_levels_are_read(text: str, levels: tuple[int, ...]) -> None:
    assert parse_levels(text) == levels


@pytest.mark.parametrize(
    "text", ["", "16-10", "10-", "a", "10;12", "10,,12", "-3", "1e1", "10-123"]
)
def test_levels_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="expected a range"):
        parse_levels(text)


def test_references_prefer_the_cascades_span() -> None:
    levels = (10, 11, 12, 14, 15)
    assert [reference_level(level, levels) for level in levels] == [
        None,
        (10, 1),
        (10, 2),
        (12, 2),
        (14, 1),
    ]
    assert reference_level(12, levels, "2x") == (11, 1)
    assert reference_level(14, levels, "2x") == (12, 2)


@given(windows(), st.integers(1, 2))
def test_parents_cover_a_window(window: Window, span: int) -> None:
    left, top, width, height = window.parent_box(span)
    own_left, own_top, own_width, own_height = window.pixel_box
    assert left << span <= own_left and own_left + own_width <= (left + width) << span
    assert top << span <= own_top and own_top + own_height <= (top + height) << span
    world = 256 << (window.level - span)
    covered = {tile for w in window.parent_windows(span) for tile in w.tiles()}
    for x in range(max(left, 0), min(left + width, world), 64):
        for y in range(max(top, 0), min(top + height, world), 64):
            assert Tile(x // 256, y // 256, window.level - span) in covered
    for tile in window.tiles():
        assert parent(tile, zoom=window.level - span) in covered


@given(windows())
def test_windows_suit_the_graphs_and_hold_their_tiles(window: Window) -> None:
    left, top, width, height = window.pixel_box
    assert width == height == window.size and width % 64 == 0
    assert len(window.tiles()) == window.side**2
    for tile in window.tiles():
        x, y, _, _ = window.tile_box(tile)
        assert (x + left, y + top) == (tile.x * 256, tile.y * 256)
        assert x >= window.halo and x + 256 <= width - window.halo
        assert window_of(tile, window.side, window.halo) == window


@pytest.mark.parametrize(("side", "halo"), [(3, 0), (0, 0), (1, 16), (2, -32)])
def test_windows_that_suit_no_graph_are_refused(side: int, halo: int) -> None:
    with pytest.raises(OptionError):
        Window(10, 0, 0, side, halo)


def test_windows_stay_inside_a_small_world() -> None:
    assert Window(1, 0, 0, 4).tiles() == [Tile(x, y, 1) for y in (0, 1) for x in (0, 1)]
    assert Window(2, 3, 0, 1, 32).parent_windows(1) == [Window(1, 1, 0, 1, 32)]


@settings(max_examples=50, deadline=None)
@given(st.lists(footprints(), min_size=1, max_size=2), sides, halos)
def test_a_plan_is_a_partition_and_complete_upwards(
    parts: list[Footprint], side: int, halo: int
) -> None:
    levels = (8, 10, 11, 12)
    planned = plan(levels, parts, side=side, halo=halo)
    for level in levels:
        tiles = list(planned.tiles(level))
        found = [tile for window in planned.windows(level) for tile in planned.tiles_of(window)]
        assert sorted(found) == sorted(tiles) and len(set(found)) == planned.tile_count(level)
        assert planned.window_count(level) == len(list(planned.windows(level)))
        for tile in tiles:
            for span in (1, 2):
                if level - span in levels:
                    above = window_of(parent(tile, zoom=level - span), side, halo)
                    assert parent(tile, zoom=level - span) in planned.tiles_of(above)


@settings(deadline=None)
@given(footprints(), st.floats(0, 1), st.floats(0, 1), st.integers(8, 14))
def test_the_tile_under_any_data_is_planned(
    part: Footprint, column: float, row: float, level: int
) -> None:
    rows, columns = np.nonzero(part.mask)
    chosen = int(column * (len(rows) - 1))
    height, width = part.mask.shape
    x = part.left + (columns[chosen] + 0.01 + 0.98 * column) / width * (part.right - part.left)
    y = part.top + (rows[chosen] + 0.01 + 0.98 * row) / height * (part.bottom - part.top)
    assert tile_at(*degrees_from_world(x, y), level) in plan((level,), [part]).tiles(level)


def test_borders_that_touch_add_no_tiles() -> None:
    part = Footprint(3 / 8, 1 / 8, 5 / 8, 2 / 8, np.ones((5, 3), np.bool_))
    assert list(plan((3,), [part]).tiles(3)) == [Tile(3, 1, 3), Tile(4, 1, 3)]
    tiny = Footprint(3 / 8 - 1e-13, 1 / 8, 5 / 8, 2 / 8 + 1e-13, np.ones((1, 1), np.bool_))
    assert plan((3,), [tiny]).tile_count(3) == 2


@settings(max_examples=10, deadline=None)
@given(footprints(), footprints(), st.integers(0, 99))
def test_intersection_loses_nothing(one: Footprint, other: Footprint, seed: int) -> None:
    other = replace(other, left=one.left, top=one.top)  # so that they often meet
    if other.right <= other.left or other.bottom <= other.top:
        return
    both = one.intersection(other)
    for u, v in np.random.default_rng(seed).random((20, 2)):
        x = one.left + u * (one.right - one.left) + np.array([-2e-9, 2e-9])
        y = one.top + v * (one.bottom - one.top) + np.array([-2e-9, 2e-9])
        if one.touched(x, y).all() and other.touched(x, y).all():
            assert both is not None and both.touched(x, y).all()


def test_an_area_restricts_the_plan_and_may_miss() -> None:
    scene = Footprint(0.5, 0.5, 0.51, 0.51, np.ones((4, 4), np.bool_))
    inside = Footprint(0.502, 0.502, 0.503, 0.503, np.ones((1, 1), np.bool_))
    near = Footprint(0.5101, 0.5, 0.5102, 0.51, np.ones((1, 1), np.bool_))
    planned = plan((8, 14), [scene], [inside, near])
    assert planned.tile_count(14) == len(inside.tiles(14)) < len(scene.tiles(14))
    assert planned.bounds == pytest.approx(
        (*degrees_from_world(0.502, 0.503), *degrees_from_world(0.503, 0.502))
    )
    with pytest.raises(AreaError, match="misses the scene"):
        plan((8, 14), [scene], [near])
    assert intersect([scene], []) == ()


def test_too_many_tiles_are_refused() -> None:
    world = Footprint(0, 0, 1, 1, np.ones((1, 1), np.bool_))
    with pytest.raises(OptionError, match="over 10,000,000 tiles"):
        plan((18,), [world])


@given(st.floats(-180, 180), st.floats(-90, 90))
def test_world_units_are_web_mercator(longitude: float, latitude: float) -> None:
    x, y = world_from_degrees(longitude, latitude)
    assert 0 <= x <= 1 and -1e-9 <= y <= 1 + 1e-9, "latitudes beyond the map are clamped"
    back = degrees_from_world(x, y)
    assert back[0] == pytest.approx(longitude, abs=1e-9)
    assert back[1] == pytest.approx(max(-85.0511287798, min(85.0511287798, latitude)), abs=1e-9)
    if abs(latitude) < 85 and longitude < 179.9:
        expected = bounding_tile(longitude, latitude, longitude, latitude)
        assert abs(math.floor(x * (1 << expected.z)) - expected.x) <= 1
