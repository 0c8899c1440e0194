"""ONNX Runtime: on the CPU, and on a CUDA device where `onnxruntime-gpu` is installed."""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from c2gm.runtime.backends.base import Graph, Loop, Tensors
from c2gm.runtime.backends.host_loop import HostLoop
from c2gm.runtime.batching import gpu_rows
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.contract import GRAPHS, GraphName, GraphSpec
from c2gm.runtime.cpu import available_cores
from c2gm.runtime.errors import BackendError, BundleError, first_line

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
}


def has_cuda_provider() -> bool:
    """Whether the installed ONNX Runtime is one for CUDA; says nothing of a card."""
    return _CUDA in ort.get_available_providers()


class OnnxRuntimeGraph:
    """One graph in an inference session."""

    def __init__(self, name: GraphName, session: ort.InferenceSession) -> None:
        self._name = name
        self._session = session
        self._inputs = [value.name for value in session.get_inputs()]
        self._outputs = [value.name for value in session.get_outputs()]

    def run(self, inputs: Tensors) -> Tensors:
        """Compute all outputs. Raises BackendError with the library's first line."""
        feed = {name: inputs[name] for name in self._inputs}
        try:
            results: list[NDArray[Any]] = self._session.run(self._outputs, feed)
        except Exception as error:  # the library's exceptions share no base class of their own
            shapes = ", ".join(f"{name} {array.shape}" for name, array in feed.items())
            raise BackendError(
                f"ONNX Runtime failed in graph {self._name!r} ({first_line(error)}) with {shapes};"
                " try a smaller --batch or --window"
            ) from error
        return dict(zip(self._outputs, results, strict=True))


class OnnxRuntimeBackend:
    """Sessions of one bundle, deterministic; on a CPU every run of a graph keeps to one core."""

    def __init__(self, bundle: Bundle, name: str, provider: str) -> None:
        self.name = name
        self._bundle = bundle
        self._provider = provider

    @classmethod
    def cpu(cls, bundle: Bundle) -> "OnnxRuntimeBackend":
        """On the CPU."""
        return cls(bundle, "onnxruntime", _CPU)

    @classmethod
    def cuda(cls, bundle: Bundle) -> "OnnxRuntimeBackend":
        """On the first CUDA device. Raises BackendError where the provider is not installed."""
        if not has_cuda_provider():
            clash = ", since it overwrites onnxruntime-gpu in their common folder"
            raise BackendError(
                f"onnxruntime {ort.__version__} is without CUDA"
                f"{clash if _gpu_package_installed() else ''}; backend 'cuda' needs "
                "onnxruntime-gpu: run `pip uninstall -y onnxruntime onnxruntime-gpu` and then "
                "`pip install onnxruntime-gpu`, or choose --backend onnxruntime"
            )
        return cls(bundle, "cuda", _CUDA)

    def identity(self, windows: int | None) -> str:
        """See `Backend.identity`: on a CPU a window's bits do not depend on those beside it."""
        return self.name if self._provider == _CPU else f"{self.name}, {gpu_rows(windows)} rows"

    def check(self, windows: int | None, side: int, painted: int | None = None) -> None:
        """See `Backend.check`: graphs take any batch and window, but is there really a device?

        That the provider is compiled in says nothing; it shows when a session opens.
        """
        if self._provider == _CUDA:
            graphs = self._bundle.manifest.graphs
            self.load(min(GRAPHS, key=lambda name: sum(f.bytes for f in graphs[name].files)))

    def open_loops(
        self, windows: int | None, side: int, painted: int | None = None
    ) -> tuple[Loop, ...]:
        """See `Backend.open_loops`."""
        load, manifest = cache(self.load), self._bundle.manifest
        if self._provider == _CUDA:
            return (HostLoop(manifest, load, gpu_rows(windows), side),)
        count = min(windows or available_cores(), available_cores())
        return tuple(HostLoop(manifest, load, 1, side) for _ in range(count))

    def load(self, graph: GraphName) -> Graph:
        """Open a session for a graph and compare its interface with the manifest.

        Raises BundleError for a graph that is broken or not what the manifest says, BackendError
        where the library puts it on another device than the one asked for.
        """
        path = self._bundle.graph_path(graph)
        try:
            session = ort.InferenceSession(path, self._options(), providers=[self._provider])
        except Exception as error:  # the library's exceptions share no base class of their own
            raise BundleError(
                f"{path} cannot be loaded ({first_line(error)}); export the bundle again"
            ) from error
        if self._provider not in session.get_providers():
            raise BackendError(
                f"backend {self.name!r}: ONNX Runtime fell back to "
                f"{', '.join(session.get_providers())}; check driver and CUDA libraries, or choose "
                "--backend onnxruntime"
            )
        _check_interface(path, session, self._bundle.manifest.graphs[graph])
        return OnnxRuntimeGraph(graph, session)

    def describe(self) -> str:
        """Library, version and device."""
        device = "CUDA" if self._provider == _CUDA else f"CPU, {available_cores()} cores"
        return f"ONNX Runtime {ort.__version__} on {device}"

    def _options(self) -> ort.SessionOptions:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.use_deterministic_compute = True
        options.log_severity_level = 4
        return options


def _gpu_package_installed() -> bool:
    try:
        distribution("onnxruntime-gpu")
    except PackageNotFoundError:
        return False
    return True


def _check_interface(path: Path, session: ort.InferenceSession, spec: GraphSpec) -> None:
    """Names, types and fixed dimensions of a graph against the manifest."""
    for what, found, expected in (
        ("inputs", session.get_inputs(), spec.inputs),
        ("outputs", session.get_outputs(), spec.outputs),
    ):
        has = sorted((v.name, _DTYPES.get(v.type, v.type), _fixed(v.shape)) for v in found)
        says = sorted((t.name, t.dtype, _fixed(t.shape)) for t in expected)
        if has != says:
            only = sorted(set(map(str, has)) ^ set(map(str, says)))
            raise BundleError(
                f"{path}: the {what} are not what the manifest says (only in one of them: "
                f"{', '.join(only)}); export the bundle again"
            )


def _fixed(shape: Sequence[int | str | None]) -> tuple[int | None, ...]:
    """A shape with None for every dimension that is free."""
    return tuple(size if isinstance(size, int) else None for size in shape)
