"""Ctrl-C and SIGTERM at every stage of a real run with the shipped model: over soon, in one line.

Stages are waited for by what the run shows, not by the clock; the bound is wide, since machines
that run tests are busy. `pytest tests/test_stop.py -o log_cli=true --log-cli-level=info` tells the
seconds (docs/robustness.md).
"""

import logging
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

TOWN = Path(__file__).parent / "data" / "town.tif"
PATIENCE_S = 60.0
SOON_S = 15.0
NOTHING = "stopped before anything was made"
GOES_ON = "the same command goes on from there"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, sends signals")


def large_scene(folder: Path) -> Path:
    """Noise of 147 MB: reading it takes a while."""
    path = folder / "large.tif"
    profile = {"driver": "GTiff", "width": 7000, "height": 7000, "count": 3, "dtype": "uint8"}
    place = {"crs": "EPSG:32632", "transform": from_origin(465_000, 5_247_000, 3, 3)}
    blocks = {"tiled": True, "compress": "lzw"}
    rows = np.random.default_rng(0).integers(0, 255, (3, 7000, 7000), dtype=np.uint8)
    with rasterio.open(path, "w", **profile, **place, **blocks) as file:
        file.write(rows)
    return path


def loading(run: subprocess.Popen[str], output: Path) -> bool:
    return "numpy" in Path(f"/proc/{run.pid}/maps").read_text()


def reading(run: subprocess.Popen[str], output: Path) -> bool:
    assert run.stderr is not None
    return run.stderr.readline().startswith("reading")


def drawing(run: subprocess.Popen[str], output: Path) -> bool:
    journal = output.with_name(output.name + ".partial-wal")
    return journal.exists() and journal.stat().st_size > 100_000


def verifying(run: subprocess.Popen[str], output: Path) -> bool:
    assert run.stderr is not None
    return "(100 %)" in run.stderr.readline()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize(
    ("stage", "expected"),
    [(loading, NOTHING), (reading, NOTHING), (drawing, GOES_ON), (verifying, GOES_ON)],
    ids=["loading", "reading", "drawing", "verifying"],
)
def test_a_signal_ends_the_run_soon_with_one_line(
    stage: Callable[[subprocess.Popen[str], Path], bool],
    expected: str,
    number: signal.Signals,
    tmp_path: Path,
) -> None:
    imagery = large_scene(tmp_path) if stage is reading else TOWN
    output = tmp_path / "map.mbtiles"
    levels = "14" if stage is verifying else "14-16"
    flags = ["--imagery", imagery, "--levels", levels, "--output", output, "--steps", "2"]
    call = [sys.executable, "-c", "from c2gm.runtime.start import main; main()"]
    with subprocess.Popen([*call, *map(str, flags)], stderr=subprocess.PIPE, text=True) as run:
        start = time.monotonic()
        while not stage(run, output):
            assert run.poll() is None and time.monotonic() - start < PATIENCE_S
            time.sleep(0.005)
        run.send_signal(number)
        sent = time.monotonic()
        _, said = run.communicate(timeout=PATIENCE_S)
        seconds = time.monotonic() - sent
    logging.getLogger(__name__).info("%s: ended after %.2f s", stage.__name__, seconds)
    if stage is verifying and run.returncode == 0:
        pytest.skip("the run was over before the signal came")
    assert run.returncode == 130, said
    errors = [line for line in said.splitlines() if line.startswith("c2gm-infer: error: ")]
    assert len(errors) == 1 and expected in errors[0] and "Traceback" not in said, said
    assert seconds < SOON_S
    partial = output.with_name(output.name + ".partial")
    assert partial.exists() is (expected == GOES_ON) and not output.exists()
    if partial.exists():
        with closing(sqlite3.connect(partial)) as file:
            assert file.execute("SELECT count(*) FROM tiles").fetchone()[0] > 0
