"""If these fail, a window starts before its reference exists, or looks at the wrong ground."""

import random
from collections.abc import Sequence

import mercantile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2gm.runtime.batching import Slots
from c2gm.runtime.cascade import Cascade, reference_picture, reference_spans, reference_tiles
from c2gm.runtime.footprint import Footprint
from c2gm.runtime.grid import Cascade as CascadeKind
from c2gm.runtime.grid import Plan, Window, plan
from c2gm.runtime.pixels import enlarge
from c2gm.runtime.quilt import Painting, Quilt
from c2gm.runtime.work import work_of


def some_plan(
    levels: Sequence[int],
    cells: list[list[bool]],
    side: int = 1,
    halo: int = 0,
    part: tuple[float, float, float, float] | None = None,
) -> Plan:
    """A plan over a patchy footprint some tiles wide at level 14.

    `part`: left, top, width and height of the area planned for, in shares of the footprint.
    """
    scale = 1 << 14
    mask = np.array(cells, dtype=np.bool_)
    left, top = 8579 / scale, 5737 / scale
    height, width = mask.shape
    footprint = Footprint(left, top, left + width / scale, top + height / scale, mask)
    if part is None:
        return plan(levels, [footprint], None, side, halo)
    x, y, w, h = part
    left, width, top, height = left + x * width / scale, width / scale, top, height / scale
    top += y * height
    area = Footprint(left, top, left + w * width, top + h * height, np.ones((1, 1), np.bool_))
    return plan(levels, [footprint], [area], side, halo)


def cascade_over(planned: Plan) -> Cascade:
    """All of a plan, each level from every other."""
    return Cascade(work_of(planned, reference_spans(planned.levels)))


masks = st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=4).filter(
    lambda cells: any(map(any, cells))
)
level_sets = st.lists(st.integers(10, 15), min_size=1, max_size=6, unique=True).map(sorted)


