"""A `Loop` on a GPU: allocated, bound and captured once, then only replayed.

What the loop needs of a device stands in `Driver`, so that its bookkeeping is proven without a GPU
(by a driver that enforces CUDA's rules), and a real driver has no bookkeeping to get wrong. The
rules: all work goes into one stream; page-locked memory is not touched before the device has done
with it; nothing is allocated or bound once a graph is captured, since a graph keeps addresses; the
host waits for a step only `lag` steps later, and else only for pictures when windows are finished.

Conditions and decoder run one window at a time, and the denoiser always at the same batch size: so
a window's arithmetic does not depend on its neighbours, and a run that was stopped and goes on with
other neighbours makes the same tiles.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from c2gm.runtime.backends.base import (
    STEP_INPUTS,
    WINDOW_INPUTS,
    StepRows,
    Tensors,
    cut_picture,
    extend,
)
from c2gm.runtime.contract import GraphName, Manifest, TensorSpec
from c2gm.runtime.errors import BackendError
from c2gm.runtime.pixels import Picture

LAG = 2
"""Steps after which changes are read, so that the device need not wait for the host's answer."""

ADMISSIONS = 2
"""Windows whose pictures may be on their way to the device at once."""


Shapes = tuple[tuple[GraphName, int, int], ...]
"""Graphs, each with its batch size and the side of its windows in pixels."""


def loop_graphs(rows: int, side: int, painted: int | None = None) -> Shapes:
    """What a loop of so many rows runs, the largest first; `painted`: side of what is decoded."""
    return ("denoise", rows, side), ("condition", 1, side), ("vae_decoder", 1, painted or side)


class Driver(Protocol):
    """A device with one stream. Calls return before their work is done, except for `wait`.

    Addresses are whole numbers that may be added to. Every method raises BackendError.
    """

    def allocate(self, size: int) -> int:
        """Memory of `size` bytes on the device; returns its address."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """A zeroed page-locked array on the host, for `upload` and `download`."""
        ...

    def prepare(self, graph: GraphName, rows: int, side: int, at: Mapping[str, int]) -> Any:
        """A graph for windows of one shape, its inputs and outputs bound to addresses."""
        ...

    def launch(self, prepared: Any) -> None:
        """Compute what `prepare` has bound."""
        ...

    def upload(self, target: int, source: NDArray[Any]) -> None:
        """Copy a page-locked array to the device."""
        ...

    def download(self, target: NDArray[Any], source: int) -> None:
        """Copy from the device into a page-locked array."""
        ...

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy within the device."""
        ...

    def clear(self, target: int, size: int) -> None:
        """Set bytes on the device to zero."""
        ...

    def capture(self, work: Callable[[], None]) -> Any:
        """Record what `work` would have the device do, without doing it."""
        ...

    def replay(self, captured: Any) -> None:
        """Do what was recorded."""
        ...

    def mark(self) -> Any:
        """A point in the stream, after all that was asked for until now."""
        ...

    def wait(self, mark: Any) -> None:
        """Return once the device has come to a mark."""
        ...

    def close(self) -> None:
        """Give everything back, in the order that the device wants."""
        ...


class _Block:
    """A tensor on the device: its address, and how many bytes a row of it has."""

    def __init__(self, driver: Driver, spec: TensorSpec, rows: int, side: int) -> None:
        self.row_bytes, self.bytes = spec.bytes(1, side), spec.bytes(rows, side)
        self.address = driver.allocate(self.bytes)

    def row(self, index: int) -> int:
        """Address of a row."""
        return self.address + index * self.row_bytes


