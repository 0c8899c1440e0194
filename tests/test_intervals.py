"""Intervals of differences say what they promise: by blocks of ground, paired, within kinds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from c2gm.model.data.ground_blocks import ground_blocks
from c2gm.model.data.mosaic import Area, Extent, Kind
from c2gm.model.data.pairs import Window
from c2gm.model.evaluation.intervals import Difference, paired_difference
from c2gm.model.evaluation.tile_scores import Parts

NAMES = "abcdefghijklmnopqrst"


def means(values: Sequence[float] | NDArray[np.float64]) -> Parts:
    """Tiles whose score is a mean over them."""
    return np.stack([np.array(values, np.float64), np.ones(len(values))], axis=1)


def of_one_kind(
    one: Sequence[float], other: Sequence[float], blocks: Sequence[str]
) -> Difference | None:
    return paired_difference(means(one), means(other), blocks, ["real"] * len(blocks))


def test_of_four_blocks_it_is_their_range() -> None:
    """Student's t of three degrees of freedom asks for more than four blocks can show."""
    found = of_one_kind([1.0, 2.0, 4.0, 9.0], [0.0] * 4, "abcd")
    assert found == Difference(4.0, 1.0, 9.0, 4)
    assert found.sure


def test_three_blocks_are_too_few() -> None:
    found = of_one_kind([1.0, 2.0, 4.0, 4.0], [0.0] * 4, "abcc")
    assert found == Difference(2.75, None, None, 3)
    assert not found.sure


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=4, max_size=12), st.floats(-5, 5))
def test_a_constant_shift_is_certain(values: list[float], shift: float) -> None:
    blocks = [NAMES[i % 4] for i in range(len(values))]
    found = of_one_kind([v + shift for v in values], values, blocks)
    assert found is not None and found.low is not None and found.high is not None
    assert (found.value, found.low, found.high) == pytest.approx((shift,) * 3, abs=1e-8)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_the_order_of_tiles_does_not_matter(data: st.DataObject) -> None:
    count = data.draw(st.integers(8, 20))
    # Whole numbers, so that sums do not depend on their order.
    numbers = st.lists(st.integers(0, 90), min_size=count, max_size=count)
    one, other, wholes = (np.array(data.draw(numbers), np.float64) for _ in range(3))
    sides = [np.stack([part, part + wholes + 1], axis=1) for part in (one, other)]
    blocks = [NAMES[i % 5] for i in range(count)]
    kinds = ["real" if block in "ab" else "painted" for block in blocks]
    order = data.draw(st.permutations(range(count)))
    found = paired_difference(*sides, blocks, kinds)
    moved = paired_difference(
        *(side[order] for side in sides), [blocks[i] for i in order], [kinds[i] for i in order]
    )
    assert found == moved


def test_tiles_that_agree_inside_their_block_add_nothing() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=10)
    single = of_one_kind(values.tolist(), [0.0] * 10, NAMES[:10])
    repeated = of_one_kind(np.repeat(values, 9).tolist(), [0.0] * 90, sorted(NAMES[:10] * 9))
    by_tile = of_one_kind(np.repeat(values, 9).tolist(), [0.0] * 90, [str(i) for i in range(90)])
    assert single is not None and repeated is not None and by_tile is not None
    assert (repeated.low, repeated.high) == pytest.approx((single.low, single.high), abs=1e-8)
    assert width(by_tile) < 0.5 * width(single), "which is what counting tiles would pretend"


def test_both_sides_are_drawn_together() -> None:
    """Places differ by much more than painters do."""
    places = [0.0, 10.0, 20.0, 30.0, 40.0]
    found = of_one_kind([p + 1 + 0.1 * i for i, p in enumerate(places)], places, "abcde")
    assert found is not None and found.low is not None and found.high is not None
    assert 1.0 <= found.low < found.high <= 1.4


