"""Backends by name."""

from collections.abc import Callable

from c2gm.runtime.backends.base import Backend
from c2gm.runtime.backends.onnxruntime import OnnxRuntimeBackend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.errors import BackendError

BACKENDS: dict[str, Callable[[Bundle], Backend]] = {
    "onnxruntime": OnnxRuntimeBackend.cpu,
    "cuda": OnnxRuntimeBackend.cuda,
}
"""What `--backend` can name, beside `auto`."""


def open_backend(name: str, bundle: Bundle) -> Backend:
    """Open a backend by name; `auto` is ONNX Runtime on the CPU.

    Raises BackendError for an unknown name or a backend that cannot run here: one that was asked
    for is never replaced by another.
    """
    if name == "auto":
        name = "onnxruntime"
    try:
        opener = BACKENDS[name]
    except KeyError:
        raise BackendError(
            f"there is no backend {name!r}; choose one of auto, {', '.join(BACKENDS)}"
        ) from None
    return opener(bundle)
