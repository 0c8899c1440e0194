"""A finished map that lost or changed anything is found out; one that did not is not accused."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from c2gm.runtime.archive import partial_path
from c2gm.runtime.cli import main
from c2gm.runtime.errors import Interrupted, OutputError
from c2gm.runtime.infer import run
from c2gm.runtime.job import InferOptions
from c2gm.runtime.progress import QuietReport
from c2gm.runtime.verify import verify_file


def contents(path: Path) -> list[object]:
    with closing(sqlite3.connect(path)) as file:
        queries = ("SELECT * FROM metadata ORDER BY name", "SELECT * FROM tiles ORDER BY 1, 2, 3")
        return [file.execute(query).fetchall() for query in queries]


@pytest.fixture(scope="module")
def finished(
    tiny_bundle: Path, small_scene: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("finished") / "map.mbtiles"
    run(InferOptions(small_scene, "13-14", output, tiny_bundle, steps=1), QuietReport())
    return output


def test_a_whole_map_is_whole(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = finished.read_bytes()
    with pytest.raises(SystemExit) as left:
        main(["--verify", str(finished)])
    assert left.value.code == 0
    found = verify_file(finished)
    assert set(found.tiles) == {13, 14} and found.tiles[14] > 1
    assert f"is whole: {sum(found.tiles.values())} tiles" in capsys.readouterr().out
    assert finished.read_bytes() == before
    assert [path.name for path in finished.parent.iterdir()] == ["map.mbtiles"]


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_is_found_wherever_it_changes_anything(
    finished: Path, tmp_path: Path, seed: int
) -> None:
    data = bytearray(finished.read_bytes())
    place = random.Random(seed).randrange(len(data))
    data[place] ^= 1 << seed % 8
    copy = tmp_path / "flipped.mbtiles"
    copy.write_bytes(data)
    try:
        verify_file(copy)
    except OutputError:
        return
    assert contents(copy) == contents(finished), "the bit lies where SQLite keeps nothing"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.8, 0.999])
def test_a_truncated_map_is_found(finished: Path, tmp_path: Path, share: float) -> None:
    data = finished.read_bytes()
    copy = tmp_path / "short.mbtiles"
    copy.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(OutputError):
        verify_file(copy)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DELETE FROM tiles WHERE zoom_level=13", "0 tiles of level 13"),
        ("INSERT INTO tiles SELECT 15, 0, 0, tile_data FROM tiles LIMIT 1", "0 were made"),
        ("UPDATE tiles SET tile_column=tile_column+1 WHERE zoom_level=13", "other tiles"),
        ("UPDATE tiles SET tile_data=x'00' WHERE zoom_level=14", "is damaged: tile 14/"),
        ("UPDATE metadata SET value='nobody' WHERE name='attribution'", "other metadata"),
        ("DELETE FROM metadata WHERE name='c2gm_tiles'", "not a map of this version"),
    ],
)
def test_every_change_has_its_line(
    finished: Path, tmp_path: Path, statement: str, reason: str
) -> None:
    copy = tmp_path / "changed.mbtiles"
    shutil.copyfile(finished, copy)
    with closing(sqlite3.connect(copy)) as file, file:
        file.execute(statement)
    with pytest.raises(OutputError, match=reason):
        verify_file(copy)


def test_what_is_not_a_finished_map_is_refused(
    tiny_bundle: Path, small_scene: Path, tmp_path: Path
) -> None:
    class Stop(QuietReport):
        def advance(self, level: int, tiles: int) -> None:
            raise KeyboardInterrupt

    output = tmp_path / "map.mbtiles"
    with pytest.raises(Interrupted):
        run(InferOptions(small_scene, "13-14", output, tiny_bundle, steps=1), Stop())
    (tmp_path / "text").write_text("hello " * 100)
    with closing(sqlite3.connect(tmp_path / "foreign.mbtiles")) as file, file:
        file.execute("CREATE TABLE metadata (name TEXT, value TEXT)")
    lines: dict[str, Callable[[], Path]] = {
        "not finished; run its command again": lambda: partial_path(output),
        "is no MBTiles file": lambda: tmp_path / "text",
        "not a map of this version": lambda: tmp_path / "foreign.mbtiles",
        "is not a file": lambda: tmp_path / "nothing",
    }
    for reason, path in lines.items():
        with pytest.raises(OutputError, match=reason):
            verify_file(path())
