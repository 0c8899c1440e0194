"""What runs beside the model: one thread that reads, one that encodes and writes.

Both have bounded queues, so that memory does not grow when one side is faster than the other.
"""

import queue
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from mercantile import Tile
from numpy.typing import NDArray

from c2gm.runtime.archive import Archive
from c2gm.runtime.cascade import cut_reference, reference_picture, reference_tiles
from c2gm.runtime.grid import Plan, Window
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.noise import starting_noise
from c2gm.runtime.pixels import Picture, to_network
from c2gm.runtime.progress import Stopwatch
from c2gm.runtime.quilt import Painting
from c2gm.runtime.sampler import Sample
from c2gm.runtime.scene import ReferenceMap, Scene
from c2gm.runtime.tile_codec import decode_tile, encode_tile


@dataclass(frozen=True, slots=True)
class Ground:
    """A window and where it has data: `valid` (size, size) bool, maybe a view of one True."""

    window: Window
    valid: NDArray[np.bool_]


Drawn = Ground | Painting
"""What comes out of a sampler: a window's latents or picture, or what is painted of several."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides a window's starting point, beside its place."""

    seed: int
    latent_channels: int
    latent_factor: int
    spans: Mapping[int, int | None]
    """Span of the reference of each level, from the cascade."""
    map_spans: Mapping[int, int]
    """Span at which the base map handed in is read, for levels that start from it."""
    blend: bool
    """Whether windows are painted from latents that were blended with their neighbours'."""


class Finished:
    """Pictures of finished tiles that references still need; others are read from the archive."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._tiles: dict[Tile, Picture] = {}

    def __len__(self) -> int:
        return len(self._tiles)

    def keep(self, tiles: Mapping[Tile, Picture | None]) -> None:
        """Keep tiles, RGBA (256, 256, 4); None: there is no data."""
        self._tiles |= {tile: picture for tile, picture in tiles.items() if picture is not None}

    def drop(self, window: Window) -> None:
        """Forget the tiles of a window."""
        for tile in window.tiles():
            self._tiles.pop(tile, None)

    def under(self, window: Window, span: int | None) -> dict[Tile, Picture]:
        """The finished tiles that a window's reference shows. Raises OutputError."""
        found: dict[Tile, Picture] = {}
        for tile in [] if span is None else reference_tiles(window, span):
            picture = self._tiles.get(tile)
            if picture is None:
                data = self._archive.get_tile(tile)
                if data is None:
                    continue
                picture = self._tiles[tile] = with_alpha(decode_tile(data))
            found[tile] = picture
        return found


