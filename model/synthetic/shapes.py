"""Lines, noise and cut-up areas that the procedural world is drawn with; metres on the ground."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import LineString
from shapely.geometry.base import BaseGeometry

Float = NDArray[np.float64]


def wander(
    rng: np.random.Generator, start: Float, end: Float, rough: float, step: float
) -> LineString:
    """A line from start to end that strays by about `rough` of its length at every scale."""
    points = np.stack([start, end])
    while np.hypot(*(points[1] - points[0])) > step:
        gap = np.diff(points, axis=0)
        length = np.hypot(gap[:, 0], gap[:, 1])
        normal = np.stack([-gap[:, 1], gap[:, 0]], 1)
        middle = (points[1:] + points[:-1]) / 2 + normal * rng.normal(0, rough, (len(gap), 1))
        joined = np.empty((2 * len(points) - 1, 2))
        joined[::2], joined[1::2] = points, middle
        points = joined
        if length.max() < step:
            break
    return LineString(rounded(points, closed=False))


def rounded(points: Float, closed: bool, times: int = 2) -> Float:
    """Corners cut (Chaikin) `times` times; ends stay where they are unless closed."""
    for _ in range(times):
        ahead = np.roll(points, -1, axis=0) if closed else points[1:]
        here = points if closed else points[:-1]
        cut = np.stack([0.75 * here + 0.25 * ahead, 0.25 * here + 0.75 * ahead], 1).reshape(-1, 2)
        points = cut if closed else np.concatenate([points[:1], cut, points[-1:]])
    return points


def noise_grid(rng: np.random.Generator, shape: tuple[int, int], cell: float, wave: float) -> Float:
    """Smooth noise of unit variance whose longest waves are about `wave` metres."""
    white = np.fft.rfft2(rng.standard_normal(shape))
    fy, fx = np.fft.fftfreq(shape[0], cell)[:, None], np.fft.rfftfreq(shape[1], cell)[None]
    power = (1.0 + (np.hypot(fx, fy) * wave) ** 2) ** -0.95
    field = np.fft.irfft2(white * power, s=shape)
    return np.asarray((field - field.mean()) / field.std())


def tiled(area: BaseGeometry, step: float = 1500.0) -> list[BaseGeometry]:
    """An area cut into pieces of at most `step` metres, so that work on a part stays local."""
    west, south, east, north = area.bounds
    if max(east - west, north - south) < 2 * step:
        return [area]
    pieces = []
    for x in np.arange(west, east, step):
        column = shapely.clip_by_rect(area, x, south, x + step, north)
        for y in np.arange(south, north, step):
            piece = shapely.clip_by_rect(column, x, y, x + step, y + step)
            if not piece.is_empty:
                pieces.append(shapely.make_valid(piece))
    return pieces


def normal_of(vector: Float) -> Float:
    """The unit vector to the left of one."""
    return np.asarray(np.array([-vector[1], vector[0]]) / np.hypot(*vector))
