"""A published map shows the same ground in every format, says what it is, and survives a kill."""

import hashlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import mercantile
import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pmtiles.reader import MemorySource, Reader, all_tiles
from pmtiles.tile import Compression, TileType, zxy_to_tileid
from tiles import tiles_of

from c2gm.runtime.errors import Interrupted, OptionError, OutputError
from c2gm.runtime.infer import run
from c2gm.runtime.job import InferOptions
from c2gm.runtime.progress import QuietReport
from c2gm.runtime.publish import publication
from c2gm.runtime.publish.cli import convert, main
from c2gm.runtime.publish.cog import _sides
from c2gm.runtime.publish.encoding import encode
from c2gm.runtime.publish.facts import NOTE
from c2gm.runtime.publish.options import FORMATS, PublishOptions, parse_formats
from c2gm.runtime.tile_codec import encode_tile
from c2gm.runtime.verify import verify_file

LEVELS = (13, 14, 15)
ALL = PublishOptions(FORMATS, qgis=True)

# The keys of TileJSON 3.0.0 that a raster map uses, from the specification's section 3.
TILEJSON = {
    "type": "object",
    "required": ["tilejson", "tiles", "vector_layers"],
    "properties": {
        "tilejson": {"const": "3.0.0"},
        "tiles": {"type": "array", "minItems": 1, "items": {"pattern": r"\{z\}/\{x\}/\{y\}"}},
        "vector_layers": {"type": "array", "maxItems": 0},
        "attribution": {"type": "string"},
        "bounds": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
        "center": {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3},
        "description": {"type": "string"},
        "minzoom": {"type": "integer", "minimum": 0, "maximum": 30},
        "maxzoom": {"type": "integer", "minimum": 0, "maximum": 30},
        "name": {"type": "string"},
        "scheme": {"enum": ["xyz", "tms"]},
        "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    },
}


@pytest.fixture(scope="module", autouse=True)
def fixed_date() -> Iterator[None]:
    """2026-01-02: the runs of this file may be compared also across midnight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1767312000")
        yield


@pytest.fixture(scope="module")
def options(tiny_bundle: Path, small_scene: Path, tmp_path_factory: pytest.TempPathFactory):
    output = tmp_path_factory.mktemp("made") / "map.mbtiles"
    return InferOptions(small_scene, "13-15", output, tiny_bundle, steps=1, seed=5)


@pytest.fixture(scope="module")
def finished(options: InferOptions, fixed_date: None) -> Path:
    return run(options, QuietReport()).output


@pytest.fixture(scope="module")
def published(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all formats, lossless PNG."""
    folder = tmp_path_factory.mktemp("all")
    convert(finished, folder / "map", ALL, overwrite=False, quiet=True)
    return folder


def to(folder: Path, source: Path, wanted: PublishOptions) -> tuple[Path, ...]:
    return convert(source, folder / "map", wanted, overwrite=False, quiet=True)


def rgba(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def digests(folder: Path) -> dict[str, str]:
    """Content of all files below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def points(path: Path) -> list[tuple[float, float]]:
    """Seeded places in web-mercator metres, all over the map and a little beyond."""
    with rasterio.open(path) as file:
        left, bottom, right, top = file.bounds
    rng = np.random.default_rng(1)
    return [(rng.uniform(left, right), rng.uniform(bottom, top)) for _ in range(80)]


def sampled(path: Path, places: list[tuple[float, float]]) -> list[tuple[int, ...]]:
    """GDAL's colours at places; nothing where alpha says so."""
    with rasterio.open(path) as file:
        return [visible(pixel) for pixel in file.sample(places)]


def visible(pixel: NDArray[np.uint8]) -> tuple[int, ...]:
    return tuple(map(int, pixel)) if pixel[3] else (0, 0, 0, 0)


def tile_pixel(
    place: tuple[float, float], level: int, side: int, get: Callable[[int, int, int], bytes | None]
) -> tuple[int, ...]:
    """Colour at a place, out of the tile that is there."""
    longitude, latitude = mercantile.lnglat(*place)
    tile = mercantile.tile(longitude, latitude, level)
    bounds = mercantile.xy_bounds(tile)
    data = get(tile.z, tile.x, tile.y)
    if data is None:
        return (0, 0, 0, 0)
    column = int((place[0] - bounds.left) / (bounds.right - bounds.left) * side)
    row = int((bounds.top - place[1]) / (bounds.top - bounds.bottom) * side)
    return visible(rgba(data)[row, column])


@pytest.mark.parametrize("size", [256, 512])
@pytest.mark.parametrize("kind", ["png", "webp"])
def test_the_same_pixel_is_at_the_same_place_in_every_lossless_format(
    finished: Path, tmp_path: Path, kind: str, size: int
) -> None:
    to(tmp_path, finished, PublishOptions(FORMATS, kind, size))
    places = points(finished)
    expected = sampled(finished, places)
    assert len(set(expected)) > 20 and (0, 0, 0, 0) in expected
    level = 15 if size == 256 else 14
    reader = Reader(MemorySource((tmp_path / "map.pmtiles").read_bytes()))
    tms = tiles_of(tmp_path / "map.mbtiles")

    def from_folder(z: int, x: int, y: int) -> bytes | None:
        path = tmp_path / "map_xyz" / str(z) / str(x) / f"{y}.{kind}"
        return path.read_bytes() if path.exists() else None

    ways: dict[str, Callable[[int, int, int], bytes | None]] = {
        "mbtiles": lambda z, x, y: tms.get((z, x, (1 << z) - 1 - y)),
        "pmtiles": reader.get,
        "xyz": from_folder,
    }
    for name, get in ways.items():
        assert [tile_pixel(place, level, size, get) for place in places] == expected, name
    assert sampled(tmp_path / "map.mbtiles", places) == expected, "GDAL, MBTiles"
    assert sampled(tmp_path / "map_z15.tif", places) == expected, "GDAL, COG"


@pytest.mark.parametrize("size", [256, 512])
def test_gdal_reads_mbtiles_of_both_sizes_with_the_same_grid(
    finished: Path, tmp_path: Path, size: int
) -> None:
    to(tmp_path, finished, PublishOptions(("mbtiles",), "webp", size))
    with rasterio.open(finished) as ours, rasterio.open(tmp_path / "map.mbtiles") as theirs:
        assert theirs.block_shapes[0] == (size, size)
        assert theirs.transform == ours.transform and theirs.shape == ours.shape
        assert theirs.overviews(1) == ours.overviews(1)
        assert np.array_equal(theirs.read(), ours.read())
        tags = theirs.tags()
    assert (tags["minzoom"], tags["maxzoom"]) == (("13", "15") if size == 256 else ("12", "14"))
    assert (tags["format"], tags["tileSize"]) == ("webp", str(size))
    assert sum(verify_file(tmp_path / "map.mbtiles").tiles.values()) > 3


def test_cogs_lie_on_the_grid_of_the_web_map(finished: Path, published: Path) -> None:
    tiles = tiles_of(finished)
    for level in LEVELS:
        with rasterio.open(published / f"map_z{level}.tif") as file:
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert file.crs.to_epsg() == 3857
            assert set(file.block_shapes) == {(256, 256)}
            columns, rows = file.width // 256, file.height // 256
            assert (file.width % 256, file.height % 256) == (0, 0)
            assert bool(file.overviews(1)) == (max(columns, rows) > 1)
            corner = mercantile.tile(
                *mercantile.lnglat(file.bounds.left + 1, file.bounds.top - 1), level
            )
            assert np.allclose(file.bounds.left, mercantile.xy_bounds(corner).left, atol=1e-6)
            assert np.allclose(file.bounds.top, mercantile.xy_bounds(corner).top, atol=1e-6)
            for row in range(rows):
                for column in range(columns):
                    window = rasterio.windows.Window(column * 256, row * 256, 256, 256)
                    key = (level, corner.x + column, (1 << level) - 1 - corner.y - row)
                    found = file.read(window=window).transpose(1, 2, 0)
                    if key in tiles:
                        assert np.array_equal(found, rgba(tiles[key]))
                    else:
                        assert not found[..., 3].any()


def test_a_jpeg_cog_keeps_what_is_transparent(finished: Path, tmp_path: Path) -> None:
    to(tmp_path, finished, PublishOptions(("cog",), "jpg"))
    with rasterio.open(tmp_path / "map_z15.tif") as file:
        assert file.count == 3
        mask, pixels = file.dataset_mask(), file.read()
    to(tmp_path / "..", finished, PublishOptions(("cog",)))  # beside, to compare with
    with rasterio.open(tmp_path / ".." / "map_z15.tif") as file:
        made = file.read()
    assert np.array_equal(mask, made[3])
    assert 0 < np.abs(pixels.astype(int) - made[:3])[:, mask > 0].mean() < 12


def test_a_map_across_the_antimeridian_becomes_two_cogs() -> None:
    east, west = mercantile.Tile(16383, 5000, 14), mercantile.Tile(0, 5000, 14)
    assert _sides(14, [west, east]) == [("_east", [east]), ("_west", [west])]
    assert _sides(14, [west]) == [("", [west])]
    assert _sides(1, [mercantile.Tile(0, 0, 1), mercantile.Tile(1, 0, 1)])[0][0] == ""


@pytest.mark.parametrize("tms", [False, True])
def test_the_tilejson_of_a_folder_is_valid_and_true(
    finished: Path, tmp_path: Path, tms: bool
) -> None:
    to(tmp_path, finished, PublishOptions(("xyz",), tms=tms))
    folder = tmp_path / ("map_tms" if tms else "map_xyz")
    document = json.loads((folder / "tile.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, TILEJSON)
    assert document["scheme"] == ("tms" if tms else "xyz")
    assert (document["minzoom"], document["maxzoom"]) == (13, 15)
    template = document["tiles"][0]
    for (z, x, row), data in tiles_of(finished).items():
        y = row if tms else (1 << z) - 1 - row
        path = folder / template.format(z=z, x=x, y=y)
        assert np.array_equal(rgba(path.read_bytes()), rgba(data))
    west, south, east, north = document["bounds"]
    with rasterio.open(finished) as file:
        left, bottom = mercantile.lnglat(file.bounds.left, file.bounds.bottom)
    assert west == pytest.approx(left, abs=1e-4) and south == pytest.approx(bottom, abs=1e-4)
    assert west < document["center"][0] < east and south < document["center"][1] < north


def test_pmtiles_is_clustered_and_read_by_the_library(finished: Path, published: Path) -> None:
    source = MemorySource((published / "map.pmtiles").read_bytes())
    header = Reader(source).header()
    assert header["version"] == 3 and header["clustered"]
    assert header["tile_type"] == TileType.PNG
    assert header["tile_compression"] == Compression.NONE
    assert (header["min_zoom"], header["max_zoom"], header["center_zoom"]) == (13, 15, 13)
    found = list(all_tiles(source))
    ids = [zxy_to_tileid(*key) for key, _ in found]
    assert ids == sorted(ids) and len(ids) == header["addressed_tiles_count"]
    made = {(z, x, (1 << z) - 1 - row): data for (z, x, row), data in tiles_of(finished).items()}
    assert {key: rgba(data).tobytes() for key, data in found} == {
        key: rgba(data).tobytes() for key, data in made.items()
    }


def test_every_format_says_who_made_it_and_that_no_surveyor_did(
    options: InferOptions, published: Path
) -> None:
    reader = Reader(MemorySource((published / "map.pmtiles").read_bytes()))
    tilejson = json.loads((published / "map_xyz" / "tile.json").read_text(encoding="utf-8"))
    with closing(sqlite3.connect(published / "map.mbtiles")) as file:
        rows = dict(file.execute("SELECT name, value FROM metadata"))
    for document in (reader.metadata(), tilejson, {**rows, "c2gm": json.loads(rows["c2gm"])}):
        assert document["attribution"].startswith(NOTE)
        assert "AI-generated" in document["description"]
        origin = document["c2gm"]
        assert (origin["model"], origin["seed"], origin["version"]) == ("tiny", 5, "0.1.0")
        assert origin.get("date", rows["date"]) == "2026-01-02"
    with rasterio.open(published / "map_z15.tif") as raster:
        tags = raster.tags()
    assert tags["TIFFTAG_COPYRIGHT"].startswith(NOTE)
    assert "AI-generated" in tags["TIFFTAG_IMAGEDESCRIPTION"]
    made = {name: tags[f"C2GM_{name}"] for name in ("MODEL", "SEED", "VERSION", "DATE")}
    assert made == {"MODEL": "tiny", "SEED": "5", "VERSION": "0.1.0", "DATE": "2026-01-02"}
    layers = ElementTree.parse(published / "map.qlr").findall("maplayers/maplayer")
    assert all((e.findtext("resourceMetadata/rights") or "").startswith(NOTE) for e in layers)


def test_a_run_that_goes_on_keeps_the_day_on_which_it_began(
    options: InferOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(QuietReport):
        def advance(self, level: int, tiles: int) -> None:
            raise KeyboardInterrupt

    begun = replace(options, output=tmp_path / "map.mbtiles")
    with pytest.raises(Interrupted):
        run(begun, Stop())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1900000000")
    run(begun, QuietReport())
    with closing(sqlite3.connect(begun.output_path)) as file:
        (date,) = file.execute("SELECT value FROM metadata WHERE name='date'").fetchone()
    assert date == "2026-01-02"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(OptionError, match="seconds since 1970"):
        run(replace(options, output=tmp_path / "other.mbtiles"), QuietReport())


def test_a_layer_definition_opens_where_it_is_moved_to(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL opens its data sources; QGIS itself is not here."""
    moved = tmp_path / "elsewhere"
    published.rename(moved)
    try:
        text = (moved / "map.qlr").read_text(encoding="utf-8")
        assert text.startswith("<!DOCTYPE qgis-layer-definition>")
        root = ElementTree.fromstring(text)
        assert root.tag == "qlr"
        tree = root.findall(".//layer-tree-layer")
        layers = root.findall("maplayers/maplayer")
        assert [e.get("id") for e in tree] == [e.findtext("id") for e in layers]
        assert [e.get("source") for e in tree] == [e.findtext("datasource") for e in layers]
        assert [e.get("checked") for e in tree][:2] == ["Qt::Checked", "Qt::Unchecked"]
        monkeypatch.chdir(moved)
        providers = [e.findtext("provider") for e in layers]
        assert providers == ["gdal", "wms", "gdal", "gdal", "gdal"]
        for layer, provider in zip(layers, providers, strict=True):
            source = layer.findtext("datasource") or ""
            if provider == "gdal":
                with rasterio.open(source) as file:
                    assert file.crs.to_epsg() == 3857
            else:
                assert "url=file:./map_xyz/%7Bz%7D/%7Bx%7D/%7By%7D.png" in source
                assert "type=xyz" in source and "zmin=13" in source and "zmax=15" in source
        scales = [(float(e.get("minScale")), float(e.get("maxScale"))) for e in layers[2:]]
        assert scales[0][1] == 0 and scales[-1][0] == 1e8
        assert all(
            finer[0] == coarser[1] for finer, coarser in zip(scales, scales[1:], strict=False)
        )
    finally:
        moved.rename(published)


@st.composite
def pictures(draw: st.DrawFn) -> NDArray[np.uint8]:
    """A tile with data, of few or of many colours, with or without pixels that have none."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    colours = draw(st.sampled_from([1, 2, 255, 256, 257, 5000]))
    table = rng.integers(0, 256, (colours, 4), dtype=np.uint8)
    table[:, 3] = 255 if draw(st.booleans()) else rng.choice([0, 255], colours)
    table[0, 3] = 255
    places = rng.integers(0, colours, (256, 256))
    places[0, 0] = 0
    return table[places]


@settings(deadline=None, max_examples=12)
@given(pictures(), st.sampled_from(["png", "webp"]))
def test_lossless_tiles_are_lossless(picture: NDArray[np.uint8], kind: str) -> None:
    made = encode_tile(picture)
    assert made is not None
    out = encode(PublishOptions(tile_format=kind), (made,))
    assert np.array_equal(rgba(out), rgba(made))
    few = len(np.unique(rgba(made).reshape(-1, 4), axis=0)) <= 256
    if kind == "png":
        assert (Image.open(io.BytesIO(out)).mode == "P") <= few and len(out) <= len(made)
    palette = encode(PublishOptions(tile_format="png8"), (made,))
    assert Image.open(io.BytesIO(palette)).mode == "P"
    assert np.array_equal(rgba(palette)[..., 3], rgba(made)[..., 3])
    if few:
        assert np.array_equal(rgba(palette), rgba(made))


def test_a_tile_without_transparency_is_white_where_nothing_is() -> None:
    picture = np.zeros((256, 256, 4), np.uint8)
    picture[:128] = (200, 100, 50, 255)
    made = encode_tile(picture)
    found = rgba(encode(PublishOptions(tile_format="jpg"), (made,)))
    assert np.abs(found[:100, :, :3].astype(int) - (200, 100, 50)).max() < 6
    assert (found[150:] > 250).all()
    four = rgba(encode(PublishOptions(tile_format="png", tile_size=512), (None, None, made, None)))
    assert np.array_equal(four[256:, :256], picture)
    assert not four[:256].any() and not four[:, 256:].any()


def test_the_same_map_and_options_give_the_same_bytes(
    finished: Path, published: Path, tmp_path: Path
) -> None:
    convert(finished, tmp_path / "map", ALL, overwrite=False, quiet=True)
    assert digests(tmp_path) == digests(published)
    assert {path.name for path in tmp_path.iterdir()} == {
        "map.mbtiles",
        "map.pmtiles",
        "map_xyz",
        "map.qlr",
        *(f"map_z{z}.tif" for z in LEVELS),
    }


class Crash(BaseException):
    """The process ends here."""


WANTED = PublishOptions(FORMATS, "webp", qgis=True)


@pytest.fixture(scope="module")
def undisturbed(
    options: InferOptions, fixed_date: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(replace(options, output=folder / "map.mbtiles", publish=WANTED), QuietReport())
    return digests(folder)


@pytest.mark.parametrize("renames", [0, 1, 4, 7])
def test_a_run_that_ends_between_two_renames_goes_on_and_ends_the_same(
    options: InferOptions,
    undisturbed: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    renames: int,
) -> None:
    """The first rename is the journal's, the others give the seven outputs their names."""
    wanted = replace(options, output=tmp_path / "map.mbtiles", publish=WANTED)
    left, rename = renames, os.replace

    def crash(source: Path, target: Path) -> None:
        nonlocal left
        if not left:
            raise Crash
        left -= 1
        rename(source, target)

    monkeypatch.setattr(publication.os, "replace", crash)
    with pytest.raises(Crash):
        run(wanted, QuietReport())
    monkeypatch.undo()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767312000")
    named = {path.name for path in tmp_path.iterdir()} - {"map.publishing", "map.mbtiles.partial"}
    assert len(named) == max(0, renames - 1)
    summary = run(wanted, QuietReport())
    assert summary.tiles_resumed == sum(summary.tiles.values()), "nothing was drawn twice"
    assert digests(tmp_path) == undisturbed
    assert len(summary.outputs) == 7


@pytest.mark.parametrize("moment", ["map.publishing", "map.publishing/map_z14.tif"])
def test_a_run_killed_while_it_publishes_goes_on_and_ends_the_same(
    options: InferOptions, undisturbed: dict[str, str], tmp_path: Path, moment: str
) -> None:
    flags = [
        *("--imagery", str(options.imagery), "--levels", options.levels, "--seed", "5"),
        *("--model", str(options.model), "--steps", "1", "--output", str(tmp_path / "map.mbtiles")),
        *("--format", ",".join(FORMATS), "--tile-format", "webp", "--qgis", "--quiet"),
    ]
    program = [sys.executable, "-c", "from c2gm.runtime.cli import main; main()", *flags]
    process = subprocess.Popen(program)
    ending = time.monotonic() + 120
    while not (tmp_path / moment).exists():
        assert process.poll() is None and time.monotonic() < ending, "it ended before the kill"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("map*.tif")) and not (tmp_path / "map.pmtiles").exists()
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path) == undisturbed


def test_a_run_whose_last_step_was_cleaning_up_has_finished(
    options: InferOptions, tmp_path: Path
) -> None:
    wanted = replace(
        options, output=tmp_path / "map.mbtiles", publish=PublishOptions(("pmtiles", "mbtiles"))
    )
    run(wanted, QuietReport())
    staging = tmp_path / "map.publishing"
    staging.mkdir()
    journal = {"identity": "any", "outputs": ["map.pmtiles"]}
    (staging / "journal.json").write_text(json.dumps(journal))
    with pytest.raises(OutputError, match=r"map\.(pmtiles|mbtiles) exists"):
        run(wanted, QuietReport())
    assert not staging.exists()


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (PublishOptions(("mbtiles", "pmtiles")), "map.pmtiles"),
        (PublishOptions(("cog",)), "map_z14.tif"),
        (PublishOptions(("mbtiles",), qgis=True), "map.qlr"),
        (PublishOptions(("mbtiles",), "webp"), "map.mbtiles"),
    ],
)
def test_existing_outputs_are_refused_before_the_run_begins(
    options: InferOptions, tmp_path: Path, wanted: PublishOptions, name: str
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="exists; give another --output"):
        run(replace(options, output=tmp_path / "map.mbtiles", publish=wanted), QuietReport())
    assert [path.name for path in tmp_path.iterdir()] == [name]
    over = replace(
        options, output=tmp_path / "map.mbtiles", publish=wanted, overwrite=True, levels="13-14"
    )
    outputs = run(over, QuietReport()).outputs
    assert tmp_path / name in outputs and (tmp_path / name).read_bytes() != b"mine"


def test_only_a_folder_of_ours_is_ever_replaced(finished: Path, tmp_path: Path) -> None:
    wanted = PublishOptions(("xyz",))
    (folder := tmp_path / "map_xyz").mkdir()
    (folder / "thesis.txt").write_text("years of work")
    for overwrite, reason in ((False, "exists; give another"), (True, "it is not replaced")):
        with pytest.raises(OutputError, match=reason):
            convert(finished, tmp_path / "map", wanted, overwrite=overwrite, quiet=True)
    (folder / "thesis.txt").rename(tmp_path / "thesis.txt")
    folder.rmdir()
    to(tmp_path, finished, wanted)
    (folder / "15" / "old.png").write_text("from an older map")
    convert(finished, tmp_path / "map", wanted, overwrite=True, quiet=True)
    assert not (folder / "15" / "old.png").exists()
    (folder / "thesis.txt").write_text("kept here, of all places")
    with pytest.raises(OutputError, match="holds more than that"):
        convert(finished, tmp_path / "map", wanted, overwrite=True, quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map_xyz", "thesis.txt"]


def test_a_second_publication_waits_for_its_turn(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "map.publishing").mkdir()
    with closing(sqlite3.connect(tmp_path / "map.publishing" / "lock")) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OutputError, match="another run is writing"):
            to(tmp_path, finished, PublishOptions(("pmtiles",)))
    assert to(tmp_path, finished, PublishOptions(("pmtiles",)))
    assert [path.name for path in tmp_path.iterdir()] == ["map.pmtiles"]


def test_only_whole_originals_are_published(finished: Path, tmp_path: Path) -> None:
    to(tmp_path, finished, PublishOptions(("mbtiles",), "webp"))
    with pytest.raises(OutputError, match="was itself published"):
        convert(
            tmp_path / "map.mbtiles",
            tmp_path / "b",
            PublishOptions(("xyz",)),
            overwrite=False,
            quiet=True,
        )
    data = bytearray(finished.read_bytes())
    place = data.rindex(b"IDAT") + 40
    data[place] ^= 1
    (broken := tmp_path / "broken.mbtiles").write_bytes(data)
    with pytest.raises(OutputError, match="damaged|other tiles"):
        convert(broken, None, PublishOptions(("pmtiles",)), overwrite=False, quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.mbtiles", "map.mbtiles"]


def test_damage_to_a_published_map_is_found(finished: Path, tmp_path: Path) -> None:
    to(tmp_path, finished, PublishOptions(("mbtiles",), "webp", 512))
    path = tmp_path / "map.mbtiles"
    data = bytearray(path.read_bytes())
    data[data.rindex(b"RIFF") + 60] ^= 4
    path.write_bytes(data)
    with pytest.raises(OutputError, match="damaged|other tiles"):
        verify_file(path)


MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "no format": ([], 2, "--format is missing"),
    "unknown format": (["--format", "gpkg"], 2, "one of mbtiles, pmtiles, xyz, cog"),
    "unknown tiles": (["--format", "xyz", "--tile-format", "avif"], 2, "one of png, png8, webp"),
    "unknown size": (["--format", "xyz", "--tile-size", "300"], 2, "one of 256, 512"),
    "quality of png": (["--format", "xyz", "--quality", "9"], 2, "for webp and jpg"),
    "quality 0": (["--format", "xyz", "--tile-format", "jpg", "--quality", "0"], 2, "1 to 100"),
    "tms without folder": (["--format", "cog", "--tms"], 2, "--tms is for XYZ"),
    "palette in a COG": (["--format", "cog", "--tile-format", "png8"], 2, "choose png or webp"),
    "QGIS and PMTiles": (["--format", "pmtiles", "--qgis"], 2, "does not read raster PMTiles"),
    "onto itself": (["--format", "mbtiles"], 2, "is the map itself"),
    "nowhere": (["--format", "xyz", "--output", "no/such/place"], 8, "not a folder"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_line_and_its_exit_code(
    name: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, code, line = MISTAKES[name]
    before = finished.read_bytes()
    with pytest.raises(SystemExit) as ended:
        main([str(finished), *flags])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (code, "")
    assert err.count("\n") == 1 and err.startswith("c2gm-publish: error: "), err
    assert line in err
    assert finished.read_bytes() == before
    assert [path.name for path in finished.parent.iterdir()] == [finished.name]


def test_the_command_says_what_it_wrote(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: list[Any] = [finished, "--format", "pmtiles", "--format", "xyz,cog"]
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--output", str(tmp_path / "a.tif"), "--json", "--quiet"])
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "")
    names = [Path(path).name for path in json.loads(out)["outputs"]]
    assert names == ["a.pmtiles", "a_xyz", "a_z13.tif", "a_z14.tif", "a_z15.tif"]
    assert all((tmp_path / name).exists() for name in names)
    assert parse_formats(["cog, xyz", "mbtiles"]) == ("mbtiles", "xyz", "cog")
