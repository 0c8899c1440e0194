"""The torch cascade, and the lean runtime beside it on a cascade of three levels."""

import io
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny import tiny_model

from c2gm.model.pipeline import Box, decode_latents, draw_latents, generate_cascade
from c2gm.model.sgdm import SGDM
from c2gm.runtime.infer import run
from c2gm.runtime.job import InferOptions
from c2gm.runtime.pixels import Picture, enlarge
from c2gm.runtime.progress import QuietReport
from c2gm.runtime.scene import Scene

TOLERANCE = 2
"""Largest difference of a pixel, of 255, between the runtime and the torch pipeline, three levels
down the cascade (float32 on both sides; what differs is rounding, also of the references)."""

SEED, STEPS = 5, 3


@pytest.fixture(scope="module")
def model() -> SGDM:
    return tiny_model()


def ground(level: int, left: int, top: int, width: int, height: int) -> Picture:
    """Imagery that knows where it is; no data west of the level pixel 300."""
    y, x = np.mgrid[top : top + height, left : left + width]
    picture = np.stack([x * 3 % 256, y * 5 % 256, (x + y + level) % 256, np.full_like(x, 255)], -1)
    picture[x < 300] = 0
    return picture.astype(np.uint8)


def test_a_window_depends_on_its_inputs_and_place(model: SGDM) -> None:
    """Same inputs, same picture; seed, place, prompt and reference each change it."""
    imagery = ground(12, 512, 0, 64, 64)
    reference = imagery[::-1].copy()

    def window(
        reference: Picture | None,
        level: int = 12,
        span: int | None = 2,
        left: int = 512,
        seed: int = 0,
    ) -> Picture:
        return decode_latents(
            model, draw_latents(model, imagery, reference, level, span, left, 0, seed, STEPS)
        )

    base = window(reference)
    assert base.shape == (64, 64, 3) and base.dtype == np.uint8
    assert np.array_equal(base, window(reference))
    for other in (
        window(reference, seed=1),
        window(reference, left=576),
        window(reference, level=13),
        window(reference, span=1),
        window(None, span=None),
    ):
        assert not np.array_equal(base, other)
    # A reference that shows nothing is none, in the prompt too.
    assert np.array_equal(window(np.zeros_like(reference)), window(None, span=None))


def test_cascade_takes_the_reference_of_the_right_level(model: SGDM) -> None:
    """4X from two levels up, cut by hand; transparent where there is no imagery."""
    boxes: dict[int, Box] = {
        10: (256, 0, 256, 256),
        11: (512, 0, 256, 256),
        12: (1024, 0, 256, 256),
    }
    maps = generate_cascade(model, ground, boxes, seed=SEED, steps=STEPS)
    assert (maps[10][:, :44] == 0).all() and (maps[10][:, 44:, 3] == 255).all()
    imagery = ground(12, 1024, 0, 256, 256)
    four = enlarge(maps[10][:64, :64], 2)
    expected = decode_latents(
        model, draw_latents(model, imagery, four, 12, 2, 1024, 0, SEED, STEPS)
    )
    assert np.array_equal(maps[12][..., :3], expected)
    two = enlarge(maps[11][:128, :128], 1)
    drawn = draw_latents(model, imagery, two, 12, 1, 1024, 0, SEED, STEPS)
    expected = decode_latents(model, drawn)
    by_two = generate_cascade(model, ground, boxes, cascade="2x", seed=SEED, steps=STEPS)
    assert np.array_equal(by_two[12][..., :3], expected)


@pytest.mark.parametrize("halo", [0, 32])
def test_the_runtime_makes_the_same_map(
    model: SGDM, tiny_bundle: Path, small_scene: Path, tmp_path: Path, halo: int
) -> None:
    """c2gm-infer on exported graphs = this pipeline on torch, with 2X and 4X references."""
    options = InferOptions(
        imagery=small_scene,
        levels="13-15",
        output=tmp_path / "map.mbtiles",
        model=tiny_bundle,
        steps=STEPS,
        seed=SEED,
        halo=halo,
        guide_from=13,
    )
    tiles = read_tiles(run(options, QuietReport()).output)
    boxes = {level: box_around([t for t in tiles if t[0] == level]) for level in (13, 14, 15)}
    with Scene.open(small_scene) as scene:
        maps, other = (
            generate_cascade(model, scene.read, boxes, halo=halo, seed=seed, steps=STEPS)
            for seed in (SEED, SEED + 1)
        )
    worst, worst_other = 0, 0
    for (level, x, y), tile in tiles.items():
        left, top, _, _ = boxes[level]
        x, y = 256 * x - left, 256 * y - top
        here = slice(y, y + 256), slice(x, x + 256)
        worst = max(worst, np.abs(tile - maps[level][here]).max())
        worst_other = max(worst_other, np.abs(tile - other[level][here]).max())
    assert worst <= TOLERANCE
    assert worst_other > 4 * TOLERANCE  # else this test could not tell maps apart


def read_tiles(path: Path) -> dict[tuple[int, int, int], NDArray[np.int16]]:
    """RGBA pictures by (level, x, y), y counted from the north."""
    with sqlite3.connect(path) as file:
        rows = file.execute("SELECT zoom_level, tile_column, tile_row, tile_data FROM tiles")
        return {
            (z, x, 2**z - 1 - y): np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"), np.int16)
            for z, x, y, data in rows
        }


def box_around(tiles: list[tuple[int, int, int]]) -> Box:
    xs, ys = [x for _, x, _ in tiles], [y for _, _, y in tiles]
    width, height = max(xs) - min(xs) + 1, max(ys) - min(ys) + 1
    return 256 * min(xs), 256 * min(ys), 256 * width, 256 * height
