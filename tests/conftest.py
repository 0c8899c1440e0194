"""What several tests share: a small bundle exported for real, and a small scene on disk."""

import platform
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

sys.path.insert(0, str(Path(__file__).parent))


HAS_TENSORRT_RTX = sys.platform != "darwin" and platform.machine() in ("x86_64", "AMD64")
"""As the extra `tensorrt` in pyproject.toml: elsewhere there are no packages of it."""

collect_ignore = [] if HAS_TENSORRT_RTX else ["test_engines.py", "test_gpu_signatures.py"]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tiny model with random weights, made by the exporter; 4 default steps."""
    from tiny import tiny_model

    from c2gm.export.cases import CheckPlan
    from c2gm.export.pack import export_bundle

    folder = tmp_path_factory.mktemp("bundle") / "tiny.c2gm"
    plan = CheckPlan(((2, 256),), steps=4, spread=1, every_step=None)
    return export_bundle(tiny_model(), folder, plan=plan)


@pytest.fixture(scope="session")
def small_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.2 x 0.9 km in UTM 32N at 3 m a pixel; the north-west corner (150 x 100 px) has no data."""
    rng = np.random.default_rng(7)
    height, width = 300, 400
    coarse = rng.integers(40, 216, (3, height // 20, width // 20))
    pixels = coarse.repeat(20, axis=1).repeat(20, axis=2) + rng.integers(0, 30, (3, height, width))
    mask = np.full((height, width), 255, np.uint8)
    mask[:100, :150] = 0
    path = tmp_path_factory.mktemp("scene") / "small.tif"
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=width,
            height=height,
            count=3,
            dtype="uint8",
            crs="EPSG:32632",
            transform=from_origin(465_000.0, 5_247_000.0, 3.0, 3.0),
        ) as file,
    ):
        file.write(pixels.astype(np.uint8))
        file.write_mask(mask)
    return path
