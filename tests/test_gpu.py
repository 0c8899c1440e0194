"""What only a GPU can show: `pytest -m gpu` on a machine with an RTX card, about five minutes.

Engines of the shipped model are built for the card at hand, and everything that they draw is
compared with ONNX Runtime on the CPU. Without a card these tests are not run, and were not yet.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiles import pixels_of, tiles_of

from c2gm.export.cases import CheckPlan
from c2gm.export.pack import export_bundle
from c2gm.export.tensorrt import build_engines
from c2gm.model.checkpoint import load_model
from c2gm.model.config import SHIPPED_WEIGHTS
from c2gm.runtime.backends import open_backend
from c2gm.runtime.backends.base import Loop, StepRows
from c2gm.runtime.backends.cuda_device import CudaDevice, check, cuda_runtime, first_device
from c2gm.runtime.backends.cuda_driver import CudaDriver
from c2gm.runtime.backends.host_loop import HostLoop
from c2gm.runtime.backends.onnxruntime import OnnxRuntimeBackend
from c2gm.runtime.backends.tensorrt import TensorRTBackend
from c2gm.runtime.backends.tensorrt_library import load_library
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.contract import GraphName
from c2gm.runtime.engines import find_engines
from c2gm.runtime.errors import BackendError
from c2gm.runtime.infer import run
from c2gm.runtime.job import InferOptions
from c2gm.runtime.manifest import MANIFEST_NAME
from c2gm.runtime.progress import QuietReport

pytestmark = pytest.mark.gpu

SIDE, ROWS, STEPS = 256, 16, 4
MEAN_PIXEL, PSNR_DB = 0.5, 40.0
"""As the exporter's parity accepts between FP16 and torch."""


