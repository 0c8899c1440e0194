"""A training area small enough for a test: a map of plain blocks, over imagery that is darker."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from c2gm.model.data.mosaic import Area, Extent, Kind, write_area_json

GROUND = Extent(64 * 500, 64 * 300, 64, 64)
"""One tile of level 12, in pixels of level 10."""


def write_blocks(
    dataset: Path,
    blocks: NDArray[np.uint8],
    targets: tuple[int, ...],
    held_out: Extent,
    blank_share: float = 0.0,
    name: str = "blocks",
    kind: Kind = "painted",
) -> None:
    """Write the area `name` with levels 12 to 14 over GROUND into a dataset folder.

    `blocks` (n, n, 3) fill it evenly; the westernmost `blank_share` has no imagery.
    """
    path = dataset / name
    path.mkdir()
    levels = {level: GROUND.finer(level - 10) for level in (12, 13, 14)}
    for level, extent in levels.items():
        times = extent.width // len(blocks)
        drawn = blocks.repeat(times, axis=0).repeat(times, axis=1)
        imagery = np.full((extent.height, extent.width, 4), 255, dtype=np.uint8)
        imagery[..., :3] = drawn // 2
        imagery[:, : round(extent.width * blank_share)] = 0
        cells = np.ones((3, extent.height // 32, extent.width // 32), dtype=np.float32)
        cells[2] = 0  # nothing is doubtful
        for part, array in (("imagery", imagery), ("map", drawn), ("cells", cells)):
            np.save(path / f"{part}_{level}.npy", array)
    write_area_json(Area(path, name, kind, "", "CC0-1.0", levels, targets, (held_out,)), path)
