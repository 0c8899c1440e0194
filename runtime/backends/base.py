"""The protocol of a backend: load a graph of a bundle, run it, say what it is."""

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from c2gm.runtime.bundle import GraphName

Tensors = Mapping[str, NDArray[Any]]
"""Arrays by tensor name, C-contiguous, dtypes as the manifest's `TensorSpec` says."""


class Graph(Protocol):
    """A loaded graph."""

    def run(self, inputs: Tensors) -> Tensors:
        """Compute all outputs; rows of the batch are independent. Raises BackendError."""
        ...


class Backend(Protocol):
    """Runs the graphs of one bundle on one device."""

    @property
    def name(self) -> str:
        """Name on the command line."""
        ...

    def load(self, graph: GraphName) -> Graph:
        """Load a graph. Raises BundleError for a broken graph, BackendError for the device."""
        ...

    def describe(self) -> str:
        """One line for users: library, version, device, threads."""
        ...
