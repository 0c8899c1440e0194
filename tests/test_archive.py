"""The archive: nothing half-written, resumed like undisturbed, readable by GDAL."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from mercantile import Tile

from c2gm.runtime.archive import (
    Archive,
    partial_path,
)
from c2gm.runtime.errors import DiskFullError, OutputError
from c2gm.runtime.footprint import Footprint, world_from_degrees
from c2gm.runtime.grid import Plan, Window, plan
from c2gm.runtime.mbtiles import APPLICATION_ID, Metadata
from c2gm.runtime.pixels import Picture
from c2gm.runtime.scene import ReferenceMap
from c2gm.runtime.tile_codec import decode_tile, encode_tile

LEFT, TOP = 8_600 / 2**14, 5_700 / 2**14
LEVELS = (12, 13, 14)
METADATA = Metadata("town", "someone", "a test", "1", "2026-01-02", {"seed": 7, "model": "nano"})
FINGERPRINT = {"seed": "7", "imagery": "abc"}
EMPTY = Tile(8_605, 5_701, 14)


def planned() -> Plan:
    """Six by three tiles of level 14 and what lies above them, in windows of 2 x 2."""
    part = Footprint(LEFT, TOP, LEFT + 6 / 2**14, TOP + 3 / 2**14, np.ones((1, 1), np.bool_))
    return plan(LEVELS, [part], side=2)


def drawn(tile: Tile) -> Picture:
    """A picture that names its level by colour, with a corner that is no data in one tile."""
    rng = np.random.default_rng([tile.x, tile.y, tile.z])
    picture = np.full((256, 256, 4), 255, np.uint8)
    picture[..., :3] = 40 * (tile.z - 10), tile.x % 200, 100
    picture[100:120, 100:120, :3] = rng.integers(0, 255, (20, 20, 3))
    if tile == Tile(8_600, 5_700, 14):
        picture[:50, :70, 3] = 0
    return picture


def contents(window: Window) -> list[tuple[Tile, bytes | None]]:
    tiles = planned().tiles_of(window)
    return [(tile, None if tile == EMPTY else encode_tile(drawn(tile))) for tile in tiles]


def open_archive(output: Path, overwrite: bool = False, **fingerprint: str) -> Archive:
    return Archive.open(output, planned(), METADATA, {**FINGERPRINT, **fingerprint}, overwrite)


def fill(archive: Archive, limit: int | None = None) -> None:
    """Write windows that are not done, at most `limit`."""
    done = archive.done()
    todo = [w for level in LEVELS for w in planned().windows(level) if w.key not in done]
    for window in todo[:limit]:
        archive.put_window(window, contents(window))


def rows(path: Path) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """All metadata and all tiles of a finished file."""
    with closing(sqlite3.connect(path)) as connection:
        return (
            connection.execute("SELECT * FROM metadata ORDER BY name").fetchall(),
            connection.execute("SELECT * FROM tiles ORDER BY 1, 2, 3").fetchall(),
        )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "town.mbtiles"
    with open_archive(output) as archive:
        fill(archive)
        assert archive.finish() == output
    return output


def test_gdal_reads_levels_bounds_and_colours(finished: Path) -> None:
    with rasterio.open(finished) as file:
        assert file.driver == "MBTiles" and file.crs.to_epsg() == 3857
        assert file.overviews(1) == [2, 4]
        west, north = 40_075_016.6856 * (LEFT - 0.5), 40_075_016.6856 * (0.5 - TOP)
        size = 40_075_016.6856 / (256 << 14)
        assert file.bounds == pytest.approx(
            (west, north - 768 * size, west + 1536 * size, north), abs=size
        )
        assert file.res == pytest.approx((size, size))
        # The middle of tile 8602, 5701 of level 14.
        x, y = west + 2.5 * 256 * size, north - 1.5 * 256 * size
        (pixel,) = file.sample([(x - 40 * size, y)])
        assert pixel.tolist() == [160, 8602 % 200, 100, 255]
        (empty,) = file.sample([(west + 5.5 * 256 * size, y)])
        assert empty[3] == 0, "a tile without data is transparent"
        assert file.tags()["attribution"] == "someone"
    with rasterio.open(finished, overview_level=1) as file:  # two levels up: level 12
        (pixel,) = file.sample([(x - 40 * size, y)])
        assert pixel.tolist()[0] == 80
    assert sorted(path.name for path in finished.parent.iterdir()) == ["town.mbtiles"]


def test_the_file_says_what_it_is(finished: Path) -> None:
    metadata, tiles = rows(finished)
    found = {str(name): str(value) for name, value in metadata}
    assert (found["format"], found["minzoom"], found["maxzoom"]) == ("png", "12", "14")
    assert found["c2gm"] == '{"model": "nano", "seed": 7}'
    west, south, east, north = (float(value) for value in found["bounds"].split(","))
    assert world_from_degrees(west, north) == pytest.approx((LEFT, TOP), abs=1e-9)
    assert world_from_degrees(east, south)[0] == pytest.approx(LEFT + 6 / 2**14, abs=1e-9)
    assert len(tiles) == sum(planned().tile_count(level) for level in LEVELS) - 1
    with closing(sqlite3.connect(finished)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert names >= {"metadata", "tiles"} and "c2gm_ledger" not in names


def test_a_reference_map_shows_every_level_as_it_was_drawn(finished: Path) -> None:
    with ReferenceMap.open(finished) as base_map:
        for tile in (Tile(8_602, 5_701, 14), Tile(4_301, 2_850, 13), Tile(2_150, 1_425, 12)):
            picture = base_map.read(tile.z, tile.x * 256 + 20, tile.y * 256 + 20, 60, 60)
            assert (picture[..., 3] == 255).all()
            assert np.abs(picture[..., :3].astype(int) - drawn(tile)[20:80, 20:80, :3]).max() < 3


def test_a_killed_run_goes_on_to_the_same_file(finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "town.mbtiles"
    code = (
        "import importlib.util, os, signal, sys\n"
        f"spec = importlib.util.spec_from_file_location('archive_test', {__file__!r})\n"
        "test = importlib.util.module_from_spec(spec); spec.loader.exec_module(test)\n"
        "from pathlib import Path\n"
        "archive = test.open_archive(Path(sys.argv[1]))\n"
        "test.fill(archive, int(sys.argv[2]))\n"
        "archive._connection.execute('BEGIN IMMEDIATE')\n"  # a window half-way in
        "archive._connection.execute('DELETE FROM tiles')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for count in (2, 3):
        ended = subprocess.run([sys.executable, "-c", code, str(output), str(count)], check=False)
        assert ended.returncode == -signal.SIGKILL and not output.exists()
    with open_archive(output) as archive:
        assert len(archive.done()) == 5
        for key in archive.done():
            for tile, data in contents(Window(*map(int, key.split("/")), side=2)):
                assert archive.get_tile(tile) == data
        fill(archive)
        archive.finish()
    assert rows(output) == rows(finished)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["town.mbtiles"]


def test_a_run_killed_before_the_rename_only_renames(finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "town.mbtiles"
    partial_path(output).write_bytes(finished.read_bytes())
    with open_archive(output) as archive:
        assert len(archive.done()) == sum(planned().window_count(level) for level in LEVELS)
        archive.finish()
    assert rows(output) == rows(finished)


def test_another_run_is_not_continued(tmp_path: Path) -> None:
    output = tmp_path / "town.mbtiles"
    with open_archive(output) as archive:
        fill(archive, 2)
    with pytest.raises(OutputError, match="seed was 7, now 8"):
        open_archive(output, seed="8")
    with open_archive(output) as archive:
        assert len(archive.done()) == 2, "the refused run left the file alone"
    with open_archive(output, overwrite=True, seed="8") as archive:
        assert not archive.done()


def test_two_runs_on_one_output_are_refused(tmp_path: Path) -> None:
    output = tmp_path / "town.mbtiles"
    with open_archive(output) as archive:
        for overwrite in (False, True):
            with pytest.raises(OutputError, match="another run"):
                open_archive(output, overwrite)
        fill(archive)
        archive.finish()
    with pytest.raises(OutputError, match="exists"):
        open_archive(output)
    before = output.read_bytes()
    with open_archive(output, overwrite=True) as archive:
        assert output.read_bytes() == before, "the old file stays until the new one is whole"
        fill(archive)
        archive.finish()


@pytest.mark.parametrize("damage", ["cut", "text", "foreign", "flipped"])
def test_a_damaged_partial_file_is_refused_or_found_out(tmp_path: Path, damage: str) -> None:
    output = tmp_path / "town.mbtiles"
    partial = partial_path(output)
    with open_archive(output) as archive:
        fill(archive)
    data = partial.read_bytes()
    if damage == "text":
        partial.write_text("not a database at all" * 100)
    elif damage == "cut":
        partial.write_bytes(data[: len(data) // 3])
    elif damage == "foreign":
        partial.unlink()
        with closing(sqlite3.connect(partial)) as connection:
            connection.execute("CREATE TABLE metadata (a, b)")
    else:
        place = data.index(b"IDAT") + 20
        partial.write_bytes(
            data[:place] + bytes(b ^ 0xFF for b in data[place : place + 4]) + data[place + 4 :]
        )
    with pytest.raises(OutputError), open_archive(output) as archive:
        fill(archive)
        archive.finish()
    assert not output.exists()
    with open_archive(output, overwrite=True) as archive:  # a damaged tile is made anew
        fill(archive)
        archive.finish()
    assert output.exists()


def test_unfinished_and_wrong_windows_are_refused(tmp_path: Path) -> None:
    with open_archive(tmp_path / "town.mbtiles") as archive:
        fill(archive, 3)
        with pytest.raises(OutputError, match="lacks"):
            archive.finish()
        window = next(planned().windows(14))
        with pytest.raises(ValueError, match="holds"):
            archive.put_window(window, contents(window)[1:])


def test_a_full_disk_is_named_and_survived(finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "town.mbtiles"
    with open_archive(output) as archive:
        pages = archive._connection.execute("PRAGMA page_count").fetchone()[0]
        archive._connection.execute(f"PRAGMA max_page_count={pages + 10}")
        with pytest.raises(DiskFullError, match="no space left"):
            fill(archive)
        done = archive.done()
        assert 0 < len(done) < 10
    with open_archive(output) as archive:
        assert archive.done() == done
        fill(archive)
        archive.finish()
    assert rows(output) == rows(finished)


def test_tiles_survive_png() -> None:
    picture = drawn(Tile(8_600, 5_700, 14))
    data = encode_tile(picture)
    assert data is not None and data == encode_tile(picture)
    decoded = decode_tile(data)
    assert decoded.shape == (256, 256, 4)
    valid = picture[..., 3] > 0
    np.testing.assert_array_equal(decoded[valid], picture[valid])
    assert not decoded[~valid].any()
    opaque = encode_tile(np.full((256, 256, 4), 255, np.uint8))
    assert opaque is not None and decode_tile(opaque).shape == (256, 256, 3)
    assert encode_tile(np.zeros((256, 256, 4), np.uint8)) is None
    for broken in (b"", b"text", data[:-30], data[:100] + bytes(50) + data[150:]):
        with pytest.raises(OutputError):
            decode_tile(broken)


def test_metadata_follow_the_run(tmp_path: Path) -> None:
    output = tmp_path / "town.mbtiles"
    with open_archive(output) as archive:
        fill(archive, 1)
    renamed = replace(METADATA, description="another text")
    with Archive.open(output, planned(), renamed, FINGERPRINT) as archive:
        fill(archive)
        archive.finish()
    assert ("description", "another text") in rows(output)[0]
