"""TensorRT and TensorRT-RTX: a bundle's engines on the first GPU, in captured CUDA graphs."""

from c2gm.runtime.backends.base import Loop
from c2gm.runtime.backends.cuda_device import CudaDevice, first_device
from c2gm.runtime.backends.cuda_driver import CudaDriver
from c2gm.runtime.backends.device_loop import DeviceLoop, Shapes, loop_graphs
from c2gm.runtime.backends.tensorrt_library import load_library
from c2gm.runtime.batching import gpu_rows
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.engines import EngineSet, Flavour, Machine, find_engines, this_platform
from c2gm.runtime.errors import BackendError

HEADROOM_BYTES = 300 << 20
"""Of device memory for the CUDA context and TensorRT itself, beyond what can be counted."""


class TensorRTBackend:
    """Engines of one bundle on one GPU; see `Backend`."""

    def __init__(self, bundle: Bundle, flavour: Flavour) -> None:
        """Ask for library and GPU; the engines are looked for when the shape is known.

        `machine` is then what engines must fit.

        Raises BackendError, before anything that would crash, where one of them is missing.
        """
        self.name = flavour
        self._bundle = bundle
        self._library = load_library(flavour)
        self._device = first_device("or choose --backend onnxruntime")
        self.machine = Machine(
            flavour, str(self._library.__version__), this_platform(), self._device.capability
        )

    def identity(self, windows: int | None) -> str:
        """See `Backend.identity`: plans differ by library and GPU, kernels by rows."""
        rows = gpu_rows(windows)
        return f"{self.name} {self.machine.version} for {self.machine.capability}, {rows} rows"

    def check(self, windows: int | None, side: int, painted: int | None = None) -> None:
        """See `Backend.check`: there are engines that fit, and memory for them."""
        rows = gpu_rows(windows)
        engines = find_engines(self._bundle, self.machine, rows, side)
        check_memory(self._bundle, engines, self._device, loop_graphs(rows, side, painted))

    def open_loops(
        self, windows: int | None, side: int, painted: int | None = None
    ) -> tuple[Loop, ...]:
        """See `Backend.open_loops`."""
        rows = gpu_rows(windows)
        engines = find_engines(self._bundle, self.machine, rows, side)
        driver = CudaDriver(self._library, self._bundle, engines)
        try:
            return (DeviceLoop(self._bundle.manifest, driver, rows, side, painted),)
        except BaseException:
            driver.close()
            raise

    def describe(self) -> str:
        """Library, version and device."""
        return (
            f"{self.name} {self.machine.version} on {self._device.name} (compute capability "
            f"{self._device.capability}, {self._device.total_bytes / 1e9:.0f} GB)"
        )


def needed_bytes(bundle: Bundle, engines: EngineSet, shapes: Shapes) -> int:
    """Device memory of a loop: weights, the largest activations, inputs and outputs."""
    graphs, total, activations = bundle.manifest.graphs, 0, 0
    for name, count, side in shapes:
        spec, memory = graphs[name], engines.memory[name]
        profile = engines.build.profiles(name, spec).index((count, side))
        total += memory.weight_bytes
        activations = max(activations, memory.activation_bytes[profile])
        total += sum(tensor.bytes(count, side) for tensor in spec.tensors)
    return total + activations


def check_memory(bundle: Bundle, engines: EngineSet, device: CudaDevice, shapes: Shapes) -> None:
    """Raise BackendError where the GPU's free memory is less than a loop takes."""
    needed = needed_bytes(bundle, engines, shapes) + HEADROOM_BYTES
    _, rows, side = shapes[0]
    if needed > device.free_bytes:
        raise BackendError(
            f"{device.name} has {device.free_bytes / 1e9:.2f} of {device.total_bytes / 1e9:.2f} GB "
            f"free, {rows} windows of {side} px take {needed / 1e9:.2f} GB; close other programs, "
            "or choose a smaller --batch or --window"
        )
