"""The Python module of a TensorRT flavour, or one clear line that says how to get it."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from c2gm.runtime.engines import Flavour
from c2gm.runtime.errors import BackendError

_MODULES: dict[Flavour, tuple[str, str]] = {
    "tensorrt": (
        "tensorrt",
        "install it from its vendor's package index, or choose tensorrt-rtx",
    ),
    "tensorrt-rtx": ("tensorrt_rtx", "pip install 'c2gm[tensorrt]'"),
}


def collecting_logger(library: Any, hear: Callable[[str], None] = lambda message: None) -> Any:
    """A logger of `library.ILogger`'s kind that prints nothing, keeps errors and hands on the rest.

    TensorRT's own prints on stdout, where it would end up in what `--json` prints.
    """

    class Logger(library.ILogger):  # type: ignore[misc]
        """Keeps the errors since `reason` was last asked."""

        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT for every message."""
            if severity in (library.ILogger.ERROR, library.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            else:
                hear(message)

        def reason(self) -> str:
            """What TensorRT complained of first, to append to a message; then forgotten."""
            errors, self.errors = self.errors, []
            return f" ({errors[0]})" if errors else ""

    return Logger()


def load_library(flavour: Flavour) -> ModuleType:
    """Import a flavour. Raises BackendError where it is missing or its libraries do not load."""
    module, remedy = _MODULES[flavour]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise BackendError(
            f"{flavour} needs the package {error.name}, which is not installed; {remedy}"
        ) from None
    except (ImportError, OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BackendError(f"{flavour} is installed but does not load: {reason}") from None
