"""Land divided into fields: a world-keyed patchwork that covers all ground without a seam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from c2gm.model.synthetic.texture import hash_unit

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Parcels:
    """Fields that touch a window: corners (n, 4, 2) in ground metres (east, south), dice (n, 4)."""

    corners: Float
    dice: Float


def _node(seed: int, column: NDArray[np.int64], row: NDArray[np.int64], disorder: float) -> Float:
    """Corner of the coarse mesh at integer (column, row), in units of the mesh's width."""
    return np.stack(
        [
            column + disorder * (2 * hash_unit(seed, 1, column, row) - 1),
            row + disorder * (2 * hash_unit(seed, 2, column, row) - 1),
        ],
        axis=-1,
    )


def _cuts(keys: tuple[NDArray[np.int64] | int, ...], count: int, most: int) -> Float:
    """Irregular positions in [0, 1] that cut `count` shares out of a side; padded with ones."""
    shares = np.stack([0.35 + hash_unit(*keys, 40 + i) for i in range(count)], axis=-1)
    positions = np.cumsum(shares, axis=-1) / shares.sum(-1, keepdims=True)
    return np.concatenate([np.zeros_like(positions[..., :1]), positions], axis=-1)[..., : most + 1]


def parcels_in(
    seed: int, size: float, disorder: float, bounds: tuple[float, float, float, float]
) -> Parcels:
    """All parcels of the patchwork that touch `bounds` (west, north, east, south in metres).

    `size` is the side of a block of parcels in metres; `disorder` 0 gives a square survey grid,
    0.35 an old European one.
    """
    turn = (hash_unit(seed, 3) * 0.5 * np.pi) if disorder > 0.1 else np.asarray(0.0)
    forth = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    west, north, east, south = bounds
    box = np.array([[west, north], [east, north], [east, south], [west, south]]) @ forth / size
    low, high = np.floor(box.min(0)).astype(int) - 1, np.ceil(box.max(0)).astype(int) + 1
    column, row = (
        a.ravel().astype(np.int64)
        for a in np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
    )
    quad = np.stack(
        [_node(seed, column + i, row + j, disorder) for j in (0, 1) for i in (0, 1)], axis=1
    )  # (n, [00, 10, 01, 11], 2)
    corners: list[Float] = []
    dice: list[Float] = []
    across = 1 + (hash_unit(seed, 4, column, row) * 3).astype(np.int64)
    down = 1 + (hash_unit(seed, 5, column, row) ** 1.3 * 8).astype(np.int64)
    for n_across in np.unique(across):
        for n_down in np.unique(down):
            at = np.flatnonzero((across == n_across) & (down == n_down))
            if at.size == 0:
                continue
            key = (seed, column[at], row[at])
            u = _cuts((*key, 6), int(n_across), int(n_across))
            v = _cuts((*key, 7), int(n_down), int(n_down))
            for i in range(int(n_across)):
                for j in range(int(n_down)):
                    corners.append(_bilinear(quad[at], u[:, i], u[:, i + 1], v[:, j], v[:, j + 1]))
                    dice.append(
                        np.stack([hash_unit(*key, 100 + 16 * i + j, k) for k in range(4)], axis=-1)
                    )
    points = np.concatenate(corners) * size @ forth.T
    rolls = np.concatenate(dice)
    inside = (
        (points[..., 0].max(1) > west)
        & (points[..., 0].min(1) < east)
        & (points[..., 1].max(1) > north)
        & (points[..., 1].min(1) < south)
    )
    return Parcels(points[inside], rolls[inside])


def _bilinear(quad: Float, u0: Float, u1: Float, v0: Float, v1: Float) -> Float:
    """The parcel between shares u0..u1 and v0..v1 of each quad: corners (n, 4, 2) in ring order."""
    ring = []
    for u, v in ((u0, v0), (u1, v0), (u1, v1), (u0, v1)):
        u, v = u[:, None], v[:, None]
        top = quad[:, 0] * (1 - u) + quad[:, 1] * u
        bottom = quad[:, 2] * (1 - u) + quad[:, 3] * u
        ring.append(top * (1 - v) + bottom * v)
    return np.stack(ring, axis=1)
