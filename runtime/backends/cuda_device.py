"""The first CUDA device, asked for before anything that crashes without one.

TensorRT's runtime, and some of its builders, end the process where there is no driver; the CUDA
bindings return an error code. So they are asked first, and every way to have no GPU gets a line of
its own.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from c2gm.runtime.errors import BackendError

OLDEST_CAPABILITY = (7, 5)
"""Of GPUs with tensor cores for FP16 that TensorRT 10 and later still serves."""


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """A GPU: name, compute capability as "8.6", memory in bytes."""

    name: str
    capability: str
    total_bytes: int
    free_bytes: int


def cuda_runtime() -> Any:
    """`cuda.bindings.runtime`. Raises BackendError where cuda-bindings is missing or does not load.

    Its functions return tuples that begin with an error code.
    """
    try:
        return import_module("cuda.bindings.runtime")
    except ModuleNotFoundError:
        raise BackendError(
            "TensorRT needs cuda-bindings, which is not installed; pip install 'c2gm[tensorrt]'"
        ) from None
    except (ImportError, OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BackendError(f"cuda-bindings is installed but does not load: {reason}") from None


def check(result: Any, doing: str) -> Any:
    """What a call of the CUDA bindings returned, less its error code: None, a value or a tuple.

    Raises BackendError, with the code's name, where it is not success.
    """
    code, *values = result
    if int(code) != 0:
        raise BackendError(f"CUDA failed while {doing}: {getattr(code, 'name', code)}")
    return values[0] if len(values) == 1 else tuple(values) or None


def first_device(otherwise: str) -> CudaDevice:
    """The device that work goes to; CUDA_VISIBLE_DEVICES chooses among several.

    `otherwise`: what else the user may do, as the last words of an error.

    Raises BackendError where there is no driver, no device, or one that is too old.
    """
    cudart = cuda_runtime()
    try:
        code, count = cudart.cudaGetDeviceCount()
    except RuntimeError as error:  # the bindings look for the driver's library only now
        raise BackendError(
            f"no CUDA driver was found ({str(error).splitlines()[0]}); install the GPU's driver, "
            f"{otherwise}"
        ) from None
    name = getattr(code, "name", str(code))
    if int(code) != 0 and name != "cudaErrorNoDevice":
        raise BackendError(
            f"no usable CUDA driver: {name}; install or update the GPU's driver, {otherwise}"
        )
    if int(code) != 0 or count == 0:
        raise BackendError(
            f"no CUDA device was found; check nvidia-smi and CUDA_VISIBLE_DEVICES, {otherwise}"
        )
    properties = check(cudart.cudaGetDeviceProperties(0), "asking the GPU for its properties")
    check(cudart.cudaSetDevice(0), "choosing the GPU")
    free, total = check(cudart.cudaMemGetInfo(), "asking the GPU for its memory")
    raw = properties.name
    title = raw.decode() if isinstance(raw, bytes) else str(raw)
    if (properties.major, properties.minor) < OLDEST_CAPABILITY:
        raise BackendError(
            f"{title} has compute capability {properties.major}.{properties.minor}, at least "
            f"{OLDEST_CAPABILITY[0]}.{OLDEST_CAPABILITY[1]} is needed; use another GPU, {otherwise}"
        )
    capability = f"{properties.major}.{properties.minor}"
    return CudaDevice(title.rstrip("\0"), capability, int(total), int(free))