class _Stage:
    """Page-locked arrays that are filled again and again; `mark` says when they may be."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = arrays
        self.mark: Any = None


class DeviceLoop:
    """See `Loop`; three captured graphs: a step of all rows, one condition, one decoding."""

    def __init__(
        self,
        manifest: Manifest,
        driver: Driver,
        rows: int,
        side: int,
        painted: int | None = None,
        lag: int = LAG,
    ) -> None:
        """Allocate, bind, warm up, capture, and compare the captured path with the plain one.

        Raises BackendError where the device has too little memory, fails, or computes something
        else in its captured graphs.
        """
        self.rows, self.lag = rows, lag
        self._driver, self._count, self._side = driver, 0, side
        shapes = loop_graphs(rows, side, painted)
        graphs = manifest.graphs
        self._rows = rows
        # The batch first: what takes most memory fails first.
        self._blocks = {
            name: {spec.name: _Block(driver, spec, n, wide) for spec in graphs[name].tensors}
            for name, n, wide in shapes
        }
        self._batch, self._window = self._blocks["denoise"], self._blocks["condition"]
        self._picture = self._blocks["vae_decoder"]
        self._features = tuple(spec.name for spec in graphs["condition"].outputs)
        self._conditions = tuple(spec.name for spec in graphs["condition"].inputs)
        self._steps = [self._step_stage(manifest) for _ in range(lag + 1)]
        self._admissions = [self._admission_stage(manifest) for _ in range(ADMISSIONS)]
        self._admitted = 0
        (image,), (latents,) = graphs["vae_decoder"].outputs, graphs["vae_decoder"].inputs
        wide = painted or side
        self._images = driver.pinned(image.at(rows if wide == side else 1, wide), image.dtype)
        self._latents = driver.pinned(latents.at(1, wide), latents.dtype)
        self._x0 = driver.pinned(latents.at(1, side), latents.dtype)
        self._prepared = {
            name: driver.prepare(
                name, n, wide, {tensor: b.address for tensor, b in self._blocks[name].items()}
            )
            for name, n, wide in shapes
        }
        self._captured: dict[GraphName, Any] = {}
        self._start(manifest)

    def _step_stage(self, manifest: Manifest) -> _Stage:
        graph = manifest.graphs["denoise"]
        return _Stage(
            {
                spec.name: self._driver.pinned(spec.at(self._rows, self._side), spec.dtype)
                for spec in graph.tensors
                if spec.name in (*STEP_INPUTS, "change")
            }
        )

    def _admission_stage(self, manifest: Manifest) -> _Stage:
        own = [s for s in manifest.graphs["denoise"].inputs if s.name in WINDOW_INPUTS]
        specs = (*manifest.graphs["condition"].inputs, *own)
        return _Stage({s.name: self._driver.pinned(s.at(1, self._side), s.dtype) for s in specs})

    def _work(self, graph: GraphName) -> None:
        """What a captured graph consists of."""
        self._driver.launch(self._prepared[graph])
        if graph == "denoise":
            for target, source in (("latents", "next_latents"), ("previous_x0", "x0")):
                block = self._batch[target]
                self._driver.copy(block.address, self._batch[source].address, block.bytes)

    def _run(self, graph: GraphName) -> None:
        if graph in self._captured:
            self._driver.replay(self._captured[graph])
        else:
            self._work(graph)

    def _start(self, manifest: Manifest) -> None:
        """Warm up by a trial, capture, and try again: both must give the same."""
        plain = self._trial(manifest)
        for graph in self._blocks:
            self._captured[graph] = self._driver.capture(partial(self._work, graph))
        if not np.array_equal(plain, self._trial(manifest)):
            raise BackendError(
                "the GPU's captured graphs compute something else than its plain calls; update the "
                "driver, or choose --backend onnxruntime"
            )
        self._count = 0

    def _trial(self, manifest: Manifest) -> NDArray[np.uint8]:
        """Admit noise as a window, step once, decode noise: the bytes of all that comes out."""
        for blocks in self._blocks.values():
            for block in blocks.values():
                # What an earlier trial has left must not pass for this one's.
                self._driver.clear(block.address, block.bytes)
        generator = np.random.default_rng(0)
        stage = self._admissions[0].arrays
        window = {
            name: generator.standard_normal(array.shape[1:], np.float32).clip(-1, 1)
            for name, array in stage.items()
        }
        window["has_reference"] = np.ones((), np.float32)
        last = manifest.schedule.train_timesteps - 1
        coefficients = manifest.schedule.ddim_coefficients(1).astype(np.float32)
        for row in range(self._rows):
            self.admit(row, window)
        self.step(
            StepRows(
                timestep=np.full(self._rows, last),
                coefficients=np.repeat(coefficients, self._rows, axis=0),
                active=np.ones(self._rows, np.float32),
            )
        )
        x0, change = self.take(self._rows - 1)
        noise = generator.standard_normal(self._latents.shape[1:], np.float32)
        found = (self.decode(noise), x0, np.atleast_1d(change))
        return np.concatenate([np.ascontiguousarray(part).view(np.uint8).ravel() for part in found])

    def admit(self, row: int, window: Tensors) -> None:
        """See `Loop.admit`."""
        driver, stage = self._driver, self._admissions[self._admitted % ADMISSIONS]
        self._admitted += 1
        if stage.mark is not None:
            driver.wait(stage.mark)
        for name, array in stage.arrays.items():
            array[0] = window[name]
        for name in self._conditions:
            driver.upload(self._window[name].address, stage.arrays[name])
        self._run("condition")
        for name in self._features:
            block = self._batch[name]
            driver.copy(block.row(row), self._window[name].address, block.row_bytes)
        for name in WINDOW_INPUTS:
            driver.upload(self._batch[name].row(row), stage.arrays[name])
        driver.clear(self._batch["previous_x0"].row(row), self._batch["previous_x0"].row_bytes)
        stage.mark = driver.mark()

    def step(self, rows: StepRows) -> NDArray[np.float32] | None:
        """See `Loop.step`."""
        driver, stage = self._driver, self._steps[self._count % len(self._steps)]
        # Its last use was `lag` + 1 steps ago, which the host has waited for when it read changes.
        for name in STEP_INPUTS:
            stage.arrays[name][:] = getattr(rows, name)
            driver.upload(self._batch[name].address, stage.arrays[name])
        self._run("denoise")
        driver.download(stage.arrays["change"], self._batch["change"].address)
        stage.mark = driver.mark()
        self._count += 1
        if self._count <= self.lag:
            return None
        read = self._steps[(self._count - 1 - self.lag) % len(self._steps)]
        driver.wait(read.mark)
        return read.arrays["change"].copy()

    def paint(self, rows: Sequence[int]) -> tuple[list[Picture], NDArray[np.float32]]:
        """See `Loop.paint`."""
        driver, latents = self._driver, self._picture["latents"]
        for place, row in enumerate(rows):
            driver.copy(latents.address, self._batch["previous_x0"].row(row), latents.row_bytes)
            self._run("vae_decoder")
            driver.download(self._images[place : place + 1], self._picture["image"].address)
        driver.wait(driver.mark())
        pictures = [
            np.ascontiguousarray(self._images[place].transpose(1, 2, 0))
            for place in range(len(rows))
        ]
        return pictures, self._latest_change()[list(rows)]

    def take(self, row: int) -> tuple[NDArray[np.float32], np.float32]:
        """See `Loop.take`."""
        self._driver.download(self._x0, self._batch["previous_x0"].row(row))
        self._driver.wait(self._driver.mark())
        return self._x0[0].copy(), self._latest_change()[row]

    def decode(self, latents: NDArray[np.float32]) -> Picture:
        """See `Loop.decode`."""
        driver = self._driver
        self._latents[0] = extend(latents, self._latents.shape[-1])
        driver.upload(self._picture["latents"].address, self._latents)
        self._run("vae_decoder")
        driver.download(self._images[:1], self._picture["image"].address)
        driver.wait(driver.mark())
        return cut_picture(self._images[0], latents)

    def _latest_change(self) -> NDArray[np.float32]:
        """Of the latest step, which the host has waited for."""
        change: NDArray[np.float32]
        change = self._steps[(self._count - 1) % len(self._steps)].arrays["change"]
        return change

    def close(self) -> None:
        """See `Loop.close`."""
        self._captured, self._prepared = {}, {}
        self._driver.close()