@given(
    levels=level_sets,
    cells=masks,
    kind=st.sampled_from(("4x", "2x")),
    shape=st.sampled_from(((1, 0), (2, 0), (1, 32), (2, 64))),
    seed=st.integers(0, 99),
)
def test_every_window_once_and_never_before_its_reference(
    levels: list[int],
    cells: list[list[bool]],
    kind: CascadeKind,
    shape: tuple[int, int],
    seed: int,
) -> None:
    planned = some_plan(levels, cells, *shape)
    every = [window for level in planned.levels for window in planned.windows(level)]
    order, spans = random.Random(seed), reference_spans(levels, None, kind)
    done = set(order.sample(every, len(every) // 3))  # by a former run
    work = work_of(planned, spans, done=done)
    cascade = Cascade(work)

    def parents(window: Window) -> set[Window]:
        return set(work.parents(window)).intersection(every)

    finished, taken, working = set(done), [], []
    kept = {window for window in done if cascade.has_readers(window)}
    while len(cascade):
        while len(working) < 4 and (window := cascade.take()):
            assert finished.issuperset(parents(window))
            assert kept.issuperset(parents(window)), "a reference was forgotten too early"
            kept.difference_update(cascade.release(window))
            taken.append(window)
            working.append(window)
        assert working, "windows wait, and nothing is being worked on"
        window = working.pop(order.randrange(len(working)))
        cascade.finish(window)
        finished.add(window)
        if cascade.has_readers(window):
            kept.add(window)
    assert sorted(taken) == sorted(work.drawn) and work.drawn >= set(every) - done
    assert not kept, "pictures that nobody needs are kept"


def test_a_branch_is_finished_before_the_next_so_that_few_pictures_wait() -> None:
    planned = some_plan(range(10, 17), [[True] * 8] * 8)
    cascade = cascade_over(planned)
    kept: set[Window] = set()
    most = 0
    while window := cascade.take():
        kept.difference_update(cascade.release(window))
        cascade.finish(window)
        if cascade.has_readers(window):
            kept.add(window)
        most = max(most, len(kept))
    windows = sum(planned.window_count(level) for level in planned.levels)
    assert windows > 1000
    assert most < 40


def test_the_order_does_not_change_between_runs() -> None:
    def order() -> list[Window]:
        cascade = cascade_over(some_plan(range(12, 16), [[True] * 3] * 3, halo=32))
        taken = []
        while window := cascade.take():
            cascade.finish(window)
            taken.append(window)
        return taken

    assert order() == order()


def test_only_windows_at_work_can_be_finished() -> None:
    cascade = cascade_over(some_plan([14], [[True]]))
    with pytest.raises(ValueError, match="not being worked on"):
        cascade.finish(Window(14, 8579, 5737))
    window = cascade.take()
    assert window is not None
    cascade.finish(window)
    with pytest.raises(ValueError, match="not being worked on"):
        cascade.finish(window)


@pytest.mark.parametrize("span", [1, 2])
@pytest.mark.parametrize(("side", "halo"), [(1, 0), (1, 32), (2, 64)])
def test_a_reference_shows_the_ground_of_its_window(span: int, side: int, halo: int) -> None:
    window = Window(14, 8579 // side, 5737 // side, side, halo)
    left, top, width, height = window.parent_box(span)
    tiles = reference_tiles(window, span)
    canvas = np.random.default_rng(0).integers(0, 256, (5 * 256, 5 * 256, 4), dtype=np.uint8)
    canvas[..., 3] = 255
    west, north = min(tile.x for tile in tiles), min(tile.y for tile in tiles)
    pictures = {
        tile: canvas[(tile.y - north) * 256 :, (tile.x - west) * 256 :][:256, :256]
        for tile in tiles
    }
    y, x = top - north * 256, left - west * 256
    expected = enlarge(canvas[y : y + height, x : x + width], span)
    assert np.array_equal(reference_picture(window, span, pictures), expected)


def test_a_missing_tile_is_a_transparent_part_of_the_reference() -> None:
    window = Window(14, 8580, 5740, 1, 32)
    tile = mercantile.Tile(8580 >> 2, 5740 >> 2, 12)
    assert tile in reference_tiles(window, 2)
    white = np.full((256, 256, 4), 255, np.uint8)
    alpha = reference_picture(window, 2, {tile: white})[..., 3]
    assert alpha.shape == (320, 320)
    # 8580 and 5740 are multiples of 4: this window lies in the corner of its parent, and its halo
    # reaches over to two neighbours and one diagonal.
    assert (alpha[32:, 32:] == 255).all()
    assert not alpha[:32].any()
    assert not alpha[:, :32].any()


def test_colours_under_invalid_pixels_do_not_bleed_into_a_reference() -> None:
    window = Window(14, 8580, 5740)
    tile = mercantile.Tile(8580 >> 2, 5740 >> 2, 12)
    half = np.full((256, 256, 4), 200, np.uint8)
    half[..., 3] = 255
    half[:, :20] = 0
    reference = reference_picture(window, 2, {tile: half})
    valid = reference[..., 3] > 0
    assert valid.mean() == pytest.approx(44 / 64)
    assert np.abs(reference[..., :3][valid].astype(int) - 200).max() < 20


@pytest.mark.parametrize(("rows", "guides"), [(2, None), (4, range(14, 17)), (16, None)])
def test_rows_are_nearly_always_full_where_windows_wait_for_their_neighbours(
    rows: int, guides: Sequence[int] | None
) -> None:
    """Blended windows take a row to be drawn, and a canvas of them one to be painted."""
    planned = some_plan(range(10, 17), [[True] * 12] * 12, 1, 32)
    work = work_of(planned, reference_spans(planned.levels, guides))
    cascade, quilt = Cascade(work), Quilt(work)
    order, latents = random.Random(1), np.zeros((1, 40, 40), np.float32)
    running: list[tuple[int, Window | Painting]] = []
    to_paint: list[Painting] = []
    drawn: set[Window] = set()
    painted: set[Window] = set()
    busy = ticks = 0
    begun = False
    while len(cascade):
        while len(running) < rows and to_paint:
            running.append((order.randint(1, 8), to_paint.pop(0)))
        while len(running) < rows and (window := cascade.take()) is not None:
            cascade.release(window)
            assert window not in drawn
            drawn.add(window)
            running.append((order.randint(1, 6), window))
        begun = begun or len(running) == rows
        if begun and len(cascade) >= 4 * rows:
            busy, ticks = busy + len(running), ticks + 1
        over = [what for ends, what in running if ends == 1]
        running = [(ends - 1, what) for ends, what in running if ends > 1]
        for what in over:
            if isinstance(what, Window):
                to_paint += quilt.put(what, latents)
                continue
            painted.update(what.windows)
            for window in what.windows:
                cascade.finish(window)
    assert painted == drawn and not len(quilt)
    assert ticks > 50
    assert busy >= 0.95 * rows * ticks


@pytest.mark.parametrize(("rows", "shape"), [(2, (1, 0)), (4, (1, 32)), (16, (1, 0)), (4, (2, 64))])
def test_rows_are_nearly_always_full_until_the_last_windows(
    rows: int, shape: tuple[int, int]
) -> None:
    """A large map, windows of random length: children take over as soon as their parents end.

    Left out: the first windows, which are fewer than rows, and the last, when none is left.
    """
    planned = some_plan(range(10, 17), [[True] * 12] * 12, *shape)
    cascade, slots, order = cascade_over(planned), Slots[Window](rows), random.Random(1)
    left: dict[int, int] = {}
    busy = ticks = 0
    begun = False
    while len(cascade):
        while slots.free and (window := cascade.take()) is not None:
            cascade.release(window)
            left[slots.admit(window).row] = order.randint(1, 6)
        begun = begun or not slots.free
        if begun and len(cascade) >= rows:
            busy, ticks = busy + len(slots), ticks + 1
        for slot in slots:
            left[slot.row] -= 1
            if not left[slot.row]:
                cascade.finish(slots.retire(slot.row))
    assert ticks > 50
    assert busy >= 0.95 * rows * ticks
