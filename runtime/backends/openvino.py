"""OpenVINO on a CPU: a stream of one core for every window that runs at a time."""

import threading
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2gm.runtime.backends.base import Loop, Tensors
from c2gm.runtime.backends.host_loop import HostLoop
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.contract import GraphName
from c2gm.runtime.cpu import available_cores, has_cpu_flag
from c2gm.runtime.errors import BackendError, BundleError, first_line
from c2gm.runtime.levels import TILE_SIZE

BF16_FLAG = "amx_bf16"
"""Of Linux's /proc/cpuinfo: matrix units that compute bfloat16 several times as fast as float32.
Without them (AVX512-BF16 alone) bfloat16 was slower, 0.65 to 0.75 of float32's speed (measured)."""


class OpenVinoGraph:
    """One graph, compiled for one shape; every thread has a request of its own."""

    def __init__(self, name: GraphName, compiled: Any) -> None:
        self._name, self._compiled = name, compiled
        # A tensor may have several names, and any of them may be the graph's.
        self._inputs = [port.get_names() for port in compiled.inputs]
        self._outputs = [port.get_names() for port in compiled.outputs]
        self._local = threading.local()

    def run(self, inputs: Tensors) -> Tensors:
        """Compute all outputs. Raises BackendError with the library's first line."""
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        feed = {i: inputs[(names & inputs.keys()).pop()] for i, names in enumerate(self._inputs)}
        try:
            results = self._local.request.infer(feed, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise BackendError(
                f"OpenVINO failed in graph {self._name!r} ({first_line(error)}); choose --backend "
                "onnxruntime"
            ) from error
        # Shared: the request overwrites them in its next run, and the loop has copied them by then.
        outputs: dict[str, NDArray[Any]] = {}
        for index, names in enumerate(self._outputs):
            outputs |= dict.fromkeys(names, np.asarray(results[index]))
        return outputs


class OpenVinoBackend:
    """Compiled graphs of one bundle."""

    name = "openvino"

    def __init__(self, bundle: Bundle, precision: str | None = None) -> None:
        """`precision`: f32 or bf16 for what is not of INT8; default: what this CPU is faster in.

        Raises BackendError where the package is missing.
        """
        try:
            import openvino
        except ImportError as error:
            raise BackendError(
                "backend 'openvino' needs the package openvino, which is not installed; run pip "
                "install 'c2gm[openvino]', or choose --backend onnxruntime"
            ) from error
        self._bundle, self._openvino = bundle, openvino
        self._precision = precision or ("bf16" if has_cpu_flag(BF16_FLAG) else "f32")

    def identity(self, windows: int | None) -> str:
        """See `Backend.identity`."""
        return f"{self.name} {self._openvino.__version__} in {self._precision}"

    def check(self, windows: int | None, side: int, painted: int | None = None) -> None:
        """See `Backend.check`: graphs take any window."""

    def open_loops(
        self, windows: int | None, side: int, painted: int | None = None
    ) -> tuple[Loop, ...]:
        """See `Backend.open_loops`."""
        count, wide = min(windows or available_cores(), available_cores()), painted or side

        @cache
        def load(graph: GraphName) -> OpenVinoGraph:
            shape = wide if graph == "vae_decoder" else side
            return self.load(graph, side=shape, streams=count)

        return tuple(HostLoop(self._bundle.manifest, load, 1, side, wide) for _ in range(count))

    def load(
        self, graph: GraphName, rows: int = 1, side: int = TILE_SIZE, streams: int | None = None
    ) -> OpenVinoGraph:
        """Compile a graph for one shape and so many runs at a time, one core each.

        Raises BundleError for a graph that is broken.
        """
        path, core = self._bundle.graph_path(graph), self._openvino.Core()
        inputs = self._bundle.manifest.graphs[graph].inputs
        streams = streams or available_cores()
        options = {
            "INFERENCE_PRECISION_HINT": self._precision,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
        }
        try:
            model = core.read_model(path)
            model.reshape({tensor.name: list(tensor.at(rows, side)) for tensor in inputs})
            return OpenVinoGraph(graph, core.compile_model(model, "CPU", options))
        except RuntimeError as error:
            raise BundleError(
                f"{path} cannot be loaded by OpenVINO ({first_line(error)}); choose --backend "
                "onnxruntime, or export the bundle again"
            ) from error

    def describe(self) -> str:
        """Library, version, device and precision."""
        version = self._openvino.__version__.split("-")[0]
        return f"OpenVINO {version} on CPU, {available_cores()} cores, {self._precision}"
