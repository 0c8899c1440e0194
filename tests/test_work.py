"""If these fail, a part of a scene, or a run that goes on, is another map than the whole one."""

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mercantile import Tile
from test_cascade import level_sets, masks, some_plan

from c2gm.runtime.cascade import Cascade, reference_spans, reference_tiles
from c2gm.runtime.errors import AreaError
from c2gm.runtime.grid import Cascade as CascadeKind
from c2gm.runtime.grid import Plan, Window, window_of
from c2gm.runtime.quilt import Quilt
from c2gm.runtime.work import work_of

SHAPES = ((1, 0), (1, 32), (2, 64))

Map = dict[Tile, bytes]
"""A digest of everything that went into a tile."""


def drawn_map(
    planned: Plan,
    spans: Mapping[int, int | None],
    ground: frozenset[Tile],
    before: Mapping[Tile, bytes] | None = None,
    done: Collection[Window] = (),
) -> Map:
    """What a run over `planned` leaves in the output, where it held `before`.

    A model whose latents depend on every bit of the reference, and whose tiles on every bit of the
    blended latents; it draws where there is `ground`.
    """
    output, kept = dict(before or {}), Map()
    work = work_of(planned, spans, done=done)
    cascade, quilt = Cascade(work), Quilt(work)
    while (window := cascade.take()) is not None:
        span = spans[window.level]
        shown = reference_tiles(window, span) if span is not None else []
        seen = [kept.get(tile) or output.get(tile) or b"-" for tile in shown]
        cascade.release(window)
        latents = None
        if not ground.isdisjoint(window.tiles()):
            digest = sha256(b"".join([window.key.encode(), *seen])).digest()
            seed, cells = int.from_bytes(digest), window.size // 8
            latents = np.random.default_rng(seed).standard_normal((1, cells, cells), np.float32)
        if window not in work.painted:
            cascade.finish(window)
        for painting in quilt.put(window, latents):
            for ready in painting.windows:
                for tile in ground.intersection(planned.data_tiles(ready)):
                    assert painting.latents is not None
                    seen = [painting.latents.tobytes(), str((painting.corner, tile)).encode()]
                    kept[tile] = sha256(b"".join(seen)).digest()
                    if ready in work.written and tile in planned.tiles_of(ready):
                        output[tile] = kept[tile]
                cascade.finish(ready)
    assert not len(cascade) and not len(quilt)
    return output


@settings(deadline=None)
@given(
    levels=level_sets,
    cells=masks,
    kind=st.sampled_from(("4x", "2x")),
    shape=st.sampled_from(SHAPES),
    box=st.tuples(*[st.floats(0, 0.9)] * 2, *[st.floats(0.05, 1)] * 2),
    seed=st.integers(0, 99),
)
def test_a_part_of_a_scene_is_a_part_of_its_map_also_when_it_was_stopped(
    levels: Sequence[int],
    cells: list[list[bool]],
    kind: CascadeKind,
    shape: tuple[int, int],
    box: tuple[float, float, float, float],
    seed: int,
) -> None:
    whole = some_plan(levels, cells, *shape)
    try:
        part = some_plan(levels, cells, *shape, box)
    except AreaError:  # nothing there
        return
    spans, chance = reference_spans(levels, None, kind), random.Random(seed)
    tiles = [tile for level in levels for tile in whole.tiles(level)]
    # The footprint errs on the side of true.
    ground = frozenset(chance.sample(tiles, len(tiles) - len(tiles) // 8))
    expected = drawn_map(whole, spans, ground)
    assert expected.keys() == ground
    own = {tile: expected[tile] for tile in tiles_of(part) & ground}
    assert drawn_map(part, spans, ground) == own
    # Damage may have taken any windows out of what a stopped run left, parents as well as children.
    windows = [window for level in levels for window in part.windows(level)]
    done = set(chance.sample(windows, len(windows) // 2))
    before = {tile: own[tile] for tile in own if window_of(tile, *shape) in done}
    assert drawn_map(part, spans, ground, before, done) == own


def test_a_whole_scene_asks_for_nothing_but_itself() -> None:
    planned = some_plan(range(10, 16), [[True, False, True, True]] * 3, 1, 32)
    work = work_of(planned, reference_spans(planned.levels))
    every = {window for level in planned.levels for window in planned.windows(level)}
    assert work.written == work.painted == work.drawn == every


def test_a_part_asks_for_a_ring_and_what_it_is_drawn_from_and_no_more() -> None:
    """One tile in the middle of the scene: 16 windows at 14, seen from 12 through 4 tiles there."""
    part = some_plan((12, 14), [[True] * 32] * 32, 1, 32, (0.505, 0.505, 0.01, 0.01))
    work = work_of(part, reference_spans((12, 14)))
    assert len(work.written) == 2
    assert sorted(Counter(window.level for window in work.drawn).items()) == [(12, 24), (14, 16)]
    assert sorted(Counter(window.level for window in work.painted).items()) == [(12, 4), (14, 1)]
    alone = work_of(part, reference_spans((12, 14)), blend=False)
    assert alone.drawn == alone.painted and len(alone.drawn) <= 5


def tiles_of(planned: Plan) -> frozenset[Tile]:
    """All of a plan."""
    return frozenset(tile for level in planned.levels for tile in planned.tiles(level))
