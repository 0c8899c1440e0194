"""Backends by name, and which of them `auto` is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from c2gm.runtime.backends.base import Backend
from c2gm.runtime.backends.onnxruntime import OnnxRuntimeBackend, has_cuda_provider
from c2gm.runtime.backends.openvino import BF16_FLAG, OpenVinoBackend
from c2gm.runtime.backends.tensorrt import TensorRTBackend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.cpu import has_cpu_flag
from c2gm.runtime.engines import FLAVOURS, has_engines
from c2gm.runtime.errors import BackendError, OptionError

BACKENDS: Mapping[str, Callable[[Bundle], Backend]] = {
    "tensorrt-rtx": lambda bundle: TensorRTBackend(bundle, "tensorrt-rtx"),
    "tensorrt": lambda bundle: TensorRTBackend(bundle, "tensorrt"),
    "cuda": OnnxRuntimeBackend.cuda,
    "openvino": OpenVinoBackend,
    "onnxruntime": OnnxRuntimeBackend.cpu,
}
"""What `--backend` can name, beside `auto`, which takes the first of these that can run.

OpenVINO it takes on CPUs with AMX alone: on others it takes seconds to start, which a map of some
hundred tiles does not give back (docs/speed.md).
"""


def on_gpu(name: str) -> bool:
    """Whether a backend of this name runs on a GPU here, as far as no model is needed to tell."""
    return name == "cuda" or name in FLAVOURS or (name == "auto" and has_cuda_provider())


@dataclass(frozen=True, slots=True)
class Opened:
    """A backend, and for one that was not asked for by name why it was not a faster one."""

    backend: Backend
    passed_over: tuple[str, ...] = ()


def open_backend(
    name: str, bundle: Bundle, windows: int | None, side: int, painted: int | None = None
) -> Opened:
    """Open a backend by name, for windows of `side` px, `windows` at a time (None: as suits it).

    `painted`: side of what is decoded, None for `side`.

    `auto`: the fastest that can run.

    Raises OptionError for an unknown name, BackendError for a backend that cannot run here: one
    that was asked for is never replaced by another.
    """
    if name != "auto":
        if name not in BACKENDS:
            raise OptionError(
                f"there is no backend {name!r}; choose one of auto, {', '.join(BACKENDS)}"
            )
        backend = BACKENDS[name](bundle)
        backend.check(windows, side, painted)
        return Opened(backend)
    *faster, last = BACKENDS
    passed_over = list[str]()
    if not has_engines(bundle):
        passed_over.append("not TensorRT: the model has no engines")
        faster = [candidate for candidate in faster if candidate not in FLAVOURS]
    if not has_cpu_flag(BF16_FLAG):
        faster.remove("openvino")
    for candidate in faster:
        try:
            backend = BACKENDS[candidate](bundle)
            backend.check(windows, side, painted)
        except BackendError as error:
            found, _, _ = str(error).partition(";")
            passed_over.append(f"not {candidate}: {found}")
        else:
            return Opened(backend, tuple(passed_over))
    return Opened(BACKENDS[last](bundle), tuple(passed_over))
