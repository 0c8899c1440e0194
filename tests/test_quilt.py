"""Blended windows: nothing is lost or painted early, and what agrees stays as it is."""

import random
from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from c2gm.runtime.footprint import Footprint
from c2gm.runtime.grid import CANVAS_HALO, Plan, Window, decoder_sides, plan
from c2gm.runtime.quilt import Latents, Quilt, spread
from c2gm.runtime.work import work_of

LEVEL, CELLS = 12, 8
ALONE = {LEVEL: None}


def planned(valid: NDArray[np.bool_], side: int = 1, halo: int = 32) -> Plan:
    """Windows of one level where `valid` has data, a tile each entry."""
    corner, size = 0.5, valid.shape[0] / 2**LEVEL
    return plan(
        [LEVEL], [Footprint(corner, corner, corner + size, corner + size, valid)], None, side, halo
    )


def ground(seed: int) -> Latents:
    """One picture of the ground in latents; its first cell is `ORIGIN`, west and north of all."""
    return np.random.default_rng(seed).standard_normal((2, 480, 480), np.float32)


ORIGIN = tuple((2 ** (LEVEL - 1) - 2) * 256 // CELLS for _ in range(2))


def seen(whole: Latents, box: tuple[int, int, int, int]) -> Latents:
    """What of it lies in a box of level pixels."""
    x, y, width, height = (value // CELLS for value in box)
    x, y = x - ORIGIN[0], y - ORIGIN[1]
    return whole[:, y : y + height, x : x + width]


def reached(box: tuple[int, int, int, int], drawn: Collection[Window]) -> NDArray[np.bool_]:
    """The cells of a box that some drawn window covers."""
    left, top, width, height = box
    covered = np.zeros((height, width), bool)
    for x, y, size, _ in (other.pixel_box for other in drawn):
        rows = slice(max(y - top, 0), max(y - top + size, 0))
        covered[rows, max(x - left, 0) : max(x - left + size, 0)] = True
    return covered[::CELLS, ::CELLS]


masks = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.booleans(), min_size=n * n, max_size=n * n).map(
        lambda cells: np.array(cells).reshape(n, n) | np.eye(n, dtype=bool)
    )
)


@settings(deadline=None)
@given(
    masks, st.sampled_from([1, 2]), st.sampled_from([0, 32, 64]), st.integers(0, 99), st.booleans()
)
def test_every_window_is_painted_once_from_what_all_say(
    valid: NDArray[np.bool_], side: int, halo: int, seed: int, resumed: bool
) -> None:
    whole = planned(valid, side, halo)
    windows = list(whole.windows(LEVEL))
    chance = random.Random(seed)
    done = set(chance.sample(windows, len(windows) // 2)) if resumed else set()
    blank = set(chance.sample(windows, len(windows) // 4))
    work = work_of(whole, ALONE, done=done)
    quilt, latents = Quilt(work), ground(seed)
    order = sorted(work.drawn)
    assert set(windows) - done <= set(order)
    chance.shuffle(order)
    drawn: set[Window] = set()
    painted: set[Window] = set()
    for window in order:
        drawn.add(window)
        found = None if window in blank else seen(latents, window.pixel_box)
        for ready in quilt.put(window, found):
            canvas = ready.windows[0].canvas
            shown = {near for near in canvas.overlapping(side, halo) if near in windows}
            assert {other.canvas for other in ready.windows} == {canvas}
            assert shown <= drawn and painted.isdisjoint({*ready.windows, *done})
            painted.update(ready.windows)
            assert (ready.latents is None) == blank.issuperset(ready.windows)
            if ready.latents is None:
                continue
            _, height, width = (size * CELLS for size in ready.latents.shape)
            assert max(height, width) <= canvas.size
            box = (*ready.corner, width, height)
            expected = spread(seen(latents, box), reached(box, shown - blank))
            np.testing.assert_allclose(ready.latents, expected, atol=1e-5)
            for own in set(ready.windows) - blank:
                x, y, size, _ = own.pixel_box
                assert ready.corner[0] <= x and x + size <= ready.corner[0] + width
                assert ready.corner[1] <= y and y + size <= ready.corner[1] + height
    assert painted == set(windows) - done
    assert not len(quilt), "latents that nobody needs"


def test_neighbours_that_disagree_are_painted_alike_along_their_border() -> None:
    whole = planned(np.ones((4, 4), bool), side=2, halo=64)
    quilt, paintings = Quilt(work_of(whole, ALONE)), dict[Window, Latents]()
    for number, window in enumerate(whole.windows(LEVEL)):
        for ready in quilt.put(window, np.full((1, 80, 80), number, np.float32)):
            assert ready.latents is not None
            paintings |= dict.fromkeys(ready.windows, ready.latents)
    west, east, *_ = (paintings[window] for window in whole.windows(LEVEL))
    np.testing.assert_array_equal(west[:, :, 64:], east[:, :, :16])
    assert west[0, 32, 32] == 0 and east[0, 32, 40] == 1, "the middles keep what they drew"
    assert np.all(np.diff(west[0, 32]) >= 0)


def test_without_blending_windows_are_left_alone() -> None:
    whole = planned(np.ones((2, 2), bool))
    quilt = Quilt(work_of(whole, ALONE, blend=False), blend=False)
    for window in whole.windows(LEVEL):
        latents = np.random.default_rng(window.column).standard_normal((1, 40, 40), np.float32)
        (painting,) = quilt.put(window, latents)
        assert painting.windows == (window,) and painting.latents is latents
        assert painting.corner == window.pixel_box[:2]


def test_what_no_window_reaches_is_taken_from_the_nearest_that_one_reaches() -> None:
    seen = np.zeros((4, 5), bool)
    seen[1, 1] = seen[1, 4] = seen[3, 2] = True
    values = np.where(seen, np.arange(20).reshape(4, 5), np.nan).astype(np.float32)[np.newaxis]
    one, four, two = values[0, 1, 1], values[0, 1, 4], values[0, 3, 2]
    upper = [one, one, one, four, four]
    np.testing.assert_array_equal(spread(values, seen)[0], [upper, upper, upper, [two] * 5])


@pytest.mark.parametrize(("side", "halo"), [(1, 0), (1, 32), (1, 96), (2, 32), (2, 64), (4, 32)])
def test_engines_for_windows_can_decode_their_canvases(side: int, halo: int) -> None:
    window = Window(12, 3, 5, side, halo)
    assert {window.size, window.canvas.size} <= set(decoder_sides(window.size))
    assert window.canvas.halo >= (CANVAS_HALO if halo else 0)
