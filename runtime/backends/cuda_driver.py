"""The `Driver` of a real GPU: cuda-bindings for memory, stream and graphs, TensorRT for engines.

As little bookkeeping as possible here: which call may come when is the business of `DeviceLoop`,
which is proven without a GPU. What is left: the memory that all contexts share, a ring of events,
and what has to be given back.
"""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2gm.runtime.backends.cuda_device import check, cuda_runtime
from c2gm.runtime.backends.tensorrt_library import collecting_logger
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.contract import GraphName
from c2gm.runtime.engines import EngineSet, build_command, engines_folder, read_plan
from c2gm.runtime.errors import BackendError

MARKS = 64
"""Events in the ring of `mark`; far more than marks that anybody still waits for."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An execution context, the memory that it works in, and how to say which one failed."""

    context: Any
    activation_bytes: int
    what: str


class CudaDriver:
    """One stream on the present device; see `Driver`. Raises BackendError everywhere."""

    def __init__(self, library: Any, bundle: Bundle, engines: EngineSet) -> None:
        """`library`: the TensorRT flavour's module, of the version that `engines` are for."""
        self._trt, self._bundle, self._engines = library, bundle, engines
        self._cuda = cuda_runtime()
        cuda = self._cuda
        # Not the default stream, which can't be captured and waits for all others.
        self._stream = check(
            cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking), "creating a stream"
        )
        flags = cuda.cudaEventDisableTiming
        self._events = [
            check(cuda.cudaEventCreateWithFlags(flags), "creating an event") for _ in range(MARKS)
        ]
        self._marks = 0
        self._logger = collecting_logger(library)
        self._runtime = library.Runtime(self._logger)
        self._loaded: dict[GraphName, Any] = {}
        self._prepared: list[_Prepared] = []
        self._device: list[int] = []
        self._host: list[int] = []
        self._graphs: list[Any] = []
        self._has_pool = False

    def allocate(self, size: int) -> int:
        """See `Driver.allocate`; CUDA's addresses are multiples of 256, as TensorRT wants them."""
        code, address = self._cuda.cudaMalloc(size)
        if getattr(code, "name", "") == "cudaErrorMemoryAllocation":
            free, total = check(self._cuda.cudaMemGetInfo(), "asking the GPU for its memory")
            raise BackendError(
                f"the GPU has {free / 1e9:.2f} of {total / 1e9:.2f} GB free, {size / 1e9:.2f} GB "
                "more are needed; close other programs, or choose a smaller --batch or --window"
            )
        address = int(check((code, address), f"allocating {size} bytes"))
        self._device.append(address)
        return address

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """See `Driver.pinned`."""
        size = prod(shape) * np.dtype(dtype).itemsize
        flags = self._cuda.cudaHostAllocDefault
        address = int(check(self._cuda.cudaHostAlloc(size, flags), f"page-locking {size} bytes"))
        self._host.append(address)
        memory = (ctypes.c_uint8 * size).from_address(address)
        array: NDArray[Any] = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
        array[:] = 0
        return array

    def prepare(self, graph: GraphName, rows: int, side: int, at: Mapping[str, int]) -> _Prepared:
        """See `Driver.prepare`: an execution context of its own, on the profile of this shape."""
        spec = self._bundle.manifest.graphs[graph]
        what = f"{graph} for {rows} windows of {side} px"
        engine = self._engine(graph)
        context = self._context(engine)
        if context is None:
            raise BackendError(
                f"TensorRT makes no execution context for {what}{self._logger.reason()}"
            )
        profile = self._engines.build.profiles(graph, spec).index((rows, side))
        self._accept(context.set_optimization_profile_async(profile, int(self._stream)), what)
        for tensor in spec.inputs:
            self._accept(context.set_input_shape(tensor.name, tensor.at(rows, side)), what)
        for name, address in at.items():
            self._accept(context.set_tensor_address(name, address), f"{name} of {what}")
        self._accept(context.all_binding_shapes_specified, f"the shapes of {what}")
        needed = max(
            int(engine.get_device_memory_size_for_profile_v2(profile)),
            int(context.update_device_memory_size_for_shapes()),
        )
        prepared = _Prepared(context, needed, what)
        self._prepared.append(prepared)
        return prepared

    def launch(self, prepared: _Prepared) -> None:
        """See `Driver.launch`."""
        self._share_memory()
        if not prepared.context.execute_async_v3(int(self._stream)):
            raise BackendError(
                f"TensorRT failed in {prepared.what}{self._logger.reason()}; try a smaller --batch"
            )

    def upload(self, target: int, source: NDArray[Any]) -> None:
        """See `Driver.upload`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(target, source.ctypes.data, source.nbytes, kind)

    def download(self, target: NDArray[Any], source: int) -> None:
        """See `Driver.download`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(target.ctypes.data, source, target.nbytes, kind)

    def copy(self, target: int, source: int, size: int) -> None:
        """See `Driver.copy`."""
        self._copy(target, source, size, self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice)

    def clear(self, target: int, size: int) -> None:
        """See `Driver.clear`."""
        check(self._cuda.cudaMemsetAsync(target, 0, size, self._stream), "clearing memory")

    def capture(self, work: Callable[[], None]) -> Any:
        """See `Driver.capture`."""
        cuda = self._cuda
        self._share_memory()
        self.wait(self.mark())
        for prepared in self._prepared:
            capturable = getattr(prepared.context, "is_stream_capturable", None)
            if capturable is not None and not capturable(int(self._stream)):
                raise BackendError(
                    f"TensorRT says that {prepared.what} cannot be captured in a CUDA graph; "
                    f"{self._remedy()}"
                )
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(cuda.cudaStreamBeginCapture(self._stream, mode), "beginning to capture")
        try:
            work()
        finally:
            ended = cuda.cudaStreamEndCapture(self._stream)
        graph = check(ended, "capturing a CUDA graph")
        ready = check(cuda.cudaGraphInstantiate(graph, 0), "making a CUDA graph")
        self._graphs += [(cuda.cudaGraphExecDestroy, ready), (cuda.cudaGraphDestroy, graph)]
        return ready

    def replay(self, captured: Any) -> None:
        """See `Driver.replay`."""
        check(self._cuda.cudaGraphLaunch(captured, self._stream), "launching a CUDA graph")

    def mark(self) -> int:
        """See `Driver.mark`. Events are used in turn, so that a run of days needs no more of them.

        Waiting for a mark whose event has been used again waits for the later one: longer, and
        right all the same.
        """
        event = self._events[self._marks % MARKS]
        check(self._cuda.cudaEventRecord(event, self._stream), "recording an event")
        self._marks += 1
        return self._marks - 1

    def wait(self, mark: int) -> None:
        """See `Driver.wait`; errors of the device's earlier work show here."""
        check(self._cuda.cudaEventSynchronize(self._events[mark % MARKS]), "computing on the GPU")

    def close(self) -> None:
        """See `Driver.close`: graphs before contexts, contexts before engines and memory."""
        cuda = self._cuda
        cuda.cudaStreamSynchronize(self._stream)
        for destroy, handle in self._graphs:
            destroy(handle)
        self._graphs, self._prepared = [], []
        self._loaded.clear()
        for address in self._device:
            cuda.cudaFree(address)
        for address in self._host:
            cuda.cudaFreeHost(address)
        for event in self._events:
            cuda.cudaEventDestroy(event)
        cuda.cudaStreamDestroy(self._stream)
        self._device, self._host, self._events = [], [], []

    def _context(self, engine: Any) -> Any:
        """An execution context whose memory comes from us, with all kernels ready.

        TensorRT-RTX compiles kernels on the GPU, by default while others stand in for them: a
        captured graph would keep the stand-ins.
        """
        trt = self._trt
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        eager = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
        if eager is None:
            return engine.create_execution_context(strategy)
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        config.dynamic_shapes_kernel_specialization_strategy = eager.EAGER
        return engine.create_execution_context(config)

    def _engine(self, graph: GraphName) -> Any:
        if graph not in self._loaded:
            plan = read_plan(self._bundle, self._engines, graph)
            engine = self._runtime.deserialize_cuda_engine(plan)
            if engine is None:
                raise BackendError(
                    f"TensorRT cannot load the engine of {graph}{self._logger.reason()}; "
                    f"{self._remedy()}"
                )
            self._loaded[graph] = engine
        return self._loaded[graph]

    def _share_memory(self) -> None:
        """One piece of memory for all contexts' activations: in one stream they never overlap."""
        if self._has_pool:
            return
        # An address is needed even where nothing is.
        size = max(256, *(prepared.activation_bytes for prepared in self._prepared))
        pool = self.allocate(size)
        for prepared in self._prepared:
            prepared.context.set_device_memory(pool, size)
            # It returns nothing, also where it refuses.
            self._accept(not self._logger.errors, f"memory for {prepared.what}")
        self._has_pool = True

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        check(
            self._cuda.cudaMemcpyAsync(target, source, size, kind, self._stream), "copying memory"
        )

    def _accept(self, worked: bool, what: str) -> None:
        if not worked:
            raise BackendError(f"TensorRT refuses {what}{self._logger.reason()}; {self._remedy()}")

    def _remedy(self) -> str:
        command = build_command(self._bundle, self._engines.build)
        folder = engines_folder(self._bundle.folder, self._engines.key)
        return f"close other programs, or delete {folder} and build it again with: {command}"
