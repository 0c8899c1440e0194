"""Blended windows: nothing is lost or painted early, and what agrees stays as it is."""

import random
from collections.abc import Mapping

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


def field(seed: int, windows: list[Window]) -> Mapping[Window, Latents]:
    """One picture of the ground in latents, as each window and each canvas sees it."""
    whole = np.random.default_rng(seed).standard_normal((2, 400, 400), np.float32)
    left = min(w.canvas.pixel_box[0] for w in windows) // CELLS
    top = min(w.canvas.pixel_box[1] for w in windows) // CELLS
    seen = {}
    for window in {shape for w in windows for shape in (w, w.canvas)}:
        x, y, size, _ = (value // CELLS for value in window.pixel_box)
        seen[window] = whole[:, y - top : y - top + size, x - left : x - left + size]
    return seen


def reach(window: Window, drawn: set[Window]) -> NDArray[np.bool_]:
    """Of a window's canvas the cells that some drawn window covers."""
    left, top, size, _ = window.canvas.pixel_box
    covered = np.zeros((size, size), bool)
    for x, y, width, height in (other.pixel_box for other in drawn):
        across, down = slice(max(x - left, 0), x - left + width), slice(max(y - top, 0), None)
        covered[down, across][: min(y - top, 0) + height] = True
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
    quilt, seen = Quilt(work), field(seed, windows)
    order = sorted(work.drawn)
    assert set(windows) - done <= set(order)
    chance.shuffle(order)
    drawn: set[Window] = set()
    painted: set[Window] = set()
    for window in order:
        drawn.add(window)
        for ready in quilt.put(window, None if window in blank else seen[window]):
            around = {
                w
                for w in windows
                if halo and max(abs(w.column - ready.column), abs(w.row - ready.row)) <= 1
            } | {ready}
            assert around <= drawn and ready not in painted | done
            painted.add(ready)
            blended = quilt.take(ready)
            assert (blended is None) == (ready in blank)
            if blended is not None:
                reached = reach(ready, around - blank)
                whole_canvas = spread(seen[ready.canvas], reached)
                np.testing.assert_allclose(blended, whole_canvas, atol=1e-5)
                halo_cells = (ready.canvas.halo - ready.halo) // CELLS
                own = slice(halo_cells, blended.shape[1] - halo_cells)
                np.testing.assert_allclose(blended[:, own, own], seen[ready], atol=1e-5)
    assert painted == set(windows) - done
    assert not len(quilt), "latents that nobody needs"


def test_neighbours_that_disagree_are_painted_alike_along_their_border() -> None:
    whole = planned(np.ones((2, 2), bool), halo=64)
    windows = list(whole.windows(LEVEL))
    quilt = Quilt(work_of(whole, ALONE))
    ready: list[Window] = []
    for number, window in enumerate(windows):
        ready += quilt.put(window, np.full((1, 48, 48), number, np.float32))
    west, east = (quilt.take(window) for window in ready[:2])
    assert west is not None and east is not None
    np.testing.assert_array_equal(west[:, :, 32:48], east[:, :, 0:16])
    assert west[0, 16, 16] == 0 and east[0, 16, 32] == 1, "the middles keep what they drew"
    assert np.all(np.diff(west[0, 16]) >= 0)


def test_without_blending_windows_are_left_alone() -> None:
    whole = planned(np.ones((2, 2), bool))
    quilt = Quilt(work_of(whole, ALONE, blend=False), blend=False)
    for window in whole.windows(LEVEL):
        latents = np.random.default_rng(window.column).standard_normal((1, 40, 40), np.float32)
        assert quilt.put(window, latents) == [window]
        assert quilt.take(window) is latents


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
