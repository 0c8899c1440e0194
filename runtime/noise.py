"""Starting noise: a function of (seed, level, position) and of nothing else.

The latent grid of a level is divided into blocks; every block draws its own normal numbers from a
Philox generator keyed on (seed, level, block). A window reads its part of the blocks, so the same
piece of ground starts from the same noise whichever window, batch or shard it is generated in.
"""

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
"""Side of a noise block in latent cells (one 256 px tile)."""


def _block(seed: int, level: int, row: int, column: int, channels: int) -> NDArray[np.float32]:
    key = np.random.SeedSequence(
        entropy=seed, spawn_key=(level, row & 0xFFFFFFFF, column & 0xFFFFFFFF)
    )
    generator = np.random.Generator(np.random.Philox(key))
    return generator.standard_normal((channels, BLOCK, BLOCK), dtype=np.float32)


def starting_noise(
    seed: int, level: int, left: int, top: int, width: int, height: int, channels: int
) -> NDArray[np.float32]:
    """Standard normal latents of a window, shape (channels, height, width), float32.

    `left`, `top`, `width`, `height` count latent cells on the level's grid (8 px each); they need
    not be aligned to blocks and may be negative (halo over the edge of the world).
    Raises ValueError for a negative seed or an empty window.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected 0 or more")
    if width < 1 or height < 1:
        raise ValueError(f"window is {width} x {height} latent cells, expected at least 1 x 1")
    latents = np.empty((channels, height, width), dtype=np.float32)
    for row in range(top // BLOCK, (top + height - 1) // BLOCK + 1):
        for column in range(left // BLOCK, (left + width - 1) // BLOCK + 1):
            block = _block(seed, level, row, column, channels)
            y0, y1 = max(top, row * BLOCK), min(top + height, (row + 1) * BLOCK)
            x0, x1 = max(left, column * BLOCK), min(left + width, (column + 1) * BLOCK)
            latents[:, y0 - top : y1 - top, x0 - left : x1 - left] = block[
                :, y0 - row * BLOCK : y1 - row * BLOCK, x0 - column * BLOCK : x1 - column * BLOCK
            ]
    return latents
