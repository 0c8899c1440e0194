"""Scenes of every kind, written as real files and compared with what was painted on the ground."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from c2gm.runtime import survey as survey_module
from c2gm.runtime.errors import LevelError
from c2gm.runtime.footprint import world_from_degrees
from c2gm.runtime.grid import plan
from c2gm.runtime.scene import ReferenceMap, Scene

SIDE = 192
UTM = Affine(2.4, 0, 500_000, 0, -2.4, 5_250_000)
KILOMETRE = 1 / 40_075.0


def ground(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.uint8]:
    """What lies at world units: waves of about a kilometre, (3, ...)."""
    red, green = np.sin(x / KILOMETRE * 7), np.sin(y / KILOMETRE * 7)
    return (127.5 + 100 * np.stack([red, green, red * green])).astype(np.uint8)


def painted(crs: str, transform: Affine, width: int = SIDE, height: int = SIDE) -> NDArray[Any]:
    """The ground as seen by a raster, (3, height, width)."""
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    t = transform
    x, y = (t.a * column + t.b * row + t.c).ravel(), (t.d * column + t.e * row + t.f).ravel()
    degrees = zip(*transform_points(crs, "OGC:CRS84", x, y), strict=True)
    world = np.array([world_from_degrees(*point) for point in degrees])
    return ground(world[:, 0] % 1, world[:, 1]).reshape(3, height, width)


def write(
    path: Path, pixels: NDArray[Any], crs: str | None, transform: Affine, **more: Any
) -> Path:
    """Write a raster; `colorinterp`, `mask` and `colormap` are set, other options go to GDAL."""
    interpretation, mask = more.pop("colorinterp", None), more.pop("mask", None)
    colormap = more.pop("colormap", None)
    count, height, width = pixels.shape
    gcps = more.pop("gcps", None)
    options: dict[str, Any] = {"driver": "GTiff", "dtype": pixels.dtype, "crs": crs, **more}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", count=count, height=height, width=width, transform=transform, **options
        ) as file,
    ):
        if gcps:
            file.gcps = gcps, crs
        if interpretation:
            file.colorinterp = interpretation
        if colormap:
            file.write_colormap(1, colormap)
        file.write(pixels)
        if mask is not None:
            file.write_mask(mask)
    return path


def around(scene: Scene, level: int, size: int = 64) -> tuple[int, int, int, int]:
    """A box of level pixels in the middle of a scene's first footprint."""
    part = scene.footprints[0]
    scale = 256 << level
    x, y = (part.left + part.right) / 2 * scale, (part.top + part.bottom) / 2 * scale
    return round(x) - size // 2, round(y) - size // 2, size, size


def seen(level: int, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
    """The ground at the centres of level pixels, (height, width, 3)."""
    scale = 256 << level
    x, y = np.meshgrid(left + np.arange(width) + 0.5, top + np.arange(height) + 0.5)
    return np.moveaxis(ground(x / scale, y / scale), 0, -1)


def difference(scene: Scene | ReferenceMap, level: int, box: tuple[int, int, int, int]) -> float:
    """Mean absolute difference between what is read and what lies there; all must be valid."""
    picture = scene.read(level, *box)
    assert (picture[..., 3] == 255).all()
    return float(np.abs(picture[..., :3].astype(int) - seen(level, *box)).mean())


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32632", UTM),
        ("EPSG:4326", Affine(3e-5, 0, 9, 0, -2e-5, 47)),
        ("EPSG:3857", Affine(3, 0, 1e6, 0, -3, 6e6)),
        ("EPSG:32632", Affine(2.4, 0, 500_000, 0, 2.4, 5_250_000)),  # south-up
        ("EPSG:32632", Affine(2, -1.2, 500_000, -1.2, -2, 5_250_000)),
        ("EPSG:32760", Affine(2.4, 0, 820_000, 0, -2.4, 8_170_000)),  # across 180 degrees
        ("EPSG:4326", Affine(3e-5, 0, 179.997, 0, -2e-5, -17)),  # goes on beyond 180
    ],
    ids=["utm", "degrees", "mercator", "south-up", "rotated", "utm-180", "degrees-180"],
)
def test_ground_is_where_it_belongs(tmp_path: Path, crs: str, transform: Affine) -> None:
    path = write(tmp_path / "scene.tif", painted(crs, transform), crs, transform)
    with Scene.open(path) as scene:
        assert scene.native_level in (15, 16)
        for part in range(len(scene.footprints)):
            scene.footprints = scene.footprints[part:] + scene.footprints[:part]
            for level in (14, 15, 16, 17):
                size = 16 if level < 16 else 32
                assert difference(scene, level, around(scene, level, size)) < 3
        across = crs == "EPSG:32760" or transform.c > 179 and crs == "EPSG:4326"
        assert len(scene.footprints) == (2 if across else 1)
        west, north = (value - 5 for value in around(scene, 16, 2000)[:2])
        assert not scene.read(16, west, north, 5, 5).any(), "nothing outside the data"


