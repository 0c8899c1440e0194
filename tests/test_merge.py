"""If these fail, the map of several machines is another one than that of one machine."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tiles import tiles_of

from c2gm.runtime.archive import partial_path
from c2gm.runtime.cli import main as infer_main
from c2gm.runtime.errors import Interrupted, OptionError, OutputError
from c2gm.runtime.infer import run
from c2gm.runtime.job import InferOptions, prepare
from c2gm.runtime.merge import merge
from c2gm.runtime.merge_cli import main
from c2gm.runtime.progress import QuietReport
from c2gm.runtime.shards import Shard
from c2gm.runtime.verify import verify_file


def contents(path: Path) -> list[object]:
    """All metadata, the seal included, and all tiles."""
    with closing(sqlite3.connect(path)) as file:
        queries = ("SELECT * FROM metadata ORDER BY name", "SELECT * FROM tiles ORDER BY 1, 2, 3")
        return [file.execute(query).fetchall() for query in queries]


@pytest.fixture(scope="module")
def options(tiny_bundle: Path, small_scene: Path) -> InferOptions:
    return InferOptions(small_scene, "13-15", model=tiny_bundle, steps=2, seed=5, guide_from=13)


@pytest.fixture(scope="module")
def whole(options: InferOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "small.mbtiles"
    run(replace(options, output=output), QuietReport())
    return output


class Stop(QuietReport):
    """Ctrl-C after the first tiles."""

    def advance(self, level: int, tiles: int) -> None:
        """Tiles are finished."""
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def shards(options: InferOptions, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three shards, made in their folder under their own names; the second was stopped once."""
    folder = tmp_path_factory.mktemp("shards")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for index in (1, 2, 3):
            part = replace(options, shard=Shard(index, 3))
            if index == 2:
                with pytest.raises(Interrupted):
                    run(part, Stop())
                with pytest.raises(OutputError, match="shard was 2/3, now 1/3"):
                    run(replace(part, shard=Shard(1, 3), output=part.output_path), QuietReport())
            run(part, QuietReport())
    finally:
        os.chdir(before)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"small.{index}-of-3.mbtiles" for index in (1, 2, 3)]
    return [folder / name for name in names]


