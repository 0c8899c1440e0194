"""The reference cascade in torch: slow and plain, the oracle that the runtime is compared with.

One window at a time, level by level, onto one canvas per level; a window's reference is cut out of
the canvas of its reference level. No batching, no early stopping, no archive.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from c2gm.model.sampling import sample_latents, to_pictures
from c2gm.model.sgdm import SGDM
from c2gm.runtime.contract import LATENT_FACTOR
from c2gm.runtime.grid import CANVAS_HALO, CANVAS_TILES, Cascade, reference_level
from c2gm.runtime.levels import TILE_SIZE, scale_prompt
from c2gm.runtime.noise import starting_noise
from c2gm.runtime.pixels import Picture, enlarge, to_network

Box = tuple[int, int, int, int]
"""Left, top, width, height in level pixels."""

Latents = NDArray[np.float32]

ReadImagery = Callable[[int, int, int, int, int], Picture]
"""(level, left, top, width, height) -> RGBA picture; the face of the runtime's `Scene.read`."""


@torch.no_grad()
def draw_latents(
    model: SGDM,
    imagery: Picture,
    reference: Picture | None,
    level: int,
    span: int | None,
    left_px: int,
    top_px: int,
    seed: int,
    steps: int,
) -> Latents:
    """Latents (c, H/8, H/8) of one window's map, from a model in evaluation mode.

    `imagery` RGBA (H, H, 4) with H a multiple of 64; `reference` RGBA of the same size, already
    enlarged by 2**span, or None; one that shows nothing counts as none. `left_px` and `top_px` are
    the window's place in level pixels, which decides its starting noise.
    Raises ValueError if a picture's size does not fit, or a reference comes without its span.
    """
    side = imagery.shape[0]
    if side % 64 or imagery.shape != (side, side, 4):
        raise ValueError(f"imagery is {imagery.shape}, expected (H, H, 4), H a multiple of 64")
    if reference is None or not reference[..., 3].any():
        reference, span = np.zeros_like(imagery), None
    elif span is None or reference.shape != imagery.shape:
        raise ValueError(
            f"reference is {reference.shape} with span {span}, expected {imagery.shape} and a span"
        )
    device = model.signal.device
    condition = model.condition(
        torch.from_numpy(to_network(imagery))[None].to(device),
        torch.from_numpy(to_network(reference))[None].to(device),
        torch.tensor([span is not None], dtype=torch.float32, device=device),
    )
    states, pooled = model.encode_prompts([scale_prompt(level, span)])
    left, top, cells = (value // LATENT_FACTOR for value in (left_px, top_px, side))
    channels = model.config.autoencoder.latent_channels
    noise = torch.from_numpy(starting_noise(seed, level, left, top, cells, cells, channels))
    latents = sample_latents(model, condition, states, pooled, noise[None].to(device), steps)
    drawn: Latents = latents[0].float().cpu().numpy()
    return drawn


def generate_cascade(
    model: SGDM,
    imagery: ReadImagery,
    boxes: Mapping[int, Box],
    *,
    cascade: Cascade = "4x",
    side: int = 1,
    halo: int = 0,
    seed: int = 0,
    steps: int = 10,
) -> dict[int, Picture]:
    """The maps of all levels of `boxes`, coarse to fine: level -> RGBA (height, width, 4).

    `boxes`: the pixels to fill, by level, in whole windows of `side` tiles. Every window also sees
    `halo` pixels around itself, over which its latents are blended with its neighbours'. A level's
    reference is the map two levels up where `boxes` has that level, else one up (a "2x" cascade:
    the other way), else there is none; outside that map's box the reference is transparent. Pixels
    without imagery are 0 in all channels.
    Raises ValueError for a box that is not made of whole windows.
    """
    maps: dict[int, Picture] = {}
    step = side * TILE_SIZE
    for level in sorted(boxes):
        left, top, width, height = boxes[level]
        if any(value % step for value in boxes[level]):
            raise ValueError(f"box {boxes[level]} is not made of windows of {step} px")
        found = reference_level(level, boxes, cascade)
        blend = _Blend(model.config.autoencoder.latent_channels, width, height, step, halo)
        valid: dict[tuple[int, int], NDArray[np.bool_]] = {}
        for y in range(0, height, step):
            for x in range(0, width, step):
                window = (left + x - halo, top + y - halo, step + 2 * halo, step + 2 * halo)
                seen = imagery(level, *window)
                here = seen[halo : halo + step, halo : halo + step, 3] > 0
                if not here.any():
                    continue
                valid[x, y] = here
                reference, span = None, None
                if found is not None:
                    coarse, span = found
                    source = _cut(maps[coarse], boxes[coarse], tuple(v >> span for v in window))
                    reference = enlarge(source, span)
                latents = draw_latents(
                    model, seen, reference, level, span, window[0], window[1], seed, steps
                )
                blend.add(x, y, latents)
        canvas = np.zeros((height, width, 4), dtype=np.uint8)
        for windows in _canvases(valid, left, top, step, halo):
            (x0, y0), latents = blend.around(windows)
            picture = decode_latents(model, latents)
            for x, y in windows:
                inside = canvas[y : y + step, x : x + step]
                inside[..., :3] = picture[y - y0 : y - y0 + step, x - x0 : x - x0 + step]
                inside[..., 3] = 255
                inside[~valid[x, y]] = 0
        maps[level] = canvas
    return maps


def _canvases(
    windows: Iterable[tuple[int, int]], left: int, top: int, step: int, halo: int
) -> list[list[tuple[int, int]]]:
    """Windows by their corners, those together that are decoded in one piece."""
    size = max(step, CANVAS_TILES * TILE_SIZE) if halo else step
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for x, y in windows:
        found.setdefault(((left + x) // size, (top + y) // size), []).append((x, y))
    return list(found.values())


class _Blend:
    """A level's latents: the weighted mean of all windows' on one canvas."""

    def __init__(self, channels: int, width: int, height: int, step: int, halo: int) -> None:
        self._step, self._halo = step, halo
        self._margin = max(halo, CANVAS_HALO) if halo else 0
        shape = [(value + 2 * self._margin) // LATENT_FACTOR for value in (height, width)]
        self._sum = np.zeros((channels, *shape), np.float32)  # an area's may be large
        self._weight = np.zeros(shape, np.float32)
        cells = (step + 2 * halo) // LATENT_FACTOR
        place = np.arange(cells) + 0.5
        depth = np.ones(cells)
        if halo:
            overlap = 2 * halo / LATENT_FACTOR
            depth = np.minimum(np.minimum(place, cells - place) / overlap, 1.0)
        self._line = (depth * depth * (3 - 2 * depth)).astype(np.float32)

    def add(self, x: int, y: int, latents: Latents) -> None:
        """A window whose core begins at (x, y) of the level's box, in pixels."""
        here = self._place(x, x, y, y, self._halo)
        weight = np.outer(self._line, self._line)
        self._sum[:, *here] += weight * latents
        self._weight[here] += weight

    def around(self, windows: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], Latents]:
        """What windows are decoded from in one piece, and where that begins, in pixels of the box.

        Where no window reaches, the nearest cell is repeated.
        """
        columns, rows = [x for x, _ in windows], [y for _, y in windows]
        here = self._place(min(columns), max(columns), min(rows), max(rows), self._margin)
        latents, weight = self._sum[:, *here].copy(), self._weight[here]
        reached = [row for row, line in enumerate(weight) if line.any()]
        for row in reached:
            seen = np.flatnonzero(weight[row]).tolist()
            nearest = [min(seen, key=lambda s: abs(s - place)) for place in range(len(weight[row]))]
            latents[:, row] = (latents[:, row] / np.maximum(weight[row], 1e-9))[:, nearest]
        nearest = [min(reached, key=lambda r: abs(r - row)) for row in range(len(weight))]
        corner = min(columns) - self._margin, min(rows) - self._margin
        return corner, latents[:, nearest]

    def _place(
        self, left: int, right: int, top: int, bottom: int, around: int
    ) -> tuple[slice, slice]:
        """The cells of windows whose corners these are, and of so many pixels around them."""

        def cells(first: int, last: int) -> slice:
            start, stop = first - around, last + self._step + around
            return slice(*((value + self._margin) // LATENT_FACTOR for value in (start, stop)))

        return cells(top, bottom), cells(left, right)


@torch.no_grad()
def decode_latents(model: SGDM, latents: Latents) -> Picture:
    """The picture, RGB (H, H, 3), of latents (c, H/8, H/8)."""
    device = model.signal.device
    image = model.autoencoder.decode(torch.from_numpy(latents)[None].to(device))
    picture: Picture = to_pictures(image)[0].cpu().numpy()
    return picture


def _cut(picture: Picture, box: Box, wanted: tuple[int, ...]) -> Picture:
    """The wanted box out of a picture that fills another one; transparent outside."""
    left, top, width, height = wanted
    cut = np.zeros((height, width, 4), dtype=np.uint8)
    x0, y0 = max(left, box[0]), max(top, box[1])
    x1, y1 = min(left + width, box[0] + box[2]), min(top + height, box[1] + box[3])
    if x0 < x1 and y0 < y1:
        part = picture[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]]
        cut[y0 - top : y1 - top, x0 - left : x1 - left] = part
    return cut
