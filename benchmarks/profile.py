"""Which operators a graph's time is spent in, by ONNX Runtime's own profiler."""

import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from c2gm.benchmarks.latency import example_inputs
from c2gm.runtime.backends.onnxruntime import OnnxRuntimeBackend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.contract import GraphName

WARM_UP = 2
"""Runs that do not count."""

CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
PRODUCTS = ("Conv", "MatMul", "Gemm", "Attention")
"""What a peak is made of: an operator whose name holds one of these, QLinearConv among them."""
LAYOUT = ("Transpose", "Reshape", "Concat", "Split", "Slice", "Unsqueeze", "Expand", "Gather")
INTEGERS = ("int8", "uint8")

GROUPS = (
    "integer products",
    "integer, other",
    "conversions",
    "layout",
    "shapes",
    "float32 products",
    "float32, other",
)
"""Kinds of work. `layout` moves data about; `shapes` computes sizes of tensors, not contents."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node as it was run: median of its kernel's time over the runs."""

    name: str
    op: str
    group: str
    seconds: float
    inputs: str


@dataclass(frozen=True, slots=True)
class Profile:
    """Of one graph on one core, over so many runs."""

    nodes: Sequence[Node]
    runs: int


class _ProfiledBackend(OnnxRuntimeBackend):
    """The runtime's sessions, with the profiler on."""

    def __init__(self, bundle: Bundle, prefix: Path) -> None:
        super().__init__(bundle, "onnxruntime", "CPUExecutionProvider")
        self._prefix = prefix

    def _options(self) -> ort.SessionOptions:
        options = super()._options()
        options.enable_profiling = True
        options.profile_file_prefix = str(self._prefix)
        return options


def profile_graph(bundle: Bundle, name: GraphName, side: int, runs: int) -> Profile:
    """Nodes of a graph, run on one window of `side` pixels and one core, as the runtime does.

    Raises BundleError.
    """
    inputs = example_inputs(bundle, name, 1, side)
    with tempfile.TemporaryDirectory() as scratch:
        graph = _ProfiledBackend(bundle, Path(scratch) / "profile").load(name)
        for _ in range(WARM_UP + runs):
            graph.run(inputs)
        del graph  # a session writes its profile when it ends
        (file,) = Path(scratch).glob("profile*.json")
        events = json.loads(file.read_text(encoding="utf-8"))
    return read_events(events, WARM_UP)


def read_events(events: Iterable[Mapping[str, Any]], warm_up: int = 0) -> Profile:
    """What a profile of ONNX Runtime says, without its first runs. Medians over the others."""
    events = list(events)
    ran = [e for e in events if e["cat"] == "Session" and e["name"] == "model_run"]
    ran = sorted(ran, key=lambda event: event["ts"])[warm_up:]
    begin = ran[0]["ts"]
    found: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        kernel = event["cat"] == "Node" and event["name"].endswith("_kernel_time")
        if kernel and event["ts"] >= begin:
            found.setdefault(event["args"]["node_index"], []).append(event)
    nodes = []
    for same in found.values():
        first, arguments = same[0], same[0]["args"]
        types = [kind for entry in arguments["input_type_shape"] for kind in entry]
        nodes.append(
            Node(
                name=first["name"].removesuffix("_kernel_time"),
                op=arguments["op_name"],
                group=group_of(arguments["op_name"], types),
                seconds=1e-6 * float(np.median([event["dur"] for event in same])),
                inputs=" ".join(
                    f"{kind}{'x'.join(map(str, shape))}"
                    for entry in arguments["input_type_shape"]
                    for kind, shape in entry.items()
                ),
            )
        )
    return Profile(nodes, len(ran))


def processor_s(bundle: Bundle, name: GraphName, side: int, runs: int) -> float:
    """Processor time of a run without the profiler, which takes as long as many a node; median."""
    graph, inputs = OnnxRuntimeBackend.cpu(bundle).load(name), example_inputs(bundle, name, 1, side)
    found = []
    for _ in range(WARM_UP + runs):
        start = time.thread_time()
        graph.run(inputs)
        found.append(time.thread_time() - start)
    return float(np.median(found[WARM_UP:]))


def group_of(op: str, types: Sequence[str]) -> str:
    """One of `GROUPS`, by the types of a node's inputs."""
    if op in CONVERSIONS:
        return "conversions"
    first = types[0] if types else None
    if op == "Shape" or first == "int64":
        return "shapes"
    integer = op.startswith("QLinear") or "Integer" in op or first in INTEGERS
    if any(name in op for name in PRODUCTS):
        return "integer products" if integer else "float32 products"
    if op in LAYOUT or op.startswith("Reorder"):
        return "layout"
    return "integer, other" if integer else "float32, other"


def by(profile: Profile, field: str) -> list[dict[str, Any]]:
    """Nodes and share of all kernels' time by `op` or `group`, the largest first."""
    total = sum(node.seconds for node in profile.nodes)
    keys = sorted({getattr(node, field) for node in profile.nodes})
    rows = []
    for key in keys:
        same = [node for node in profile.nodes if getattr(node, field) == key]
        seconds = sum(node.seconds for node in same)
        row = {field: key, "nodes": len(same), "ms": 1e3 * seconds, "share": seconds / total}
        rows.append(row if field == "group" else row | {"group": _groups(same)})
    return sorted(rows, key=lambda row: -row["ms"])


def _groups(nodes: Sequence[Node]) -> str:
    return ", ".join(sorted({node.group for node in nodes}))