def test_merged_shards_are_the_map_of_one_machine(
    whole: Path, shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert all(0 < len(tiles_of(path)) < len(tiles_of(whole)) for path in shards)
    output = tmp_path / "small.mbtiles"
    with pytest.raises(SystemExit) as left:
        main([*map(str, reversed(shards)), "--output", str(output), "--json"])
    assert left.value.code == 0
    assert contents(output) == contents(whole)
    with pytest.raises(SystemExit) as left:
        infer_main(["--verify", str(output)])
    assert left.value.code == 0
    assert f'"output": "{output}"' in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["small.mbtiles"]


@pytest.mark.parametrize(("window", "halo"), [(2, 64)])
def test_shards_of_larger_windows_and_of_an_area_merge_too(
    options: InferOptions, tmp_path: Path, window: int, halo: int
) -> None:
    with prepare(options) as job:
        west, south, east, north = job.plan.bounds
    middle = west + 0.6 * (east - west)
    part = replace(options, window=window, halo=halo, bounds=(west, south, middle, north))
    output = tmp_path / "part.mbtiles"
    run(replace(part, output=output), QuietReport())
    paths = [tmp_path / f"{index}.mbtiles" for index in (1, 2)]
    for index, path in enumerate(paths):
        run(replace(part, output=path, shard=Shard(index + 1, 2)), QuietReport())
    merged = tmp_path / "merged" / "part.mbtiles"
    merged.parent.mkdir()
    merge(paths, merged, QuietReport())
    assert contents(merged) == contents(output)


def test_more_shards_than_windows_leave_empty_ones_that_merge(
    options: InferOptions, tmp_path: Path
) -> None:
    few = replace(options, levels="13-14")
    output = tmp_path / "small.mbtiles"
    made = run(replace(few, output=output), QuietReport())
    count = sum(made.tiles.values()) + made.tiles_without_data + 1
    paths = []
    for index in range(count):
        path = tmp_path / f"{index}.mbtiles"
        run(replace(few, output=path, shard=Shard(index + 1, count)), QuietReport())
        assert len({(z, x // 2, row // 2) for z, x, row in tiles_of(path)}) <= 1, "a canvas"
        paths.append(path)
    assert any(not tiles_of(path) for path in paths)
    assert not any(verify_file(path).tiles for path in paths if not tiles_of(path))
    merged = tmp_path / "merged" / "small.mbtiles"
    merged.parent.mkdir()
    assert merge(paths, merged, QuietReport()).tiles == made.tiles
    assert contents(merged) == contents(output)


def damaged(path: Path, folder: Path) -> Path:
    copy = folder / path.name
    shutil.copyfile(path, copy)
    with closing(sqlite3.connect(copy)) as file, file:
        file.execute("UPDATE tiles SET tile_data = substr(tile_data, 1, 100)")
    return copy


def of_other_seed(options: InferOptions, folder: Path, **changes: object) -> Path:
    changed = replace(options, **{"shard": Shard(3, 3), "seed": 6, **changes})  # type: ignore[arg-type]
    run(replace(changed, output=folder / "other.mbtiles"), QuietReport())
    return folder / "other.mbtiles"


def unfinished(options: InferOptions, folder: Path) -> Path:
    output = folder / "unfinished.mbtiles"
    with pytest.raises(Interrupted):
        run(replace(options, shard=Shard(3, 3), output=output), Stop())
    return partial_path(output)


def text(folder: Path) -> Path:
    (folder / "text.mbtiles").write_text("hello " * 200)
    return folder / "text.mbtiles"


Third = Callable[[InferOptions, Path, Path, Path], Path | None]

REFUSED: dict[str, Third] = {
    r"shard 3/3 is missing; .* --shard 3/3": lambda options, whole, third, folder: None,
    r"small.1-of-3.mbtiles and .*small.1-of-3.mbtiles are both shard 1/3": (
        lambda options, whole, third, folder: third.with_name("small.1-of-3.mbtiles")
    ),
    r"is of another run than .* \(seed was 5, now 6\)": (
        lambda options, whole, third, folder: of_other_seed(options, folder)
    ),
    r"is shard 1/3, .* is 3/4": (
        lambda options, whole, third, folder: of_other_seed(options, folder, shard=Shard(3, 4))
    ),
    "is not finished; run its command again": (
        lambda options, whole, third, folder: unfinished(options, folder)
    ),
    "3-of-3.mbtiles is damaged|has other tiles": (
        lambda options, whole, third, folder: damaged(third, folder)
    ),
    "is a whole map, not a shard": lambda options, whole, third, folder: whole,
    "is not a file": lambda options, whole, third, folder: folder / "nothing.mbtiles",
    "is no shard, or damaged": lambda options, whole, third, folder: text(folder),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_shards_that_are_not_one_map_are_refused(
    options: InferOptions, whole: Path, shards: list[Path], tmp_path: Path, reason: str
) -> None:
    third = REFUSED[reason](options, whole, shards[2], tmp_path)
    output = tmp_path / "merged.mbtiles"
    with pytest.raises(OutputError, match=reason):
        merge([*shards[:2], *([third] if third else [])], output, QuietReport())
    assert not output.exists() and not partial_path(output).exists()


def test_outputs_in_the_way_are_refused(shards: list[Path], whole: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists; give another --output"):
        merge(shards, whole, QuietReport())
    with pytest.raises(OptionError, match="also one of the shards"):
        merge(shards, shards[0], QuietReport(), overwrite=True)
    with pytest.raises(OptionError, match="ending in .mbtiles"):
        merge(shards, tmp_path / "map.sqlite", QuietReport())


def test_a_killed_merge_goes_on_to_the_same_map(
    whole: Path, shards: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "small.mbtiles"
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from c2gm.runtime import merge\n"
        "from c2gm.runtime.progress import QuietReport\n"
        "class Kill(QuietReport):\n"
        "    left = 3\n"
        "    def advance(self, level, tiles):\n"
        "        self.left -= 1\n"
        "        if not self.left:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "merge._COMMITTED_AT_A_TIME = 1\n"
        "merge.merge([Path(p) for p in sys.argv[2:]], Path(sys.argv[1]), Kill())\n"
    )
    for _ in range(2):
        ended = subprocess.run([sys.executable, "-c", code, output, *shards], check=False)
        assert ended.returncode == -signal.SIGKILL and not output.exists()

    class Seen(QuietReport):
        done = 0

        def start(self, total: int, done: int) -> None:
            self.done = done

    seen = Seen()
    merge(shards, output, seen)
    assert seen.done == 6, "what was committed before the kills was kept"
    assert contents(output) == contents(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["small.mbtiles"]
