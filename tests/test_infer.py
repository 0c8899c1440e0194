"""The whole runtime on a small scene: if these fail, users get other tiles than they should."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from tiles import TileKey, pixels_of, tiles_of

from c2gm.runtime.errors import Interrupted, OutputError
from c2gm.runtime.infer import PARTS, Summary, run
from c2gm.runtime.job import InferOptions, prepare
from c2gm.runtime.levels import EARTH_CIRCUMFERENCE_M
from c2gm.runtime.manifest import MANIFEST_NAME
from c2gm.runtime.progress import QuietReport


@pytest.fixture(scope="module")
def options(tiny_bundle: Path, small_scene: Path, tmp_path_factory: pytest.TempPathFactory):
    """Three levels: the second has a 2X reference, the third a 4X one."""
    return InferOptions(
        imagery=small_scene,
        levels="13-15",
        output=tmp_path_factory.mktemp("run") / "first.mbtiles",
        model=tiny_bundle,
        steps=3,
        seed=5,
        batch=2,
        guide_from=13,
    )


@pytest.fixture(scope="module")
def first(options: InferOptions) -> Summary:
    return run(options, QuietReport())


def test_the_summary_counts_what_is_in_the_file(options: InferOptions, first: Summary) -> None:
    tiles = tiles_of(first.output)
    by_level = {level: sum(z == level for z, _, _ in tiles) for level in first.tiles}
    assert first.tiles == by_level
    assert set(by_level) == {13, 14, 15}
    assert by_level[15] >= 4
    assert first.steps_per_window == options.steps
    assert set(first.seconds) == set(PARTS)
    assert all(first.seconds[part] > 0 for part in PARTS)
    assert json.loads(json.dumps(first.as_json()))["output"] == str(options.output)


def test_the_same_run_twice_gives_the_same_bytes(options: InferOptions, first: Summary) -> None:
    again = run(replace(options, output=first.output.with_name("again.mbtiles")), QuietReport())
    assert tiles_of(again.output) == tiles_of(first.output)


SHAPES = [(1, 32), (2, 64), (1, 0)]
"""Tiles a side of a window, and its halo."""


@pytest.fixture(scope="module", params=SHAPES)
def shaped(options: InferOptions, first: Summary, request: pytest.FixtureRequest) -> InferOptions:
    """A finished run over the whole scene in windows of one shape; `first` is of the default."""
    window, halo = request.param
    if (window, halo) == (options.window, options.halo):
        return options
    output = first.output.with_name(f"window{window}halo{halo}.mbtiles")
    shaped = replace(options, window=window, halo=halo, output=output)
    assert run(shaped, QuietReport()).tiles == first.tiles
    assert tiles_of(output).keys() == tiles_of(first.output).keys()
    return shaped


class Stop(QuietReport):
    """Ctrl-C after some windows."""

    left = 4

    def advance(self, level: int, tiles: int) -> None:
        """A window is finished."""
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("batch", [1, 8, None])
def test_tiles_do_not_depend_on_how_many_windows_run_side_by_side(
    shaped: InferOptions, tmp_path: Path, batch: int | None
) -> None:
    output = tmp_path / "other.mbtiles"
    run(replace(shaped, batch=batch, output=output), QuietReport())
    assert tiles_of(output) == tiles_of(shaped.output_path)


def test_a_stopped_run_goes_on_and_ends_the_same(shaped: InferOptions, tmp_path: Path) -> None:
    stopped = replace(shaped, output=tmp_path / "stopped.mbtiles")
    with pytest.raises(Interrupted, match="the same command goes on"):
        run(stopped, Stop())
    assert not stopped.output_path.exists()
    with pytest.raises(OutputError, match="steps was 3, now 4"):
        run(replace(stopped, steps=4), QuietReport())
    resumed = run(stopped, QuietReport())
    assert 0 < resumed.tiles_resumed < sum(resumed.tiles.values())
    assert tiles_of(stopped.output_path) == tiles_of(shaped.output_path)


def test_a_map_of_parts_is_the_map_of_the_whole(shaped: InferOptions, tmp_path: Path) -> None:
    """Parts draw what lies around them, too; one of them was stopped in between."""
    whole, parts = tiles_of(shaped.output_path), dict[TileKey, bytes]()
    with rasterio.open(shaped.imagery) as file:
        west, south, east, north = transform_bounds(file.crs, "OGC:CRS84", *file.bounds)
    middle = west + 0.55 * (east - west)
    for number, (left, right) in enumerate(((west, middle), (middle, east))):
        output = tmp_path / f"part{number}.mbtiles"
        part = replace(shaped, bounds=(left, south, right, north), output=output)
        if number:
            with pytest.raises(Interrupted):
                run(part, Stop())
        run(part, QuietReport())
        found = tiles_of(output)
        assert found == {key: whole[key] for key in found}
        assert number or len(found) < len(whole), "the scene is too small to be parted"
        parts |= found
    assert parts == whole


def test_pixels_without_imagery_are_transparent(first: Summary) -> None:
    pictures = {key: pixels_of(data) for key, data in tiles_of(first.output).items()}
    coarse = next(picture for (z, _, _), picture in pictures.items() if z == 13)
    assert 0.001 < (coarse[..., 3] > 0).mean() < 0.3, "the scene covers a part of this tile"
    for picture in pictures.values():
        assert set(np.unique(picture[..., 3])) <= {0, 255}
        assert (picture[..., 3] > 0).any()
        assert not picture[picture[..., 3] == 0].any()


@pytest.mark.parametrize(
    ("levels", "side", "expected"), [("12-15", 300, "15"), ("12-15", 700, "14,15"), ("12", 300, "")]
)
def test_levels_that_show_next_to_nothing_guide_no_other(
    options: InferOptions, tmp_path: Path, levels: str, side: int, expected: str
) -> None:
    """The scene is `side` px wide at level 15, and higher."""
    scene = tmp_path / "small.tif"
    transform = from_origin(0, 0, *[EARTH_CIRCUMFERENCE_M / (256 << 15)] * 2)
    profile = {"driver": "GTiff", "width": side, "height": 2000, "count": 3, "dtype": "uint8"}
    with rasterio.open(scene, "w", crs="EPSG:3857", transform=transform, **profile) as file:
        file.write(np.full((3, 2000, side), 90, np.uint8))
    alone = replace(options, imagery=scene, levels=levels, guide_from=None)
    with prepare(alone) as job:
        assert job.fingerprint()["guides"] == expected
    with prepare(replace(alone, guide_from=13)) as job:
        assert job.fingerprint()["guides"] == ("" if levels == "12" else "13,14,15")


def test_a_finer_run_can_start_from_the_map_of_a_coarser_one(
    options: InferOptions, first: Summary
) -> None:
    """Level 15 from level 13 read out of the first run's file is level 15 of the first run."""
    output = first.output.with_name("from_map.mbtiles")
    run(replace(options, levels="15", reference=first.output, output=output), QuietReport())
    alone = first.output.with_name("alone.mbtiles")
    run(replace(options, levels="15", output=alone), QuietReport())
    expected = {key: data for key, data in tiles_of(first.output).items() if key[0] == 15}
    from_map, without = tiles_of(output), tiles_of(alone)
    assert from_map.keys() == without.keys() == expected.keys()
    assert without != expected
    for key, data in expected.items():
        assert np.abs(pixels_of(from_map[key]) - pixels_of(data)).max() <= 2


