"""The benchmarks compare like with like: same pictures, all cores, scenes of the promised size."""

import io
import json
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from blocks import GROUND, write_blocks
from PIL import Image
from tiny import tiny_model
from typer.testing import CliRunner

from c2gm.benchmarks.cli import app
from c2gm.benchmarks.peak import measure_peaks
from c2gm.benchmarks.peers import (
    PlainGraphs,
    TorchPeer,
    peer_tiles,
    plain_onnxruntime,
    plain_openvino,
)
from c2gm.benchmarks.scaling import measure_scaling
from c2gm.benchmarks.scenes import mirrored_scene, sheet_plan
from c2gm.benchmarks.sheet_peers import draw_sheet
from c2gm.benchmarks.timing import FEWEST, measure
from c2gm.model.evaluation.bundle_painter import BundlePainter, runtime_sample
from c2gm.runtime.backends.onnxruntime import OnnxRuntimeBackend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.grid import plan
from c2gm.runtime.infer import run
from c2gm.runtime.job import InferOptions
from c2gm.runtime.progress import QuietReport
from c2gm.runtime.scene import Scene

TOWN = Path(__file__).parent / "data" / "town.tif"


def test_calls_are_timed_side_by_side_and_warm() -> None:
    runs: list[float] = []

    def call() -> None:
        runs.append(time.perf_counter())
        time.sleep(0.03 if len(runs) <= 4 else 0.01)

    timing = measure([call, call], seconds=0.1, warm_up=2)
    assert len(runs) > timing.runs >= FEWEST
    assert 0.01 <= timing.p50 <= timing.p90 <= timing.p99
    assert timing.p50 < 0.03, "the slow first runs do not count"
    assert 1.2 / timing.p50 < timing.per_second <= 2.0 / 0.01, "two at a time"


def test_a_mirrored_scene_holds_just_the_planned_tiles(tmp_path: Path) -> None:
    planned = sheet_plan((13, 14, 15), 60)
    with Scene.open(mirrored_scene(TOWN, planned, tmp_path)) as scene:
        again = plan((13, 14, 15), scene.footprints, None, 1, 0)
        for level in planned.levels:
            windows = list(planned.windows(level))
            assert [w.key for w in again.windows(level)] == [w.key for w in windows]
        pictures = [scene.read(15, *window.pixel_box) for window in planned.windows(15)]
    assert all(picture[..., 3].all() for picture in pictures)
    assert min(picture[..., :3].std() for picture in pictures) > 5, "a picture, not a fill"


def test_peers_draw_what_the_runtime_draws(tiny_bundle: Path, tmp_path: Path) -> None:
    """They are other manners, not other models; else their times would say nothing."""
    blocks = np.random.default_rng(0).integers(60, 250, (16, 16, 3), dtype=np.uint8)
    write_blocks(tmp_path, blocks, (13, 14), held_out=GROUND)
    samples = peer_tiles(tmp_path, 2)
    assert {sample.span is None for sample in samples} == {True, False}
    bundle = Bundle.read(tiny_bundle)
    schedule = bundle.manifest.schedule
    ours = BundlePainter(bundle, OnnxRuntimeBackend.cpu(bundle), steps=3)
    expected = ours.paint(samples).astype(int)
    peers = {
        "torch": TorchPeer(tiny_model(), 3, 2, schedule),
        "onnxruntime": PlainGraphs(bundle, plain_onnxruntime, 3, schedule),
        "openvino": PlainGraphs(bundle, plain_openvino, 3, schedule),
    }
    for name, peer in peers.items():
        pictures = peer.draw([runtime_sample(bundle, i, s) for i, s in enumerate(samples)])
        assert np.abs(pictures - expected).max() <= 2, name


def test_a_sheet_in_a_peers_manner_is_the_runtimes(tiny_bundle: Path, tmp_path: Path) -> None:
    planned = sheet_plan((13, 14, 15), 30)
    scene = mirrored_scene(TOWN, planned, tmp_path)
    bundle = Bundle.read(tiny_bundle)
    schedule, steps = bundle.manifest.schedule, bundle.manifest.default_steps
    peer = PlainGraphs(bundle, plain_onnxruntime, steps, schedule)
    made = draw_sheet(peer, bundle, scene, replace(planned, halo=32), tmp_path)
    output = tmp_path / "ours.mbtiles"
    options = InferOptions(scene, "13-15", output, tiny_bundle, "onnxruntime", blend=False)
    run(options, QuietReport())
    theirs = sorted(tmp_path.glob("*.png"))
    assert len(theirs) == made == sum(planned.tile_count(level) for level in planned.levels)
    with closing(sqlite3.connect(output)) as file:
        for path in theirs:
            level, column, row = map(int, path.stem.split("-"))
            (blob,) = file.execute(
                "SELECT tile_data FROM tiles WHERE (zoom_level, tile_column, tile_row) = (?, ?, ?)",
                (level, column, (1 << level) - 1 - row),
            ).fetchone()
            ours = np.asarray(Image.open(io.BytesIO(blob)).convert("RGB")).astype(int)
            assert np.abs(ours - np.asarray(Image.open(path))).max() <= 2, path.name


def test_latency_speaks_of_every_graph_and_batch(tiny_bundle: Path) -> None:
    arguments = ["latency", "--models", str(tiny_bundle), "--backends", "onnxruntime,openvino"]
    arguments += ["--batches", "1,2", "--seconds", "0.01", "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    document = json.loads(done.stdout[done.stdout.index("{") :])
    assert document["machine"]["cores"] >= 1
    rows = document["latency"]
    assert len({(r["backend"], r["graph"], r["batch"]) for r in rows}) == 12
    assert all(0 < row["p50"] <= row["p99"] and row["gflops"] > 0 for row in rows)


def test_the_machine_has_a_peak_in_every_precision() -> None:
    peaks = measure_peaks(seconds=0.01)
    assert set(peaks) == {"fp32", "int8", "bf16"}
    assert all(value > 0 for found in peaks.values() for value in found.values())


@pytest.mark.parametrize("tiles", [120])
def test_a_scaling_run_tells_time_and_memory_part_by_part(tiny_bundle: Path, tiles: int) -> None:
    (row,) = measure_scaling(TOWN, tiny_bundle, [tiles], "onnxruntime", lambda line: None)
    assert sum(part["ms_per_tile"] > 0 for part in row["parts"]) == len(row["parts"]) >= 8
    assert row["parts"][-1]["tiles"] == row["tiles"]
    assert all(part["resident_mb"] > 50 for part in row["parts"])
    assert all(part["processor_ms_per_tile"] > 0 for part in row["parts"])