def test_kinds_are_drawn_each_by_itself() -> None:
    kinds = ["dubai"] * 3 + ["painted"] * 4
    one = [1.0] * 3 + [8.0] * 4
    found = paired_difference(means(one), means([0.0] * 7), NAMES[:7], kinds)
    assert found == Difference(5.0, 5.0, 5.0, 7), "all spread lies between kinds"
    alone = paired_difference(means([1.0, *one]), means([0.0] * 8), NAMES[:8], ["real", *kinds])
    assert alone is not None and width(alone) > 1, "a kind of one block is not taken for certain"


def test_class_scores_are_of_summed_pixels() -> None:
    one = np.array([[1, 2], [90, 100], [0, 0], [5, 10], [5, 10], [8, 10]], np.float64)
    other = np.array([[2, 2], [50, 100], [0, 0], [5, 10], [5, 10], [2, 10]], np.float64)
    kinds = ["real"] * 6
    found = paired_difference(one, other, "abcdef", kinds)
    assert found is not None and found.low is not None and found.high is not None
    assert found.value == pytest.approx(109 / 132 - 64 / 132)
    assert found.blocks == 5, "a block without the class has nothing to say"
    assert -0.5 < found.low < found.value < found.high < 0.6
    nobody = np.zeros((6, 2))
    assert paired_difference(nobody, other, "abcdef", kinds) is None


def test_equal_sides_differ_by_nothing() -> None:
    values = np.random.default_rng(0).normal(size=12).tolist()
    found = of_one_kind(values, values, NAMES[:12])
    assert found == Difference(0.0, 0.0, 0.0, 12)
    assert not found.sure


@pytest.mark.parametrize("sizes", [(12,), (8, 6)])
def test_of_even_blocks_it_is_students_interval(sizes: tuple[int, ...]) -> None:
    """Plain percentiles are a tenth too narrow here."""
    values = [np.linspace(-1.0, 1.0, size) for size in sizes]
    count = sum(sizes)
    kinds = [
        kind for kind, size in zip(("painted", "real"), sizes, strict=False) for _ in range(size)
    ]
    found = paired_difference(
        means(np.concatenate(values)), means([0.0] * count), NAMES[:count], kinds
    )
    variance = sum(len(v) * float(v.var(ddof=1)) for v in values) / count**2
    expected = 2 * variance**0.5 * {11: 2.2010, 12: 2.1788}[count - len(sizes)]
    assert width(found) == pytest.approx(expected, rel=0.04)


def width(found: Difference | None) -> float:
    assert found is not None and found.low is not None and found.high is not None
    return found.high - found.low


def window(name: str, kind: Kind, ground: Extent | None, level: int, x: int, y: int) -> Window:
    held_out = () if ground is None else (ground,)
    area = Area(Path(name), name, kind, "", "", {}, (), held_out)
    return Window(area, level, Extent(256 * x, 256 * y, 256, 256))


def test_areas_that_share_held_out_ground_are_one_block() -> None:
    windows = [
        window("town_s1", "painted", Extent(100, 0, 50, 50), 10, 0, 0),
        window("town_s0", "painted", Extent(140, 0, 50, 50), 16, 3, 4),
        window("farms", "painted", Extent(189, 0, 5, 5), 10, 0, 0),
        window("apart", "painted", Extent(194, 0, 5, 5), 10, 0, 0),
        window("photo", "real", Extent(100, 0, 50, 50), 10, 0, 0),
    ]
    assert ground_blocks(windows) == ["farms", "farms", "farms", "apart", "photo"]


def test_of_tile_folders_a_block_is_a_tile_and_all_below_it() -> None:
    places = [(14, 5, 6), (15, 11, 12), (16, 23, 27), (15, 12, 12)]
    windows = [window("tiles", "real", None, *place) for place in places]
    assert ground_blocks(windows) == ["tiles 14/5/6"] * 3 + ["tiles 14/6/6"]