def test_a_pixel_does_not_depend_on_the_window(tmp_path: Path) -> None:
    path = write(tmp_path / "scene.tif", painted("EPSG:32632", UTM), "EPSG:32632", UTM)
    with Scene.open(path) as scene:
        left, top, _, _ = around(scene, 17, 200)
        whole = scene.read(17, left, top, 200, 200)
    with Scene.open(path) as again:
        part = again.read(17, left + 13, top + 57, 100, 31)
    np.testing.assert_array_equal(part, whole[57:88, 13:113])


def test_coarse_levels_from_the_small_copy_look_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[: SIDE // 2] = 0
    path = write(tmp_path / "s.tif", painted("EPSG:32632", UTM), "EPSG:32632", UTM, mask=mask)
    with Scene.open(path) as scene:
        box = around(scene, 13, 60)
        direct = scene.read(13, *box)
    monkeypatch.setattr(survey_module, "COPY_SIDE", 50)
    with Scene.open(path) as scene:
        copied = scene.read(13, *box)
    assert direct[..., 3].any() and not direct[..., 3].all()
    assert (copied[..., 3] != direct[..., 3]).mean() < 0.03
    both = (copied[..., 3] > 0) & (direct[..., 3] > 0)
    assert np.abs(copied.astype(int) - direct)[both].mean() < 8


RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
HALF = np.arange(SIDE) >= SIDE // 2  # the east half has data


def _variants() -> dict[str, Callable[[Path], Path]]:
    colours = painted("EPSG:32632", UTM)
    east = np.broadcast_to(HALF, (SIDE, SIDE))
    alpha = np.where(east, 255, 0).astype(np.uint8)
    gone = np.where(east, colours, 0).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 255, (1, SIDE, SIDE), dtype=np.uint8)

    def kind(pixels: NDArray[Any], **more: Any) -> Callable[[Path], Path]:
        return lambda path: write(path, pixels, "EPSG:32632", UTM, **more)

    rgba = np.concatenate([gone, alpha[None]])
    return {
        "nodata": kind(gone, nodata=0),
        "mask": kind(colours, mask=alpha),
        "alpha": kind(rgba, colorinterp=(*RGB, ColorInterp.alpha)),
        "bgr-nir-alpha": kind(
            np.concatenate([rgba[2::-1], noise, rgba[3:]]),
            colorinterp=(*RGB[::-1], ColorInterp.undefined, ColorInterp.alpha),
        ),
        "nir-nodata": kind(
            np.concatenate([gone, np.where(east, noise, 0)]),
            colorinterp=(*RGB, ColorInterp.undefined),
            nodata=0,
        ),
        "six-bands-mask": kind(np.concatenate([colours, noise, noise, noise]), mask=alpha),
        "float-nan": kind(np.where(east, colours / np.float32(300), np.float32(np.nan))),
        "uint16-alpha": kind(
            rgba.astype(np.uint16) * 13, colorinterp=(*RGB, ColorInterp.alpha), photometric="rgb"
        ),
        "int16-nodata": kind(np.where(east, colours * np.int16(30), np.int16(-999)), nodata=-999),
    }


@pytest.mark.parametrize("name", list(_variants()))
def test_pixels_of_every_kind(tmp_path: Path, name: str) -> None:
    with Scene.open(_variants()[name](tmp_path / "scene.tif")) as scene:
        level = 16
        box = around(scene, level, 96)
        if scene.footprints[0].mask[:, 0].any():
            pytest.fail("the west half holds no data")
        picture = scene.read(level, *box)
        valid = picture[..., 3] > 0
        assert 0.3 < valid.mean() < 0.7 and valid[:, -10:].all() and not valid[:, :10].any()
        assert not picture[~valid].any()
        expected = seen(level, *box).astype(int)
        if scene.stretch is not None:
            unit = {"float-nan": 1 / 300, "uint16-alpha": 13, "int16-nodata": 30}[name]
            expected = scene.stretch.apply(expected.transpose(2, 0, 1) * unit).transpose(1, 2, 0)
            assert np.ptp(picture[valid], axis=0)[:3].max() > 100
        inner = valid & np.roll(valid, 3, axis=1)
        assert np.abs(picture[..., :3] - expected.astype(int))[inner].mean() < 4


