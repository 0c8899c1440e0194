"""Every row of the table of bad inputs, through the real command.

If one fails, somebody in the field gets a traceback, a wait without end, a lost file, or a line
that does not help.
"""

import hashlib
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bad_inputs import GOOD, TABLE

from c2gm.runtime.cli import main

ROWS = {f"{kind}: {name}": row for kind, rows in TABLE.items() for name, row in rows.items()}

IN_A_PROCESS = (
    "scene: a damaged block",
    "scene: terabytes declared, kilobytes there",
    "scene: one block of gigabytes",
    "area: a device",
    "bundle: embeddings of terabytes",
    "bundle: embeddings that are a bomb",
    "output: partial file damaged",
    "option: unknown flag",
)
"""Rows that also run as users run them, with little memory."""

MEMORY_BYTES = 3 << 30
PATIENCE_S = 20.0
"""No refusal takes so long, on any machine."""


@pytest.fixture(scope="module")
def good(tiny_bundle: Path, small_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("good")
    shutil.copytree(tiny_bundle, place / "tiny.c2gm")
    shutil.copy(small_scene, place / "scene.tif")
    return place


@pytest.fixture
def folder(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.c2gm").symlink_to(good / "tiny.c2gm")
    shutil.copy(good / "scene.tif", tmp_path / "scene.tif")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(folder: Path, flags: str) -> list[str]:
    """The good command with a row's flags in place of its own."""
    changed = shlex.split(flags)
    flag_names = {word.split("=")[0].lstrip("-") for word in changed if word.startswith("-")}
    kept = list[str]()
    good = shlex.split(GOOD)
    for flag, value in zip(good[::2], good[1::2], strict=True):
        if flag.lstrip("-") not in flag_names:
            kept += [flag, value]
    dropped = [word for word in changed if re.fullmatch("-[a-z]+", word)]
    return [word.replace("{f}", str(folder)) for word in (*kept, *changed) if word not in dropped]


def pattern(folder: Path, line: str) -> str:
    """A row's line as a regular expression."""
    return ".*".join(re.escape(part) for part in line.replace("{f}", str(folder)).split("..."))


def state(folder: Path) -> dict[str, str]:
    """Everything in a folder, by content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file() and path.stat().st_size < 10_000_000
        else "exists"
        for path in sorted(folder.rglob("*"))
    }


def test_the_table_is_large() -> None:
    assert len(ROWS) >= 60


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("name", ROWS)
def test_a_bad_input_gets_its_line_and_its_exit_code(
    name: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, flags, code, line = ROWS[name]
    make(folder)
    before, start = state(folder), time.monotonic()
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(command(folder, flags))
    out, err = capfd.readouterr()
    assert err.count("\n") == 1, err
    assert (ended.value.code, out) == (code, ""), err
    expected = "c2gm-infer: error: " + pattern(folder, line)
    assert re.fullmatch(expected, err[:-1]), f"{err}\n{line}"
    assert state(folder) == before
    assert time.monotonic() - start < PATIENCE_S


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("name", IN_A_PROCESS)
def test_a_bad_input_takes_little_memory(name: str, folder: Path) -> None:
    make, flags, code, line = ROWS[name]
    make(folder)
    call = [sys.executable, "-c", "from c2gm.runtime.cli import main; main()"]
    done = subprocess.run(
        [*call, *command(folder, flags)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)),
    )
    assert done.returncode == code, done.stderr
    expected = "c2gm-infer: error: " + pattern(folder, line)
    assert re.fullmatch(expected, done.stderr.rstrip("\n")), done.stderr