class Reader:
    """Reads imagery and prepares samples on a thread; what goes in first comes out first."""

    def __init__(
        self,
        scene: Scene,
        base_map: ReferenceMap | None,
        recipe: Recipe,
        stopwatch: Stopwatch,
        ahead: int,
    ) -> None:
        """`ahead`: how many windows are read before they are asked for."""
        self._scene = scene
        self._base_map = base_map
        self._recipe = recipe
        self._stopwatch = stopwatch
        self._ahead = ahead
        self._pending: deque[Future[tuple[Ground, Sample[Drawn] | None]]] = deque()
        self._thread = ThreadPoolExecutor(1, "c2gm-reader")

    def __len__(self) -> int:
        """Windows that are being read or wait to be taken."""
        return len(self._pending)

    @property
    def has_room(self) -> bool:
        """Whether `submit` may be called."""
        return len(self._pending) < self._ahead

    def submit(self, window: Window, parents: Mapping[Tile, Picture]) -> None:
        """Have a window prepared; `parents` are the finished tiles under its reference."""
        self._pending.append(self._thread.submit(self._prepare, window, parents))

    def next(self) -> tuple[Ground, Sample[Drawn] | None]:
        """Wait for the oldest window: its ground, and its sample unless there is no data in it.

        Raises SceneError, ReferenceMapError.
        """
        return self._pending.popleft().result()

    def close(self) -> None:
        """Stop after the window that is being read."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _prepare(
        self, window: Window, parents: Mapping[Tile, Picture]
    ) -> tuple[Ground, Sample[Drawn] | None]:
        with self._stopwatch.part("scene"):
            imagery = self._scene.read(window.level, *window.pixel_box)
        halo, size = window.halo, window.size
        inner = imagery[halo : size - halo, halo : size - halo]
        if not self._scene.keep_filling and is_blank(inner):
            inner[..., 3] = 0
        valid = imagery[..., 3] > 0
        # Windows wait for their neighbours: what is whole need not take memory meanwhile.
        ground = Ground(window, np.broadcast_to(True, valid.shape) if valid.all() else valid)
        if not inner[..., 3].any():
            return ground, None
        with self._stopwatch.part("reference"):
            span, reference = self._reference(window, parents)
            return ground, Sample(
                key=ground,
                imagery=to_network(imagery),
                reference=None if reference is None else to_network(reference),
                noise=self._noise(window),
                level=window.level,
                span=span,
                decode=not self._recipe.blend,
            )

    def _reference(
        self, window: Window, parents: Mapping[Tile, Picture]
    ) -> tuple[int | None, Picture | None]:
        """Span and picture of the reference; one that shows nothing is none."""
        span = self._recipe.spans[window.level]
        if span is not None:
            picture = reference_picture(window, span, parents)
        elif self._base_map is not None and window.level in self._recipe.map_spans:
            span = self._recipe.map_spans[window.level]
            source = self._base_map.read(window.level - span, *window.parent_box(span))
            picture = cut_reference(window, span, source)
        else:
            return None, None
        return (span, picture) if picture[..., 3].any() else (None, None)

    def _noise(self, window: Window) -> NDArray[np.float32]:
        left, top, width, height = (
            value // self._recipe.latent_factor for value in window.pixel_box
        )
        channels = self._recipe.latent_channels
        return starting_noise(self._recipe.seed, window.level, left, top, width, height, channels)


class Writer:
    """Encodes and commits finished windows on a thread, in the order in which they come."""

    def __init__(self, archive: Archive, stopwatch: Stopwatch, waiting: int) -> None:
        """`waiting`: how many windows may wait; then `put` blocks."""
        self._archive = archive
        self._stopwatch = stopwatch
        self._queue: queue.Queue[tuple[Window, Sequence[tuple[Tile, Picture | None]]] | None] = (
            queue.Queue(waiting)
        )
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="c2gm-writer")
        self._thread.start()

    def put(self, window: Window, tiles: Sequence[tuple[Tile, Picture | None]]) -> None:
        """Hand over a window: its planned tiles as RGBA, None for those without data.

        Raises what went wrong with an earlier window: DiskFullError, OutputError.
        """
        if self._error is not None:
            raise self._error
        self._queue.put((window, tiles))

    def close(self) -> None:
        """Write what waits and end the thread; errors are kept for `raise_error`."""
        self._queue.put(None)
        self._thread.join()

    def raise_error(self) -> None:
        """Raise what went wrong, if anything did."""
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            if self._error is not None:
                continue  # emptied, so that nobody waits for room
            window, tiles = job
            try:
                with self._stopwatch.part("encode"):
                    encoded = [
                        (tile, None if picture is None else encode_tile(picture))
                        for tile, picture in tiles
                    ]
                with self._stopwatch.part("archive"):
                    self._archive.put_window(window, encoded)
            except BaseException as error:  # raised again on the main thread
                self._error = error


def is_blank(imagery: Picture) -> bool:
    """Whether all valid pixels of RGBA imagery are black, or all are white.

    Filling inside a scene (`filling` finds what lies at its edges): there is nothing to draw a map
    of. Other flat colours may be water that somebody has retouched.
    """
    valid = imagery[..., 3] > 0
    colours = imagery[..., :3][valid]
    return bool(colours.size) and bool((colours == 0).all() or (colours == 255).all())


def tiles_with_data(plan: Plan, ground: Ground) -> list[Tile]:
    """A window's planned tiles that hold a valid pixel."""
    corner = ground.window.pixel_box[:2]
    return [t for t in plan.tiles_of(ground.window) if _cut(t, ground.valid, corner).any()]


def cut_tiles(
    tiles: Iterable[Tile],
    ground: Ground,
    picture: Picture | None,
    corner: tuple[int, int] | None = None,
) -> dict[Tile, Picture | None]:
    """Tiles of a window as RGBA (256, 256, 4), invalid pixels all 0; None without data.

    `picture` (h, w, 3) is the generated one, None where the whole window has no data; `corner`: its
    left and top in level pixels, the window's own by default.
    """
    found: dict[Tile, Picture | None] = {}
    own = ground.window.pixel_box[:2]
    for tile in tiles:
        valid = _cut(tile, ground.valid, own)
        if picture is None or not valid.any():
            found[tile] = None
            continue
        cut = with_alpha(_cut(tile, picture, corner or own))
        cut[~valid] = 0
        found[tile] = cut
    return found


def with_alpha(picture: Picture) -> Picture:
    """A copy of an RGB picture with full alpha; an RGBA picture as it is."""
    if picture.shape[2] == 4:
        return picture
    return np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])


def _cut(tile: Tile, values: NDArray[Any], corner: tuple[int, int]) -> NDArray[Any]:
    """A tile's part, (256, 256, ...), of an array that begins at a corner in level pixels."""
    x, y = tile.x * TILE_SIZE - corner[0], tile.y * TILE_SIZE - corner[1]
    return values[y : y + TILE_SIZE, x : x + TILE_SIZE]
