"""`--config` and `--log-file`: options that are not what the user wrote, or a log that harms."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from c2gm.runtime.cli import main
from c2gm.runtime.log_file import LogFile, LoggedReport
from c2gm.runtime.progress import QuietReport


@pytest.fixture
def folder(tiny_bundle: Path, small_scene: Path, tmp_path: Path) -> Path:
    """A scene, and a file with the options of a small run of it, named in every manner."""
    (tmp_path / "small.tif").symlink_to(small_scene)
    (tmp_path / "run.toml").write_text(
        'imagery = "small.tif"\nlevels = [13, 14]\noutput = "out.mbtiles"\n'
        f'steps = 1\nguide_from = 13\nno-blend = true\nquiet = true\nmodel = "{tiny_bundle}"\n'
    )
    return tmp_path


def run(*arguments: str | Path) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def test_a_file_gives_options_and_flags_win(folder: Path) -> None:
    """Paths start from the file's folder, whatever folder the command runs in."""
    log = folder / "run.log"
    assert run("--config", folder / "run.toml", "--steps", "2", "--log-file", log) == 0
    assert (folder / "out.mbtiles").is_file()
    text = log.read_text()
    assert "levels 13,14" in text and "steps 2" in text and "blend False" in text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("level = 3", "there is no option 'level'; the nearest is 'levels'"),
        ("guide-frm = 3", "there is no option 'guide-frm'; the nearest is 'guide-from'"),
        ("verify = 'x'", "there is no option 'verify'"),
        ("guide-from = 3", "'guide-from' is given twice"),
        ("overwrite = 1", "overwrite is 1, expected true or false"),
        ("aoi = true", "aoi is True, expected text in quotes, or a number"),
        ("[bounds]", "bounds is {}, expected text"),
        ('aoi = "a\\u0000b"', "expected text"),
        ("batch = 'x'", "Invalid value for '--batch'"),
        ("batch = 3", "--batch is 3, expected one of"),
        ("= 3", "is not TOML"),
    ],
)
def test_a_wrong_file_gets_one_line(
    folder: Path, line: str, expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = folder / "run.toml"
    path.write_text(path.read_text() + line)
    assert run("--config", path) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and expected in err
    assert not list(folder.glob("out*"))


def test_a_missing_file_gets_one_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--config", folder / "no.toml") == 2
    assert "no.toml, which is not a file; give a TOML file" in capfd.readouterr().err


def test_a_log_tells_the_story_dated_and_appended(folder: Path) -> None:
    log = folder / "run.log"
    for code in (0, 8):  # the second time the output exists
        assert run("--config", folder / "run.toml", "--log-file", log) == code
    lines = log.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d ", line) for line in lines)
    told = [line.split(" ", 1)[1] for line in lines]
    assert sum(line.startswith("options: imagery ") for line in told) == 2
    assert any("(100 %)" in line for line in told)
    assert "ended with exit code 0" in told
    assert told[-1].startswith("error: ") and told[-1].endswith("exit code 8")


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        (".", 8, "cannot be written"),
        ("no/run.log", 8, "cannot be written"),
        ("small.tif", 2, "which is also --imagery"),
        ("out.mbtiles", 2, "which is also --output"),
        ("out.mbtiles.partial", 2, "which is also the partial file of --output"),
        ("run.toml", 2, "which is also --config"),
    ],
)
def test_a_log_that_cannot_be_is_refused_first(
    folder: Path, name: str, code: int, expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "run.toml").read_bytes()
    assert run("--config", folder / "run.toml", "--log-file", folder / name) == code
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and expected in err
    assert (folder / "run.toml").read_bytes() == before
    assert not list(folder.glob("out*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_log_that_fails_in_the_middle_is_told_once_and_ends_nothing() -> None:
    class Heard(QuietReport):
        notes: list[str] = []

        def note(self, message: str) -> None:
            self.notes.append(message)

    log = LogFile(Path("run.log"), Path("/dev/full").open("a", buffering=1))
    report = LoggedReport(Heard(), log)
    for text in ("one", "two", "three"):
        report.note(text)
    log.close()
    warnings = [note for note in Heard.notes if note.startswith("warning: run.log cannot be")]
    assert len(warnings) == 1 and {"one", "two", "three"} <= set(Heard.notes)


def test_the_shell_is_told_how_to_complete() -> None:
    """As bash asks after a press of TAB."""
    call = "import sys; from c2gm.runtime.start import main; sys.argv = ['c2gm-infer']; main()"
    asked = {"COMP_WORDS": "c2gm-infer --lo", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", call],
        env={**os.environ, **asked, "_C2GM_INFER_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["--log-file"], done.stderr
