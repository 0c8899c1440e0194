"""Training data: areas, the split by ground, sampling, tile folders."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from c2gm.model.data.cli import app
from c2gm.model.data.cscmg import CSCMGTiles, tile_name, write_cscmg
from c2gm.model.data.dataset import (
    BatchStream,
    SamplerOptions,
    TileSampler,
    Window,
    collate,
    cut,
    open_sampler,
    validation_samples,
)
from c2gm.model.data.dubai import dubai
from c2gm.model.data.manifest import write_manifest
from c2gm.model.data.mosaic import GROUND_LEVEL, Area, Extent, crop, open_area, open_areas, unit
from c2gm.model.data.mosaic_build import AreaBuilder, halve
from c2gm.model.data.real_pairs import without_blanks
from c2gm.model.data.xyz import XYZTiles
from c2gm.model.maps.cartography import BACKGROUND, PALETTE, VectorLayer, write_vectors
from c2gm.runtime.errors import DataError
from c2gm.runtime.levels import EARTH_CIRCUMFERENCE_M
from c2gm.runtime.pixels import enlarge

FINEST = 16
LEFT, TOP, SIDE = 34_312 * 256, 22_944 * 256, 1280  # level-16 pixels, 3 km of ground
PLAIN = SamplerOptions(augment=False)


def _to_3857(x: float, y: float) -> tuple[float, float]:
    half = EARTH_CIRCUMFERENCE_M / 2
    return (LEFT + x) * unit(FINEST) - half, half - (TOP + y) * unit(FINEST)


def _box(x0: float, y0: float, x1: float, y1: float) -> shapely.Polygon:
    return shapely.box(*_to_3857(x0, y1), *_to_3857(x1, y0))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One area of 1280 px at level 16, made by the `add` command from a GeoTIFF and a GeoPackage.

    The north-west corner has no imagery; the eastern fifth is validation ground.
    """
    folder = tmp_path_factory.mktemp("pairs")
    colours = np.random.default_rng(0).integers(1, 255, (3, SIDE, SIDE)).astype(np.uint8)
    mask = np.full((SIDE, SIDE), 255, dtype=np.uint8)
    mask[:200, :300] = 0
    transform = rasterio.Affine(
        unit(FINEST), 0, _to_3857(0, 0)[0], 0, -unit(FINEST), _to_3857(0, 0)[1]
    )
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            folder / "town.tif", "w", driver="GTiff", width=SIDE, height=SIDE, count=3,
            dtype="uint8", crs="EPSG:3857", transform=transform,
        ) as file,
    ):  # fmt: skip
        file.write(colours)
        file.write_mask(mask)
    houses = [_box(x, y, x + 14, y + 10) for x in range(10, 1270, 60) for y in range(10, 1270, 50)]
    street = shapely.LineString([_to_3857(0, 655), _to_3857(SIDE, 600)])
    lake = _box(500, 700, 900, 1000)
    layers = {
        "building": VectorLayer(np.array(houses, dtype=object), np.full(len(houses), "building")),
        "transportation": VectorLayer(np.array([street], dtype=object), np.array(["primary"])),
        "water": VectorLayer(np.array([lake], dtype=object), np.array(["lake"])),
    }
    write_vectors(folder / "town.gpkg", layers)
    result = CliRunner().invoke(
        app,
        ["add", "--imagery", str(folder / "town.tif"), "--vectors", str(folder / "town.gpkg"),
         "--output", str(folder / "dataset"), "--finest", "16", "--held-out", "0.2"],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder / "dataset"


@pytest.fixture(scope="session")
def town(dataset: Path) -> Area:
    return open_area(dataset / "town")


def test_imagery_on_the_grid_is_taken_unchanged(dataset: Path, town: Area) -> None:
    with rasterio.open(dataset.parent / "town.tif") as file:
        expected, mask = file.read().transpose(1, 2, 0), file.dataset_mask()
    stored = town.imagery(FINEST)
    assert town.levels[FINEST] == Extent(LEFT, TOP, SIDE, SIDE)
    assert np.array_equal(stored[..., 3], mask)
    assert np.array_equal(stored[..., :3], expected * (mask[..., None] > 0))


def test_coarser_imagery_is_the_mean_of_valid_pixels() -> None:
    picture = np.zeros((2, 4, 4), dtype=np.uint8)
    picture[0, 0], picture[1, 1] = (10, 20, 30, 255), (20, 40, 60, 255)
    picture[0, 2] = (99, 99, 99, 255)
    assert halve(picture).tolist() == [[[15, 30, 45, 255], [0, 0, 0, 0]]]


def test_white_patches_are_not_imagery_but_white_roofs_are() -> None:
    picture = np.full((128, 128, 4), 255, dtype=np.uint8)
    picture[..., :3] = 90
    picture[:64, :64, :3] = 254
    picture[100:110, 100:110, :3] = 254
    valid = without_blanks(picture)[..., 3] > 0
    assert not valid[:64, :64].any() and valid[64:, :].all() and valid[:, 64:].all()


@settings(max_examples=60, deadline=None)
@given(index=st.integers(0, 10**9))
def test_training_never_sees_validation_ground(dataset: Path, index: int) -> None:
    sample = _sampler(dataset).sample(index)
    window = sample.window
    for ground in window.area.validation:
        part = ground.finer(window.level - GROUND_LEVEL).within(window.extent)
        assert not sample.imagery[part].any()
        assert (sample.target[part] == BACKGROUND).all()
        assert sample.reference is None or not sample.reference[part][..., 3].any()


_samplers: dict[Path, TileSampler] = {}


def _sampler(dataset: Path) -> TileSampler:
    if dataset not in _samplers:
        _samplers[dataset] = TileSampler(dataset, options=PLAIN)
    return _samplers[dataset]


def test_validation_sees_nothing_else(dataset: Path) -> None:
    samples = validation_samples(dataset, per_level=4)
    assert {sample.level for sample in samples} == {13, 14, 15, 16}  # coarser ones are too empty
    places = [(sample.level, sample.window.extent) for sample in samples]
    assert len(set(places)) == len(places)
    for sample in samples:
        train = cut(sample.window, None, "train").imagery[..., 3] > 0
        assert sample.imagery[..., 3].any()
        assert not (train & (sample.imagery[..., 3] > 0)).any()


@pytest.mark.parametrize("span", [1, 2])
def test_reference_is_the_enlarged_crop_of_the_coarser_map(town: Area, span: int) -> None:
    window = Window(town, FINEST, Extent(LEFT + 448, TOP + 640, 256, 256))
    reference = cut(window, span, "train").reference
    assert reference is not None
    coarser = town.levels[FINEST - span]
    part = crop(town.map(FINEST - span), coarser, window.extent.coarser(span))
    assert np.array_equal(reference[..., :3], enlarge(part, span))
    assert (reference[..., 3] == 255).all()
    assert (part == PALETTE["water"]).all(axis=-1).any()


def test_map_is_background_where_imagery_is_invalid(town: Area) -> None:
    sample = cut(Window(town, FINEST, Extent(LEFT - 64, TOP, 256, 256)), None, "train")
    invalid = sample.imagery[..., 3] == 0
    assert invalid[:, :64].all() and invalid[:200].all() and not invalid[201:, 65:].any()
    assert (sample.target[invalid] == BACKGROUND).all()
    assert not (sample.target[~invalid] == BACKGROUND).all()


def test_batches_are_the_same_after_a_restart(dataset: Path) -> None:
    sampler = TileSampler(dataset, seed=5, options=SamplerOptions(degraded_share=1.0))
    stream = iter(BatchStream(sampler, size=3))
    first = [next(stream) for _ in range(3)]
    again = next(iter(BatchStream(TileSampler(dataset, seed=5, options=sampler.options), 3, 2)))
    other = next(iter(BatchStream(TileSampler(dataset, seed=6, options=sampler.options), 3, 2)))
    assert all(torch.equal(first[2][name], again[name]) for name in again)
    assert (
        not torch.equal(again["prompt"], other["prompt"])
        or again["image"].shape != other["image"].shape
    )


def test_levels_are_drawn_by_their_weights(dataset: Path) -> None:
    """Weight 0 drops a level, weight 3 triples it; what is not named weighs 1."""
    options = replace(PLAIN, level_weights={13: 0.0, 16: 3.0})
    sampler = TileSampler(dataset, options=options)
    drawn = [sampler.sample(index, side=64).level for index in range(120)]
    assert 13 not in drawn
    assert 1.5 < drawn.count(16) / drawn.count(15) < 6


def test_batch_hides_invalid_pixels_and_absent_references(dataset: Path) -> None:
    sampler = _sampler(dataset)
    samples = [sampler.sample(index) for index in range(12)]
    batch = collate(samples)
    for row, sample in enumerate(samples):
        invalid = torch.from_numpy(sample.imagery[..., 3] == 0)
        assert not batch["imagery"][row][:, invalid].any()
        assert bool(batch["has_reference"][row]) == (sample.span is not None)
        assert sample.span is not None or not batch["reference"][row].any()
    assert {float(x) for x in batch["has_reference"]} == {0.0, 1.0}
    assert batch["imagery"].abs().max() <= 1 and batch["imagery"].dtype == torch.float32


def test_manifest_counts_tiles_and_classes(dataset: Path, town: Area) -> None:
    assert write_manifest(dataset) == len(open_areas(dataset))
    content = json.loads((dataset / "manifest.json").read_text())
    level = max(town.targets)
    facts = content["areas"][town.name]["levels"][str(level)]
    valid = town.imagery(level)[..., 3] > 0
    held_out = town.ground(level)
    for name, part in (("training", valid & ~held_out), ("validation", valid & held_out)):
        # The index looks at every n-th pixel of a cell only.
        assert facts[f"{name}_tiles"] == pytest.approx(part.sum() / 65536, rel=0.02, abs=0.02)
    shares = content["levels"][str(level)]["class_shares"]
    assert 0.9 < sum(shares.values()) <= 1.0 and shares["background"] > 0


def test_cscmg_round_trip(dataset: Path, town: Area, tmp_path: Path) -> None:
    counts = write_cscmg(dataset, tmp_path / "set", (14, 15, 16), smallest_share=0.2)
    tiles = CSCMGTiles(tmp_path / "set", "train")
    assert len(tiles.tiles) == counts["train"] > 10 and tiles.coarsest == 14
    for tile in tiles.tiles[:3] + tiles.tiles[-6:]:
        window = Window(town, tile.z, Extent(tile.x * 256, tile.y * 256, 256, 256))
        expected = cut(window, tile.z - 14 or None, "train")
        assert np.array_equal(tiles.imagery(tile), expected.imagery)
        assert np.array_equal(tiles.map(tile), expected.target)
        if expected.reference is not None:
            assert np.array_equal(tiles.reference(tile, tile.z - 14), expected.reference)
    batch = collate(open_sampler(tmp_path / "set").batch(0, 4))
    assert batch["image"].shape == (4, 3, 256, 256)
    assert validation_samples(tmp_path / "set", per_level=2)

    fine = next(tile for tile in tiles.tiles if tile.z == 16)
    missing = tmp_path / "set" / "train" / "ref_scale_4_256" / f"{tile_name(fine)}.png"
    missing.unlink()
    with pytest.raises(DataError, match=missing.name):
        CSCMGTiles(tmp_path / "set", "train")


def test_xyz_folders_give_references_from_ancestors(town: Area, tmp_path: Path) -> None:
    x, y = LEFT >> 10, TOP >> 10
    for level in (14, 15, 16):
        factor = 1 << (level - 14)
        for column in range(factor):
            for row in range(factor):
                place = Extent((x * factor + column) * 256, (y * factor + row) * 256, 256, 256)
                sample = cut(Window(town, level, place), None, "train")
                for name, picture in (("imagery", sample.imagery), ("map", sample.target)):
                    file = tmp_path / name / f"{level}/{place.left // 256}/{place.top // 256}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(picture).save(file)
    tiles = XYZTiles(tmp_path, "train")
    assert len(tiles.tiles) == 21
    tile = next(t for t in tiles.tiles if t == (x * 4 + 2, y * 4 + 3, 16))
    parent = np.asarray(Image.open(tmp_path / "map" / f"14/{x}/{y}.png"))
    assert np.array_equal(tiles.reference(tile, 2)[..., :3], enlarge(parent[192:256, 128:192], 2))
    (tmp_path / "map" / f"15/{2 * x + 1}/{2 * y + 1}.png").unlink()
    with pytest.raises(DataError, match=f"15/{2 * x + 1}/{2 * y + 1}.png is missing"):
        XYZTiles(tmp_path, "train")


def test_dubai_masks_become_maps(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "dubai"
    folder.mkdir(parents=True)
    classes = np.full((256, 320, 3), (0x84, 0x29, 0xF6), dtype=np.uint8)
    classes[:100, :100] = (0xE2, 0xA9, 0x29)
    classes[150:190, 150:200] = (0x3C, 0x10, 0x98)
    Image.fromarray(classes).save(folder / "tile1_mask.png")
    Image.fromarray(classes // 2).save(folder / "tile1.jpg")
    (plan,) = dubai(tmp_path / "data")
    list(AreaBuilder(tmp_path / "dataset").build(plan))
    drawn = open_area(tmp_path / "dataset" / "dubai_tile1").map(17)
    assert (drawn[10:90, 10:90] == PALETTE["water"]).all()
    assert (drawn[155:185, 155:195] == PALETTE["building"]).all()


def test_folders_without_data_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="c2gm-dataset build"):
        TileSampler(tmp_path)
