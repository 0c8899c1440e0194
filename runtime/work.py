"""What a run still has to draw, and what of it to paint (pure).

A window's map depends on what lies around it: on the windows that its canvas shows, on the finished
maps that their references show, on what those were blended with, and so on up the cascade. A run
over a part of a scene, or one that goes on, draws all of that, and writes only what it was asked
for. So every tile is the one that a run over the whole scene makes.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from c2gm.runtime.grid import Plan, Window


@dataclass(frozen=True, slots=True)
class Work:
    """The windows of a run, each in as many of these sets as apply: written <= painted <= drawn."""

    written: frozenset[Window]
    """Planned, and not in the output yet."""
    painted: frozenset[Window]
    """Those, and the ones whose map a reference shows, and that the output does not hold."""
    drawn: frozenset[Window]
    """Those, and the others that their canvases show."""
    spans: Mapping[int, int | None]
    """Span of each level's reference, None where it has none."""

    def parents(self, window: Window) -> list[Window]:
        """The windows that a window's reference shows, row by row; none at a first level.

        Some may hold no data, or be in the output already.
        """
        span = self.spans[window.level]
        return [] if span is None else window.parent_windows(span)


def work_of(
    plan: Plan,
    spans: Mapping[int, int | None],
    *,
    blend: bool = True,
    done: Collection[Window] = (),
) -> Work:
    """The work of a run over `plan`, finest level first: what is finer asks for what is coarser.

    `blend`: windows with a halo are blended with their neighbours; `done`: windows whose planned
    tiles are in the output.
    """
    written: set[Window] = set()
    painted: set[Window] = set()
    drawn: set[Window] = set()
    asked: dict[int, set[Window]] = {level: set() for level in plan.levels}
    finished = set(done)
    # Of a window on the rim of an area, the output lacks the tiles outside; references show them.
    whole = {w for w in finished if len(plan.tiles_of(w)) == len(plan.data_tiles(w))}
    for level in reversed(plan.levels):
        missing = {window for window in plan.windows(level) if window not in finished}
        paint = missing | asked[level]
        alone = not blend or not plan.halo
        # Nobody is left to be blended with where the whole level is painted.
        alone = alone or (plan.beyond is None and len(paint) == plan.window_count(level))
        draw = paint if alone else _blended(plan, paint)
        written |= missing
        painted |= paint
        drawn |= draw
        if (span := spans[level]) is not None:
            parents = {parent for window in draw for parent in window.parent_windows(span)}
            asked[level - span] |= {p for p in parents - whole if plan.data_tiles(p)}
    return Work(frozenset(written), frozenset(painted), frozenset(drawn), dict(spans))


def _blended(plan: Plan, windows: Collection[Window]) -> set[Window]:
    """All that their canvases show: where there is data, and nowhere else."""
    canvases = {window.canvas for window in windows}
    around = {near for c in canvases for near in c.overlapping(plan.side, plan.halo)}
    around.difference_update(windows)
    return {near for near in around if plan.data_tiles(near)}.union(windows)
