"""What a user sees: one line and the documented exit code for every mistake."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from c2gm.runtime.cli import EPILOG, main

Case = tuple[Callable[[Path], dict[str, str | None]], int, str]


def write_raster(
    path: Path, crs: str | None = "EPSG:32632", bands: int = 3, pixel_m: float = 3.0
) -> Path:
    transform = from_origin(465_000.0, 5_247_000.0, pixel_m, pixel_m)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=64,
        height=64,
        count=bands,
        dtype="uint8",
        crs=crs,
        transform=transform,
    ) as file:
        file.write(np.full((bands, 64, 64), 90, np.uint8))
    return path


def write_text(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def truncated(folder: Path) -> str:
    path = write_raster(folder / "truncated.tif")
    path.write_bytes(path.read_bytes()[:2000])
    return str(path)


def broken_bundle(folder: Path) -> str:
    model = folder / "broken.c2gm"
    shutil.copytree(folder / "tiny.c2gm", model)
    graph = model / "denoise.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    return str(model)


def polygon(west: float, south: float, size: float) -> str:
    ring = [[west, south], [west + size, south], [west + size, south + size], [west, south]]
    return json.dumps({"type": "Polygon", "coordinates": [ring]})


# name: what differs from a good command (None drops a flag), exit code, what the line says
CASES: dict[str, Case] = {
    "no imagery given": (lambda f: {"--imagery": None}, 2, "Missing option '--imagery'"),
    "unknown option": (lambda f: {"--imagry": "x"}, 2, "No such option: --imagry"),
    "levels not a range": (lambda f: {"--levels": "ten"}, 2, "expected a range like 10-16"),
    "levels backwards": (lambda f: {"--levels": "16-10"}, 2, "coarser level first"),
    "steps zero": (lambda f: {"--steps": "0"}, 2, "--steps is 0, expected 1 to 1000"),
    "batch not a bucket": (lambda f: {"--batch": "3"}, 2, "one of 1, 2, 4, 8, 16"),
    "window not a size": (lambda f: {"--window": "3"}, 2, "one of 1, 2, 4"),
    "halo not a multiple": (lambda f: {"--halo": "10"}, 2, "multiple of 32"),
    "seed negative": (lambda f: {"--seed": "-1"}, 2, "expected 0 or more"),
    "cascade unknown": (lambda f: {"--cascade": "8x"}, 2, "one of 4x, 2x"),
    "output not MBTiles": (lambda f: {"--output": "out.tif"}, 2, "ending in .mbtiles"),
    "output is the reference": (
        lambda f: dict.fromkeys(("--output", "--reference"), write_text(f / "in.mbtiles", "")),
        2,
        "also --reference",
    ),
    "bounds not numbers": (lambda f: {"--bounds": "here"}, 2, "west,south,east,north"),
    "bounds upside down": (lambda f: {"--bounds": "8,48,9,47"}, 2, "south below north"),
    "bounds and aoi": (lambda f: {"--bounds": "8,47,9,48", "--aoi": "x"}, 2, "choose one"),
    "imagery missing": (lambda f: {"--imagery": str(f / "no.tif")}, 3, "no.tif"),
    "imagery is text": (lambda f: {"--imagery": write_text(f / "t.tif", "hello")}, 3, "t.tif"),
    "imagery truncated": (lambda f: {"--imagery": truncated(f)}, 3, "truncated.tif"),
    "no CRS": (
        lambda f: {"--imagery": str(write_raster(f / "bare.tif", crs=None))},
        3,
        "has no coordinate system",
    ),
    "two bands": (lambda f: {"--imagery": str(write_raster(f / "b2.tif", bands=2))}, 3, "band"),
    "bounds elsewhere": (lambda f: {"--bounds": "0,0,1,1"}, 4, "misses the scene"),
    "aoi missing": (lambda f: {"--aoi": str(f / "no.geojson")}, 4, "cannot be read"),
    "aoi elsewhere": (
        lambda f: {"--aoi": write_text(f / "far.geojson", polygon(30, 10, 1))},
        4,
        "misses the scene",
    ),
    "aoi not JSON": (lambda f: {"--aoi": write_text(f / "a.geojson", "{")}, 4, "not JSON"),
    "aoi without polygon": (
        lambda f: {"--aoi": write_text(f / "p.geojson", '{"type":"Point","coordinates":[8,47]}')},
        4,
        "holds no polygon",
    ),
    "aoi not in degrees": (
        lambda f: {"--aoi": write_text(f / "m.geojson", polygon(465_000, 5_246_000, 900))},
        4,
        "not degrees",
    ),
    "levels not trained": (lambda f: {"--levels": "3-5"}, 5, "was trained on"),
    "levels too fine": (
        lambda f: {"--levels": "18", "--imagery": str(write_raster(f / "c.tif", pixel_m=30))},
        5,
        "choose --levels up to",
    ),
    "model missing": (
        lambda f: {"--model": str(f / "no.c2gm")},
        6,
        "does not exist and is not the name of a shipped model",
    ),
    "model broken": (lambda f: {"--model": broken_bundle(f)}, 6, "SHA-256"),
    "backend unknown": (
        lambda f: {"--backend": "tpu"},
        2,
        "choose one of auto, tensorrt-rtx, tensorrt, cuda",
    ),
    "output exists": (lambda f: {"--output": write_text(f / "is.mbtiles", "")}, 8, "--overwrite"),
    "output nowhere": (lambda f: {"--output": str(f / "no" / "x.mbtiles")}, 8, "not a folder"),
    "levels backwards, output exists": (
        lambda f: {"--levels": "16-10", "--output": write_text(f / "is.mbtiles", "")},
        2,
        "coarser level first",
    ),
    "reference missing": (lambda f: {"--reference": str(f / "no.mbtiles")}, 10, "no.mbtiles"),
    "reference elsewhere": (
        lambda f: {"--reference": str(write_raster(f / "far.tif", "EPSG:32601"))},
        10,
        "do not overlap",
    ),
    "imagery without a name": (lambda f: {"--imagery": ""}, 2, "the name of a raster"),
    "halo beyond reason": (lambda f: {"--halo": "160"}, 2, "expected 0 to 128, half of --window 1"),
    "reference too coarse": (
        lambda f: {"--reference": str(f / "no.mbtiles"), "--levels": "10"},
        10,
        "give --levels from 11 on",
    ),
}


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


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_gets_one_line_and_its_exit_code(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.c2gm").symlink_to(folder / "tiny.c2gm")
    change, code, line = CASES[name]
    with pytest.raises(SystemExit) as ended:
        main(command(folder, change(tmp_path)))
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (code, "")
    assert err.count("\n") == 1, err
    assert err.startswith("c2gm-infer: error: ")
    assert re.search(line, err), err
    assert not list(folder.glob("*.mbtiles*"))


def test_the_table_of_exit_codes_is_complete() -> None:
    described = {int(code) for code in re.findall(r"^ +(\d+)  ", EPILOG, re.MULTILINE)}
    assert {code for _, code, _ in CASES.values()} < described


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
