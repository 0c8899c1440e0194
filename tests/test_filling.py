"""Black and white rims that a file does not declare: found, told, and not drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from rasterio.transform import Affine

from c2gm.runtime import survey as survey_module
from c2gm.runtime.filling import reached
from c2gm.runtime.scene import Scene

MERCATOR = Affine(2.4, 0, 1_000_000, 0, -2.4, 6_000_000)
SIDE = 600


def turned(height: int = SIDE, width: int = SIDE, degrees: float = 4.0) -> NDArray[np.bool_]:
    """Where a turned photograph lies in the rectangle around it."""
    y, x = np.mgrid[:height, :width] + 0.5
    x, y, angle = x - width / 2, y - height / 2, np.radians(degrees)
    across, down = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return (abs(across) < 0.45 * width) & (abs(down) < 0.45 * height)


def photograph(seed: int = 0, kind: Any = np.uint8, bands: int = 3) -> NDArray[Any]:
    """Something of every shade but black and white, with a white roof and a black pond inside."""
    pixels = np.random.default_rng(seed).integers(30, 220, (bands, SIDE, SIDE)).astype(kind)
    pixels[:, 200:260, 200:260] = np.iinfo(kind).max
    pixels[:, 300:400, 300:330] = 0
    return pixels


def write(path: Path, pixels: NDArray[Any], mask: NDArray[Any] | None = None, **more: Any) -> Path:
    """A GeoTIFF, with an internal mask if one is given."""
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, **more}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", dtype=pixels.dtype, crs="EPSG:3857", transform=MERCATOR, **profile
        ) as file,
    ):
        file.write(pixels)
        if mask is not None:
            file.write_mask(mask)
    return path


def whole(scene: Scene, level: int) -> NDArray[np.uint8]:
    """All of a scene at a level, RGBA."""
    left, top, right, bottom = (round(value * (256 << level)) for value in scene.boxes[0])
    return scene.read(level, left, top, right - left, bottom - top)


@pytest.mark.parametrize("copy_side", [4096, 200], ids=["fine copy", "coarse copy"])
@pytest.mark.parametrize(
    ("kind", "fill"),
    [("uint8", 255), ("uint8", 0), ("uint16", 0), ("uint16", 65535), ("int16", 0)],
)
def test_a_rim_is_read_as_if_it_were_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, fill: int, copy_side: int
) -> None:
    """Pixel by pixel, at fine and coarse levels, and in what becomes black and white."""
    monkeypatch.setattr(survey_module, "COPY_SIDE", copy_side)
    inside, pixels = turned(), photograph(kind=np.dtype(kind))
    pixels[:, ~inside] = fill
    undeclared = write(tmp_path / "undeclared.tif", pixels)
    declared = write(tmp_path / "declared.tif", pixels, mask=inside)
    with Scene.open(undeclared) as scene, Scene.open(declared) as truth:
        assert not truth.warnings
        (warning,) = scene.warnings
        assert ("white" if fill else "black") in warning and "undeclared.tif" in warning
        assert scene.stretch == truth.stretch
        for level in (13, 15, 16, 17):
            np.testing.assert_array_equal(whole(scene, level), whole(truth, level))
        np.testing.assert_array_equal(scene.footprints[0].mask, truth.footprints[0].mask)


def test_it_may_be_kept(tmp_path: Path) -> None:
    pixels = photograph()
    pixels[:, ~turned()] = 255
    with Scene.open(write(tmp_path / "scene.tif", pixels), keep_filling=True) as scene:
        assert not scene.warnings
        assert (whole(scene, 15)[2:-2, 2:-2, 3] == 255).all()


def test_what_is_flat_inside_or_declared_otherwise_stays(tmp_path: Path) -> None:
    """A roof, a pond; a rim with an alpha band that calls it data; a little black at the edge."""
    roof = write(tmp_path / "roof.tif", photograph())
    pixels = photograph(bands=4)
    pixels[:3, ~turned()] = 255
    pixels[3] = 255
    alpha = write(tmp_path / "alpha.tif", pixels, photometric="RGB", alpha="yes")
    pixels = photograph()
    pixels[:, :12, 100:120] = 0
    shadow = write(tmp_path / "shadow.tif", pixels)
    for path in (roof, alpha, shadow):
        with Scene.open(path) as scene:
            assert not scene.warnings
            assert (whole(scene, 15)[2:-2, 2:-2, 3] == 255).all()


def test_a_rim_goes_on_behind_what_is_declared(tmp_path: Path) -> None:
    """As SWISSIMAGE's: partly in the file's mask, partly not."""
    inside, pixels = turned(), photograph()
    pixels[:, ~inside] = 255
    mask = np.ones((SIDE, SIDE), np.bool_)
    mask[:, -80:] &= inside[:, -80:]
    with (
        Scene.open(write(tmp_path / "partly.tif", pixels, mask=mask)) as scene,
        Scene.open(write(tmp_path / "declared.tif", pixels, mask=inside)) as truth,
    ):
        np.testing.assert_array_equal(whole(scene, 16), whole(truth, 16))


def test_a_compressed_rim_leaves_no_fringe(tmp_path: Path) -> None:
    """JPEG blurs the border: next to nothing bright may be left there, and little else be lost."""
    inside = turned()
    y, x = np.mgrid[:SIDE, :SIDE]
    smooth = (90 + 40 * np.sin(x / 9) * np.cos(y / 7)).astype(np.uint8)
    pixels = np.where(inside, smooth, 255)[None].repeat(3, axis=0).astype(np.uint8)
    path = write(tmp_path / "jpeg.tif", pixels, compress="jpeg", photometric="ycbcr")
    with Scene.open(path) as scene:
        picture = whole(scene, 16)
    valid = picture[..., 3] > 0
    assert abs(valid.mean() - inside.mean()) < 0.01
    assert (picture[..., :3][valid].min(axis=1) > 225).mean() < 1e-3


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)), st.randoms())
def test_reached_is_what_steps_reach(open_cells: NDArray[np.bool_], random: Any) -> None:
    height, width = open_cells.shape
    seeds = np.zeros_like(open_cells)
    seeds[random.randrange(height), random.randrange(width)] = True
    expected = seeds & open_cells
    for _ in range(open_cells.size):
        padded = np.pad(expected, 1)
        beside = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
        expected |= beside & open_cells
    np.testing.assert_array_equal(reached(open_cells, seeds), expected)
