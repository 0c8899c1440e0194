"""A driver without a GPU: it enforces CUDA's rules, and computes with ONNX Runtime when it must.

Asked-for work waits in one queue. `haste` says how much of it is done after every call: with none,
everything happens as late as it may, so that whatever reads or overwrites memory too early sees it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2gm.runtime.backends.base import Graph
from c2gm.runtime.contract import GraphName, Manifest

_SPACING = 1 << 40
"""Between two allocations: an address says whose it is."""


@dataclass(frozen=True)
class Prepared:
    """A graph bound to addresses for one shape."""

    graph: GraphName
    rows: int
    side: int
    at: Mapping[str, int]


class RecordingDriver:
    """See `c2gm.runtime.backends.device_loop.Driver`; any broken rule is an AssertionError."""

    def __init__(
        self,
        manifest: Manifest,
        load: Callable[[GraphName], Graph],
        haste: Callable[[], int] = lambda: 0,
    ) -> None:
        self._manifest, self._haste = manifest, haste
        self._graphs = {name: load(name) for name in ("condition", "denoise", "vae_decoder")}
        self._memory: list[NDArray[np.uint8]] = []
        self._pinned: list[NDArray[Any]] = []
        self._queue: list[Callable[[], None]] = []
        self._done = self._asked = 0
        self._recording: list[Callable[[], None]] | None = None
        self._warm: set[GraphName] = set()
        self.captured: list[tuple[GraphName, int]] = []
        self.launches = {"plain": 0, "replayed": 0}
        self.waits = 0
        self.closed = False

    def allocate(self, size: int) -> int:
        self._may_change()
        assert size > 0
        # Garbage, not zeros: what nobody wrote must not be read.
        self._memory.append(np.full(size, 0xA5, np.uint8))
        return len(self._memory) * _SPACING

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        self._may_change()
        self._pinned.append(np.zeros(shape, dtype))
        return self._pinned[-1]

    def prepare(self, graph: GraphName, rows: int, side: int, at: Mapping[str, int]) -> Prepared:
        self._may_change()
        spec = self._manifest.graphs[graph]
        assert set(at) == {tensor.name for tensor in spec.tensors}
        return Prepared(graph, rows, side, dict(at))

    def launch(self, prepared: Prepared) -> None:
        assert self._recording is None or prepared.graph in self._warm, "captured before warm-up"
        if self._recording is None:
            self._warm.add(prepared.graph)
            self.launches["plain"] += 1
        else:
            self.captured.append((prepared.graph, prepared.rows))
        self._ask(lambda: self._compute(prepared))

    def upload(self, target: int, source: NDArray[Any]) -> None:
        self._is_pinned(source)
        view = self._bytes(target, source.nbytes)
        self._ask(lambda: view.__setitem__(slice(None), source.reshape(-1).view(np.uint8)))

    def download(self, target: NDArray[Any], source: int) -> None:
        self._is_pinned(target)
        view = self._bytes(source, target.nbytes)
        self._ask(lambda: target.reshape(-1).view(np.uint8).__setitem__(slice(None), view))

    def copy(self, target: int, source: int, size: int) -> None:
        to, view = self._bytes(target, size), self._bytes(source, size)
        self._ask(lambda: to.__setitem__(slice(None), view))

    def clear(self, target: int, size: int) -> None:
        view = self._bytes(target, size)
        self._ask(lambda: view.fill(0))

    def capture(self, work: Callable[[], None]) -> list[Callable[[], None]]:
        assert self._recording is None, "captures do not nest"
        self._recording = []
        work()
        recorded, self._recording = self._recording, None
        return recorded

    def replay(self, captured: list[Callable[[], None]]) -> None:
        assert self._recording is None
        self.launches["replayed"] += 1
        for operation in captured:
            self._ask(operation)

    def mark(self) -> int:
        assert self._recording is None
        return self._asked

    def wait(self, mark: int) -> None:
        assert self._recording is None, "no waiting while a graph is captured"
        self.waits += 1
        self._work(mark - self._done)

    def close(self) -> None:
        self.closed = True

    @property
    def pending(self) -> int:
        """Operations that were asked for and are not done."""
        return len(self._queue)

    def _ask(self, operation: Callable[[], None]) -> None:
        assert not self.closed
        if self._recording is not None:
            self._recording.append(operation)
            return
        self._queue.append(operation)
        self._asked += 1
        self._work(self._haste())

    def _work(self, count: int) -> None:
        for _ in range(min(count, len(self._queue))):
            self._queue.pop(0)()
            self._done += 1

    def _may_change(self) -> None:
        assert not self.captured and self._recording is None, "memory and bindings are fixed now"

    def _is_pinned(self, array: NDArray[Any]) -> None:
        assert any(np.shares_memory(array, own) for own in self._pinned), "pageable memory"
        assert array.flags.c_contiguous

    def _bytes(self, address: int, size: int) -> NDArray[np.uint8]:
        block, offset = address // _SPACING - 1, address % _SPACING
        view = self._memory[block][offset : offset + size]
        assert view.size == size, "beyond what was allocated"
        return view

    def _compute(self, prepared: Prepared) -> None:
        spec = self._manifest.graphs[prepared.graph]
        inputs = {}
        for tensor in spec.inputs:
            shape = tensor.at(prepared.rows, prepared.side)
            size = tensor.bytes(prepared.rows, prepared.side)
            raw = self._bytes(prepared.at[tensor.name], size)
            inputs[tensor.name] = raw.view(tensor.dtype).reshape(shape).copy()
        for name, value in self._graphs[prepared.graph].run(inputs).items():
            raw = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
            self._bytes(prepared.at[name], raw.size)[:] = raw