def test_early_stopping_ends_windows_whose_picture_stands_still(
    options: InferOptions, first: Summary, tmp_path: Path
) -> None:
    model = tmp_path / "early.c2gm"
    shutil.copytree(options.model, model)
    manifest = json.loads((model / MANIFEST_NAME).read_text(encoding="utf-8"))
    manifest["early_stop"] = {"14-2x": {"tolerance": 10.0, "minimum_steps": 2}}
    (model / MANIFEST_NAME).write_text(json.dumps(manifest), encoding="utf-8")
    output = tmp_path / "early.mbtiles"
    summary = run(replace(options, model=model, output=output), QuietReport())
    steps = sum(n * (2 if level == 14 else 3) for level, n in summary.tiles.items())
    assert summary.steps_per_window == pytest.approx(steps / sum(summary.tiles.values()))
    assert summary.tiles == first.tiles
    every = replace(options, model=model, output=tmp_path / "every.mbtiles", early_stop=False)
    assert run(every, QuietReport()).steps_per_window == options.steps
    assert tiles_of(every.output_path) == tiles_of(first.output)


@pytest.mark.parametrize(("fill", "left_out"), [(0, True), (255, True), (90, False)])
def test_windows_of_undeclared_filling_are_left_out(
    options: InferOptions, tmp_path: Path, fill: int, left_out: bool
) -> None:
    """Whole tiles inside the scene are black or white; other flat colours may be retouched water.

    What fills a scene's edges is found before windows are planned: test_filling.py.
    """
    scene = tmp_path / "filled.tif"
    pixels = np.random.default_rng(0).integers(60, 200, (3, 768, 1024), np.uint8)
    pixels[:, 256:512, 256:768] = fill
    transform = from_origin(0, 0, *[EARTH_CIRCUMFERENCE_M / (256 << 15)] * 2)
    profile = {"driver": "GTiff", "width": 1024, "height": 768, "count": 3, "dtype": "uint8"}
    with rasterio.open(scene, "w", crs="EPSG:3857", transform=transform, **profile) as file:
        file.write(pixels)
    filled = replace(options, imagery=scene, levels="15", output=tmp_path / "filled.mbtiles")
    summary = run(filled, QuietReport())
    assert (summary.tiles_without_data, summary.tiles[15]) == ((2, 10) if left_out else (0, 12))
    kept = replace(filled, keep_filling=True, output=tmp_path / "kept.mbtiles")
    assert run(kept, QuietReport()).tiles[15] == 12


def test_files_of_a_test_scene_are_left_alone(options: InferOptions, first: Summary) -> None:
    """Nothing but the output remains: no partial file, no journal."""
    assert not list(first.output.parent.glob("*.partial*"))
