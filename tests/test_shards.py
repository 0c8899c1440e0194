"""If these fail, shards lack windows, do them twice, or are not parts of the one map."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cascade import level_sets, masks, some_plan
from test_work import drawn_map, tiles_of

from c2gm.runtime.cascade import reference_spans
from c2gm.runtime.errors import AreaError, OptionError
from c2gm.runtime.footprint import Footprint
from c2gm.runtime.grid import Plan, plan
from c2gm.runtime.shards import Shard, parse_shard, shard_of
from c2gm.runtime.work import work_of

shapes = st.sampled_from(((1, 0), (1, 32), (2, 64), (4, 32)))
boxes = st.tuples(*[st.floats(0, 0.9)] * 2, *[st.floats(0.3, 1)] * 2)


def footprint_of(cells: list[list[bool]]) -> Footprint:
    """The ground of `some_plan`."""
    scale, mask = 1 << 14, np.array(cells, np.bool_)
    left, top = 8579 / scale, 5737 / scale
    height, width = mask.shape
    return Footprint(left, top, left + width / scale, top + height / scale, mask)


def all_shards(planned: Plan, cells: list[list[bool]], count: int) -> list[Plan]:
    """Every shard of a plan."""
    ground = [footprint_of(cells)]
    return [shard_of(planned, Shard(i + 1, count), ground) for i in range(count)]


@settings(deadline=None)
@given(level_sets, masks, shapes, st.integers(1, 30))
def test_shards_are_the_plan_dealt_out_evenly(
    levels: Sequence[int], cells: list[list[bool]], shape: tuple[int, int], count: int
) -> None:
    planned = some_plan(levels, cells, *shape)
    shards = all_shards(planned, cells, count)
    for level in levels:
        windows = [window for shard in shards for window in shard.windows(level)]
        assert sorted(windows) == sorted(planned.windows(level)), "every window once"
        for shard in shards:
            for window in shard.windows(level):
                assert shard.tiles_of(window) == planned.tiles_of(window), "never a part of one"
    sizes = [sum(shard.window_count(level) for level in levels) for shard in shards]
    a_canvas = (planned.canvas_side // planned.side) ** 2
    assert max(sizes) - min(sizes) <= 2 * a_canvas - 1
    assert {(shard.levels, shard.bounds) for shard in shards} == {(planned.levels, planned.bounds)}
    again = all_shards(some_plan(levels, cells, *shape), cells, count)
    assert [tiles_of(shard) for shard in again] == [tiles_of(shard) for shard in shards]


@settings(deadline=None, max_examples=50)
@given(level_sets, masks, st.sampled_from(((1, 0), (1, 32), (2, 64))), boxes, st.integers(2, 5))
def test_shards_are_parts_of_the_map_also_of_an_area(
    levels: Sequence[int],
    cells: list[list[bool]],
    shape: tuple[int, int],
    box: tuple[float, float, float, float],
    count: int,
) -> None:
    ground = tiles_of(some_plan(levels, cells, *shape))
    spans = reference_spans(levels)
    for area in (None, box):
        try:
            whole = some_plan(levels, cells, *shape, area)
        except AreaError:  # nothing there
            continue
        expected = drawn_map(whole, spans, ground)
        found = [drawn_map(part, spans, ground) for part in all_shards(whole, cells, count)]
        assert {tile: data for part in found for tile, data in part.items()} == expected
        assert sum(map(len, found)) == len(expected)


@pytest.mark.parametrize(("count", "limit"), [(2, 1.08), (4, 1.17), (8, 1.33)])
def test_shards_draw_little_around_themselves(count: int, limit: float) -> None:
    """Levels 10-16, 50 x 50 tiles: docs/cluster.md has the figures."""
    ground = [
        Footprint(
            0.5236, 0.3502, 0.5236 + 50 / 65536, 0.3502 + 50 / 65536, np.ones((1, 1), np.bool_)
        )
    ]
    planned = plan(range(10, 17), ground, None, 1, 32)
    spans = reference_spans(planned.levels, (14, 15, 16))
    whole = len(work_of(planned, spans).drawn)
    parts = [shard_of(planned, Shard(i + 1, count), ground) for i in range(count)]
    drawn = [len(work_of(part, spans).drawn) for part in parts]
    assert sum(drawn) < limit * whole
    assert max(drawn) < 1.15 * min(drawn), "nobody waits long for the last"


def test_a_shard_is_named() -> None:
    assert parse_shard(" 2/4 ") == Shard(2, 4) and str(Shard(2, 4)) == "2/4"
    assert Shard(2, 4).file_name("town") == "town.2-of-4.mbtiles"
    for text in ("0/4", "5/4", "2", "a/b", "1/0", "-1/4", "1/2/3", "1/20000"):
        with pytest.raises(OptionError, match=r"expected (I/N|1/N)"):
            parse_shard(text)


def test_windows_go_to_one_shard_each_wherever_the_map_lies() -> None:
    """At the world's corners, where columns and rows are 0."""
    corner = Footprint(0, 0, 1 / 64, 1 / 64, np.ones((1, 1), np.bool_))
    planned = plan((5, 8), [corner], None, 2, 64)
    parts = [shard_of(planned, Shard(i + 1, 3), [corner]) for i in range(3)]
    assert sum(part.window_count(8) for part in parts) == planned.window_count(8) == 4
    assert all(replace(part, keys=planned.keys, beyond=None) == planned for part in parts)
