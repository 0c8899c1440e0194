"""Periodic textures on the ground, sampled at any scale: the grain of procedural imagery.

A texture is a square array of cells of known size that repeats; it is read at any pixel size from a
chain of averaged copies, so that detail finer than a pixel fades away as it does in a sensor. Every
reading is a function of the position on the ground alone: windows that overlap agree.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Float = NDArray[np.float32]


def hash_unit(*keys: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """Hash integer keys (broadcast together) to floats in [0, 1): the world's dice."""
    state: NDArray[np.uint64] = np.asarray(0x9E3779B97F4A7C15, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            word = np.asarray(key, dtype=np.int64).astype(np.uint64)
            state = (state ^ word) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(32))
    return np.asarray((state >> np.uint64(11)).astype(np.float64) / float(1 << 53))


class Texture:
    """A repeating square of values; `cell` is the side of one of its cells in metres."""

    def __init__(self, values: Float, cell: float) -> None:
        self._copies = [np.ascontiguousarray(values, dtype=np.float32)]
        self._cell = cell
        while self._copies[-1].shape[0] > 8:
            fine = self._copies[-1]
            self._copies.append(
                0.25 * (fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2])
            )

    def sample(self, x: float, y: float, pixel: float, width: int, height: int) -> Float:
        """Values (height, width) of a window whose north-west corner is (x east, y south).

        Position and `pixel` (side of an output pixel) are in metres.
        """
        depth = 0
        cell = self._cell
        while depth + 1 < len(self._copies) and 2 * cell <= pixel * 1.001:
            depth, cell = depth + 1, 2 * cell
        values = self._copies[depth]
        left, top = x / cell, y / cell
        across, down = width * pixel / cell, height * pixel / cell
        first_x, first_y = int(np.floor(left)) - 4, int(np.floor(top)) - 4
        columns = np.arange(first_x, int(np.ceil(left + across)) + 4) % values.shape[0]
        rows = np.arange(first_y, int(np.ceil(top + down)) + 4) % values.shape[0]
        part = np.ascontiguousarray(values[rows][:, columns])
        box = (left - first_x, top - first_y, left - first_x + across, top - first_y + down)
        picture = Image.fromarray(part).resize((width, height), Image.Resampling.BICUBIC, box=box)
        return np.asarray(picture, dtype=np.float32)


def _standardised(values: NDArray[np.floating]) -> Float:
    return np.asarray((values - values.mean()) / values.std(), dtype=np.float32)


@lru_cache(maxsize=64)
def value_noise(seed: int, wavelength: float) -> Texture:
    """White noise of unit variance on a lattice `wavelength` metres apart (256 nodes a period)."""
    values = np.random.default_rng(seed).standard_normal((256, 256))
    return Texture(_standardised(values), wavelength)


@lru_cache(maxsize=32)
def fractal(seed: int, cell: float, slope: float = 1.0, size: int = 1024) -> Texture:
    """Noise with amplitude falling as frequency ** -slope, of unit variance, `size` cells wide."""
    white = np.fft.rfft2(np.random.default_rng(seed).standard_normal((size, size)))
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    frequency = np.hypot(fx, fy)
    # The longest waves are cut off, or a single one would rule the whole period.
    shaped = white * np.maximum(frequency, 3.0 / size) ** -slope
    shaped[0, 0] = 0.0
    return Texture(_standardised(np.fft.irfft2(shaped, s=(size, size))), cell)


@lru_cache(maxsize=32)
def relief(seed: int, cell: float, azimuth: float) -> Texture:
    """Brightness of rolling ground lit from `azimuth` degrees (clockwise from north)."""
    height = fractal(seed, cell, 1.9)._copies[0]
    east = np.roll(height, -1, 1) - np.roll(height, 1, 1)
    south = np.roll(height, -1, 0) - np.roll(height, 1, 0)
    angle = np.radians(azimuth)
    slope = -(east * np.sin(angle) - south * np.cos(angle))
    return Texture(np.clip(_standardised(slope), -2.5, 2.5), cell)


@lru_cache(maxsize=32)
def canopy(seed: int, spacing: float, azimuth: float) -> tuple[Texture, Texture]:
    """Crowns about `spacing` metres apart seen from above: (light and shade, tone of each tree)."""
    size, cells = 1024, 12
    cell = spacing / cells
    count = size // cells
    pitch = size / count
    rng = np.random.default_rng(seed)
    height = np.zeros((size, size), np.float32)
    tone = np.zeros((size, size), np.float32)
    reach = int(cells * 1.1)
    span = np.arange(-reach, reach + 1)
    square = (span[:, None] ** 2 + span[None, :] ** 2).astype(np.float32)
    for row in range(count):
        for column in range(count):
            jitter = rng.uniform(-0.45, 0.45, 2)
            radius = cells * rng.uniform(0.45, 0.95)
            y, x = (np.array([row, column]) + 0.5 + jitter) * pitch
            crown = np.sqrt(np.maximum(1.0 - square / radius**2, 0.0)) * radius
            crown *= rng.uniform(0.8, 1.3)
            at = np.ix_((int(y) + span) % size, (int(x) + span) % size)
            higher = crown > height[at]
            height[at] = np.where(higher, crown, height[at])
            tone[at] = np.where(higher, rng.standard_normal(), tone[at])
    grain = fractal(seed + 1, cell, 0.6)._copies[0]
    height += grain * cells * 0.06 * (height > 0)
    east = np.roll(height, -1, 1) - np.roll(height, 1, 1)
    south = np.roll(height, -1, 0) - np.roll(height, 1, 0)
    angle = np.radians(azimuth)
    slope = -(east * np.sin(angle) - south * np.cos(angle))
    light = np.tanh(0.8 * slope) + 1.1 * np.minimum(height / (0.6 * cells), 1.0)
    return Texture(_standardised(light), cell), Texture(_standardised(tone), cell)
