"""What a user sees of a run; mistakes have their table in bad_inputs.py."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bad_inputs import TABLE

from c2gm.runtime import errors
from c2gm.runtime.cli import EPILOG, main


@pytest.fixture(scope="module")
def folder(tiny_bundle: Path, small_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cli")
    shutil.copytree(tiny_bundle, place / "tiny.c2gm")
    shutil.copy(small_scene, place / "small.tif")
    return place


def command(folder: Path, changes: dict[str, str | None]) -> list[str]:
    flags: dict[str, str | None] = {
        "--imagery": str(folder / "small.tif"),
        "--levels": "14-15",
        "--model": str(folder / "tiny.c2gm"),
        "--output": str(folder / "out.mbtiles"),
        "--steps": "2",
        **changes,
    }
    return [text for flag, value in flags.items() if value is not None for text in (flag, value)]


def test_the_tables_of_exit_codes_are_complete() -> None:
    """README, help and errors.py say the same; the table of bad inputs knows no other code."""
    kinds = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type)}
    readme = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", readme, re.MULTILINE)}
    assert rows == kinds | {0}
    described = {int(code) for code in re.findall(r"^ +(\d+)  ", EPILOG, re.MULTILINE)}
    of_other_commands = {11, 12, 13, 14, 15, 16, 17}
    assert described == rows - of_other_commands
    assert {row[2] for kind in TABLE.values() for row in kind.values()} < described


def test_a_run_as_users_run_it(folder: Path, tmp_path: Path) -> None:
    """From another folder, in a process of its own: JSON on stdout, progress on stderr."""
    flags = command(folder, {"--output": None})
    program = [sys.executable, "-c", "from c2gm.runtime.cli import main; main()"]
    done = subprocess.run(
        [*program, *flags, "--json"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["output"] == "small.mbtiles"
    assert (tmp_path / "small.mbtiles").is_file()
    assert summary["tiles"].keys() == {"14", "15"}
    assert "(100 %)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_writes_nothing_and_says_what_it_measured(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command(folder, {}), "--dry-run"])
    out, err = capsys.readouterr()
    assert ended.value.code == 0, err
    assert re.search(r"tiles by level: 14: \d+, 15: \d+", out)
    assert re.search(r"estimated from \d+ tiles of level 15, just made in [\d.]+ s", out)
    assert not list(folder.glob("*.mbtiles*"))


def test_a_fault_of_ours_is_reported_without_a_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("here")

    monkeypatch.setattr("c2gm.runtime.cli.run", fail)
    for extra, traceback in (([], False), (["--debug"], True)):
        with pytest.raises(SystemExit) as ended:
            main([*command(folder, {}), *extra])
        err = capsys.readouterr().err
        assert ended.value.code == 1
        assert "internal error (ZeroDivisionError: here); please report it" in err
        assert ("Traceback" in err) is traceback
