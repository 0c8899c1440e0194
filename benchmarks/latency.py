"""How long each graph of a bundle takes on each backend, and what share of the peak that is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2gm.benchmarks.timing import measure
from c2gm.runtime.backends.base import Graph
from c2gm.runtime.backends.onnxruntime import OnnxRuntimeBackend
from c2gm.runtime.backends.openvino import OpenVinoBackend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.contract import WINDOW_GRAPHS, GraphName
from c2gm.runtime.cpu import available_cores
from c2gm.runtime.errors import OptionError
from c2gm.runtime.grid import DEFAULT_WINDOW_PX
from c2gm.runtime.levels import TILE_SIZE


def graph_latencies(
    bundle: Bundle,
    backend: str,
    batches: Sequence[int],
    seconds: float = 2.0,
    side: int = DEFAULT_WINDOW_PX,
) -> list[dict[str, Any]]:
    """A row for each graph and batch: seconds of a run with all cores at work, GFLOP/s of all.

    `side`: of windows in pixels; operations are taken to grow with its square, which leaves out a
    part of attention. Raises OptionError for a backend whose graphs are not run one by one,
    BackendError.
    """
    rows: list[dict[str, Any]] = []
    for name in WINDOW_GRAPHS:
        for batch in batches:
            graph = load_graph(bundle, backend, name, batch, side)
            inputs = example_inputs(bundle, name, batch, side)
            timing = measure([partial(graph.run, inputs)] * available_cores(), seconds)
            gflop = bundle.manifest.graphs[name].gflop_per_tile * batch * (side / TILE_SIZE) ** 2
            rows.append(
                {"backend": backend, "graph": name, "batch": batch}
                | asdict(timing)
                | {"gflops": round(gflop * timing.per_second, 1)}
            )
    return rows


def load_graph(
    bundle: Bundle, backend: str, graph: GraphName, rows: int = 1, side: int = TILE_SIZE
) -> Graph:
    """A graph on a CPU backend, to be run on one core. Raises OptionError, BackendError."""
    if backend == "onnxruntime":
        return OnnxRuntimeBackend.cpu(bundle).load(graph)
    if backend == "openvino":
        return OpenVinoBackend(bundle).load(graph, rows, side)
    raise OptionError(f"--backend is {backend!r}, expected onnxruntime or openvino")


def example_inputs(
    bundle: Bundle, graph: GraphName, rows: int, side: int = TILE_SIZE
) -> Mapping[str, NDArray[Any]]:
    """Inputs of a graph for windows: noise, in the middle of sampling."""
    rng = np.random.default_rng(0)
    values: dict[str, NDArray[Any]] = {}
    for tensor in bundle.manifest.graphs[graph].inputs:
        shape = tensor.at(rows, side)
        if tensor.name == "timestep":
            values[tensor.name] = np.full(shape, 500, tensor.dtype)
        elif tensor.name in ("active", "has_reference"):
            values[tensor.name] = np.ones(shape, tensor.dtype)
        else:
            values[tensor.name] = rng.standard_normal(shape).astype(tensor.dtype)
    return values