def test_a_picture_marked_as_alpha_is_not_taken_for_one(tmp_path: Path) -> None:
    """GDAL calls a fourth 8-bit band alpha by default, near infrared as well."""
    colours = painted("EPSG:32632", UTM)
    infrared = np.random.default_rng(0).integers(0, 200, (1, SIDE, SIDE), dtype=np.uint8)
    kind = (*RGB, ColorInterp.alpha)
    path = write(
        tmp_path / "nir.tif",
        np.concatenate([colours, infrared]),
        "EPSG:32632",
        UTM,
        colorinterp=kind,
    )
    with Scene.open(path) as scene:
        (warning,) = scene.warnings
        assert "band 4" in warning and "ignored" in warning
        box = around(scene, 16, 96)
        picture = scene.read(16, *box)
        assert (picture[..., 3] == 255).all()
        assert np.abs(picture[..., :3] - seen(16, *box).astype(int)).mean() < 4


def test_grey_and_palette(tmp_path: Path) -> None:
    grey = painted("EPSG:32632", UTM)[:1]
    path = write(tmp_path / "grey.tif", grey, "EPSG:32632", UTM)
    with Scene.open(path) as scene:
        picture = scene.read(15, *around(scene, 15))
        assert (picture[..., :1] == picture[..., :3]).all()
    indices = np.zeros((1, SIDE, SIDE), np.uint8)
    indices[:, ::2], indices[:, 1::2] = 10, 20
    colours = {10: (200, 0, 0, 255), 20: (0, 100, 0, 255)}
    path = write(tmp_path / "p.tif", indices, "EPSG:32632", UTM, colormap=colours, nodata=0)
    with Scene.open(path) as scene:
        picture = scene.read(12, *around(scene, 12, 4))
        mean = picture.reshape(-1, 4).mean(axis=0)
        assert mean == pytest.approx((100, 50, 0, 255), abs=6), "colours are averaged, not indices"


def test_levels_finer_than_the_data(tmp_path: Path) -> None:
    path = write(tmp_path / "scene.tif", painted("EPSG:32632", UTM), "EPSG:32632", UTM)
    with Scene.open(path) as scene:
        native = scene.native_level
        assert scene.check_levels([10, native]) is None
        assert "3 finer" in str(scene.check_levels([native + 3]))
        with pytest.raises(LevelError, match=f"up to {native + 3}"):
            scene.check_levels([native + 4])


def test_a_scene_on_the_tile_grid_plans_no_tile_around_it(tmp_path: Path) -> None:
    size, half = 40_075_016.685578488 / (256 << 16), 40_075_016.685578488 / 2
    transform = Affine(size, 0, 34_000 * 256 * size - half, 0, -size, half - 23_000 * 256 * size)
    pixels = np.full((3, 512, 768), 9, np.uint8)
    with Scene.open(write(tmp_path / "s.tif", pixels, "EPSG:3857", transform)) as scene:
        planned = plan((16,), scene.footprints)
        assert planned.tile_count(16) == 2 * 3
        assert next(planned.tiles(16)) == (34_000, 23_000, 16)
        exact = scene.read(16, 34_000 * 256, 23_000 * 256, 768, 512)
        assert (exact[..., 3] == 255).all() and (exact[..., :3] == 9).all()


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    pixels = painted("EPSG:32632", UTM)
    with Scene.open(write(tmp_path / "a.tif", pixels, "EPSG:32632", UTM)) as scene:
        first = scene.fingerprint()
    with Scene.open(write(tmp_path / "b.tif", pixels, "EPSG:32632", UTM)) as scene:
        assert scene.fingerprint() == first
    pixels[0, 5, 5] ^= 1
    with Scene.open(write(tmp_path / "a.tif", pixels, "EPSG:32632", UTM)) as scene:
        assert scene.fingerprint() != first


def test_reference_map_reads_rasters(tmp_path: Path) -> None:
    path = write(tmp_path / "map.tif", painted("EPSG:32632", UTM), "EPSG:32632", UTM)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    with ReferenceMap.open(path) as base_map, Scene.open(path) as scene:
        for level in (14, 15, 16):
            assert difference(base_map, level, around(scene, level, 16)) < 6