def device() -> CudaDevice:
    return first_device("or run these tests elsewhere")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped model in FP16 with engines for this card."""
    folder = tmp_path_factory.mktemp("gpu") / "nano.c2gm"
    export_bundle(
        load_model(SHIPPED_WEIGHTS),
        folder,
        "fp16",
        plan=CheckPlan(((1, 256),), steps=STEPS, spread=1, every_step=None),
    )
    build_engines(Bundle.read(folder), "tensorrt-rtx", [device().capability], buckets=(4, ROWS))
    return Bundle.read(folder)


def filled(bundle: Bundle, loop: Loop, rows: int) -> None:
    """Admit a window of noise into every row."""
    rng = np.random.default_rng(1)
    graphs = bundle.manifest.graphs
    specs = {t.name: t for name in ("condition", "denoise") for t in graphs[name].inputs}
    for row in range(rows):
        names = ("imagery", "reference", "latents", "states", "pooled")
        window = {n: rng.standard_normal(specs[n].at(1, SIDE)[1:], np.float32) for n in names}
        loop.admit(row, window | {"has_reference": np.array(row % 2, np.float32)})


def rows_of(bundle: Bundle, rows: int, step: int) -> StepRows:
    schedule = bundle.manifest.schedule
    times, table = schedule.timesteps(STEPS), schedule.ddim_coefficients(STEPS)
    return StepRows(
        np.full(rows, times[step % STEPS]),
        np.tile(table[step % STEPS].astype(np.float32), (rows, 1)),
        np.ones(rows, np.float32),
    )


@pytest.mark.parametrize(("graph", "rows"), [("condition", 1), ("denoise", 4), ("vae_decoder", 1)])
def test_every_output_of_an_engine_is_what_onnx_runtime_computes(
    bundle: Bundle, graph: GraphName, rows: int
) -> None:
    spec = bundle.manifest.graphs[graph]
    rng = np.random.default_rng(2)
    inputs = {t.name: rng.standard_normal(t.at(rows, SIDE)).astype(t.dtype) for t in spec.inputs}
    if graph == "denoise":
        step = rows_of(bundle, rows, 1)
        inputs |= {n: getattr(step, n) for n in ("timestep", "coefficients", "active")}
    expected = OnnxRuntimeBackend.cpu(bundle).load(graph).run(inputs)
    backend = TensorRTBackend(bundle, "tensorrt-rtx")
    engines = find_engines(bundle, backend.machine, 4, SIDE)
    driver = CudaDriver(load_library("tensorrt-rtx"), bundle, engines)
    at = {t.name: driver.allocate(t.bytes(rows, SIDE)) for t in (*spec.inputs, *spec.outputs)}
    prepared = driver.prepare(graph, rows, SIDE, at)
    for name, array in inputs.items():
        staged = driver.pinned(array.shape, array.dtype.name)
        staged[:] = array
        driver.upload(at[name], staged)
    driver.launch(prepared)
    for tensor in spec.outputs:
        found = driver.pinned(tensor.at(rows, SIDE), tensor.dtype)
        driver.download(found, at[tensor.name])
        driver.wait(driver.mark())
        error = np.abs(found.astype(np.float64) - expected[tensor.name])
        if tensor.dtype == "uint8":
            assert error.mean() <= MEAN_PIXEL
        else:
            size = np.sqrt(np.square(expected[tensor.name].astype(np.float64)).mean())
            assert error.mean() <= 5e-3 * size and error.max() <= 5e-2 * size, tensor.name
    driver.close()


@pytest.mark.parametrize("rows", [4, ROWS])
def test_engines_draw_what_the_cpu_draws(bundle: Bundle, rows: int) -> None:
    """Opening the loop also compares captured graphs with plain calls, bit for bit."""
    painted = {}
    cpu, gpu = OnnxRuntimeBackend.cpu(bundle), TensorRTBackend(bundle, "tensorrt-rtx")
    host = HostLoop(bundle.manifest, cpu.load, rows, SIDE)
    for backend, loop in ((cpu, host), (gpu, gpu.open_loops(rows, SIDE)[0])):
        filled(bundle, loop, rows)
        for step in range(STEPS):
            loop.step(rows_of(bundle, rows, step))
        painted[backend.name] = loop.paint(range(rows))
        loop.close()
    (expected, changes), (found, other) = painted.values()
    error = np.stack(found).astype(float) - np.stack(expected)
    assert np.abs(error).mean() <= MEAN_PIXEL
    assert 10 * np.log10(255**2 / np.square(error).mean()) >= PSNR_DB
    np.testing.assert_allclose(other, changes, rtol=0.02)


def test_ten_thousand_steps_take_no_more_memory(bundle: Bundle) -> None:
    (loop,) = TensorRTBackend(bundle, "tensorrt-rtx").open_loops(4, SIDE)
    cuda, free = cuda_runtime(), []
    for turn in range(10_000):
        if turn % STEPS == 0:
            filled(bundle, loop, 4)
        loop.step(rows_of(bundle, 4, turn))
        if turn % STEPS == STEPS - 1:
            loop.paint(range(4))
        if turn in (100, 9_999):
            free.append(check(cuda.cudaMemGetInfo(), "asking for memory")[0])
    loop.close()
    assert free[0] - free[1] <= 1 << 20


def test_more_than_fits_is_refused_in_one_line(bundle: Bundle) -> None:
    cuda = cuda_runtime()
    hog = check(cuda.cudaMalloc(device().free_bytes - (64 << 20)), "taking nearly all memory")
    try:
        with pytest.raises(BackendError, match="smaller --batch or --window"):
            TensorRTBackend(bundle, "tensorrt-rtx").open_loops(ROWS, SIDE)
    finally:
        cuda.cudaFree(hog)


def test_a_map_is_drawn_with_refill_and_early_stop(
    bundle: Bundle, small_scene: Path, tmp_path: Path
) -> None:
    assert open_backend("auto", bundle, 4, SIDE).backend.name == "tensorrt-rtx"
    options = InferOptions(
        small_scene, "13-16", tmp_path / "gpu.mbtiles", bundle.folder, "tensorrt-rtx", batch=4
    )
    whole = run(options, QuietReport())
    again = replace(options, output=tmp_path / "again.mbtiles")
    assert tiles_of(run(again, QuietReport()).output) == tiles_of(whole.output)
    cpu = replace(options, output=tmp_path / "cpu.mbtiles", backend="onnxruntime")
    expected, found = tiles_of(run(cpu, QuietReport()).output), tiles_of(whole.output)
    assert found.keys() == expected.keys()
    errors = [np.abs(pixels_of(found[k]) - pixels_of(expected[k])).mean() for k in expected]
    # A map drawn from a map drawn from a map: errors add up, level by level.
    assert np.mean(errors) <= 2 * MEAN_PIXEL
    early = tmp_path / "early.c2gm"
    shutil.copytree(bundle.folder, early)
    manifest = json.loads((early / MANIFEST_NAME).read_text(encoding="utf-8"))
    manifest["early_stop"] = {"16-4x": {"tolerance": 10.0, "minimum_steps": 2}}
    (early / MANIFEST_NAME).write_text(json.dumps(manifest), encoding="utf-8")
    stopped = run(
        InferOptions(
            small_scene, "13-16", tmp_path / "e.mbtiles", early, "tensorrt-rtx", steps=10, batch=4
        ),
        QuietReport(),
    )
    assert stopped.tiles == whole.tiles and stopped.steps_per_window < 10
