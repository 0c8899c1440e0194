"""The GPU's loop without a GPU: under CUDA's rules it draws what the CPU's loop draws.

If these fail, a GPU would read memory that is not written yet, or keep an old address in a graph.
"""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from numpy.typing import NDArray
from recording_driver import RecordingDriver
from tiles import pixels_of, tiles_of

from c2gm.runtime.backends import BACKENDS
from c2gm.runtime.backends.base import Loop, StepRows
from c2gm.runtime.backends.device_loop import DeviceLoop
from c2gm.runtime.backends.host_loop import HostLoop
from c2gm.runtime.backends.onnxruntime import OnnxRuntimeBackend
from c2gm.runtime.batching import gpu_rows
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.errors import BackendError
from c2gm.runtime.infer import run
from c2gm.runtime.job import InferOptions
from c2gm.runtime.progress import QuietReport

SIDE, STEPS = 64, 4
ROWS = (1, 2, 4)


def window(bundle: Bundle, seed: int) -> dict[str, NDArray[np.float32]]:
    """One of all windows: noise that a seed stands for."""
    rng = np.random.default_rng(seed)
    inputs = {t.name: t for g in ("condition", "denoise") for t in bundle.manifest.graphs[g].inputs}
    names = ("imagery", "reference", "latents", "states", "pooled")
    values = {n: rng.standard_normal(inputs[n].at(1, SIDE)[1:], np.float32) for n in names}
    return values | {"has_reference": np.array(seed % 2, np.float32)}


class Machine(RuleBasedStateMachine):
    """Admits, steps and paints at random, on both loops; the device dawdles at random."""

    bundle: Bundle

    @initialize(
        rows=st.sampled_from(ROWS),
        haste=st.just([0]) | st.lists(st.integers(0, 6), min_size=1, max_size=7),
        lag=st.integers(0, 3),
    )
    def start(self, rows: int, haste: list[int], lag: int) -> None:
        host = OnnxRuntimeBackend.cpu(self.bundle)
        self.turn = 0

        def how_much() -> int:
            self.turn += 1
            return haste[self.turn % len(haste)]

        manifest = self.bundle.manifest
        self.driver = RecordingDriver(manifest, host.load, how_much)
        self.device = DeviceLoop(manifest, self.driver, rows, SIDE, lag=lag)
        self.host = HostLoop(manifest, host.load, rows, SIDE)
        self.done: list[int | None] = [None] * rows
        self.changes: list[NDArray[np.float32]] = []
        assert [rows for _, rows in self.driver.captured] == [rows, 1, 1], "largest first"
        self.plain = self.driver.launches["plain"]

    @rule(data=st.data(), seeds=st.lists(st.integers(0, 9), min_size=1, max_size=max(ROWS)))
    def admit(self, data: st.DataObject, seeds: list[int]) -> None:
        for seed in seeds:
            row = data.draw(st.integers(0, len(self.done) - 1))
            for loop in (self.host, self.device):
                loop.admit(row, window(self.bundle, seed))
            self.done[row] = 0

    @precondition(lambda self: any(done is not None for done in self.done))
    @rule()
    def step(self) -> None:
        schedule = self.bundle.manifest.schedule
        table, times = schedule.ddim_coefficients(STEPS), schedule.timesteps(STEPS)
        steps = [0 if done is None else min(done, STEPS - 1) for done in self.done]
        active = np.array([d is not None and d < STEPS for d in self.done], np.float32)
        rows = StepRows(times[steps].astype(np.int64), table[steps].astype(np.float32), active)
        before = self.driver.waits
        found = self.device.step(rows)
        assert self.driver.waits - before <= 1, "waits within a step"
        self.done = [
            None if d is None else d + int(a) for d, a in zip(self.done, active, strict=True)
        ]
        now = self.host.step(rows)
        assert now is not None
        self.changes.append(now.copy())
        if len(self.changes) <= self.device.lag:
            assert found is None
            return
        known = np.array([d is not None for d in self.done])
        assert found is not None
        if known.all():
            np.testing.assert_array_equal(found, self.changes[-1 - self.device.lag])

    @precondition(lambda self: self.changes)
    @rule(data=st.data())
    def paint(self, data: st.DataObject) -> None:
        used = [row for row, done in enumerate(self.done) if done is not None]
        rows = data.draw(st.lists(st.sampled_from(used), min_size=1, unique=True))
        for one, other in zip(self.device.paint(rows), self.host.paint(rows), strict=True):
            np.testing.assert_array_equal(one, other)

    def teardown(self) -> None:
        if hasattr(self, "driver"):
            assert self.driver.launches["plain"] == self.plain, "computed outside a graph"


def test_it_draws_what_the_cpu_draws_whatever_the_device_is_doing(tiny_bundle: Path) -> None:
    Machine.bundle = Bundle.read(tiny_bundle)
    checked = settings(
        max_examples=20,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    Machine.TestCase.settings = checked
    Machine.TestCase().runTest()


class Dawdling:
    """A backend whose device does nothing until it must."""

    name = "dawdling"

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, self._host = bundle, OnnxRuntimeBackend.cpu(bundle)

    def identity(self, windows: int | None) -> str:
        return self.name

    def check(self, windows: int | None, side: int, painted: int | None = None) -> None:
        pass

    def open_loops(
        self, windows: int | None, side: int, painted: int | None = None
    ) -> tuple[Loop, ...]:
        manifest = self._bundle.manifest
        driver = RecordingDriver(manifest, self._host.load)
        return (DeviceLoop(manifest, driver, gpu_rows(windows), side, painted),)

    def describe(self) -> str:
        return "a device that dawdles"


def test_a_whole_map_comes_out_the_same(
    tiny_bundle: Path, small_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "dawdling", Dawdling)
    tiles = {}
    for backend in ("onnxruntime", "dawdling"):
        output = tmp_path / f"{backend}.mbtiles"
        options = InferOptions(small_scene, "13-15", output, tiny_bundle, backend, steps=3, batch=4)
        run(options, QuietReport())
        tiles[backend] = tiles_of(output)
    expected = tiles["onnxruntime"]
    assert len(expected) > 4 and tiles["dawdling"].keys() == expected.keys()
    for key, data in tiles["dawdling"].items():  # four rows at once there, one by one here
        assert np.abs(pixels_of(data) - pixels_of(expected[key])).max() <= 1


def test_graphs_that_compute_something_else_are_refused(tiny_bundle: Path) -> None:
    bundle = Bundle.read(tiny_bundle)

    class Forgetful(RecordingDriver):
        """Loses the last operation of every graph."""

        def replay(self, captured: object) -> None:
            super().replay(cast(list, captured)[:-1])

    driver = Forgetful(bundle.manifest, OnnxRuntimeBackend.cpu(bundle).load)
    with pytest.raises(BackendError, match="captured graphs compute something else"):
        DeviceLoop(bundle.manifest, driver, 2, SIDE)
