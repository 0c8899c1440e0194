"""torch -> ONNX: one file a graph, dynamic in rows and window size, checked before it is used."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir
import torch
from torch import Tensor

from c2gm.export.graphs import Graph, exportable
from c2gm.runtime.bundle import TensorSpec
from c2gm.runtime.errors import ParityError

OPSET = 20
"""The newest that TensorRT 10 takes with dynamic shapes throughout (23 has its own Attention)."""

EXTERNAL_DATA_BYTES = 3 << 29
"""Weights above 1.5 GB go to one file beside the graph: protobuf ends at 2 GB, in one piece."""

_TRACED = {"b": 2, "H": 192, "h": 24, "h/2": 12, "h/4": 6}
"""Sizes used for tracing; none equals 1 or another one, which tracing would take for a rule."""

_MULTIPLE = {"H": 64, "h": 8, "h/2": 4, "h/4": 2}
"""Every side as a multiple of one unknown: this is what makes 64 the window's multiple."""


def export_onnx(graph: Graph, folder: Path) -> tuple[Path, ...]:
    """Write `graph` as `folder/NAME.onnx`, and `NAME.onnx.data` where it is large.

    Constants are folded; dimensions carry the names of docs/graphs.md. Returns the files, the
    model first. Raises ParityError if the written graph is not valid ONNX.
    """
    rows, unit = torch.export.Dim("b", min=1, max=1024), torch.export.Dim("u", min=1, max=1024)
    dims = {"b": rows} | {name: factor * unit for name, factor in _MULTIPLE.items()}
    with exportable(), _quiet():
        program = torch.onnx.export(
            graph,
            tuple(_example(spec) for spec in graph.inputs),
            dynamo=True,
            dynamic_shapes=tuple(
                {axis: dims[d] for axis, d in enumerate(spec.shape) if isinstance(d, str)}
                for spec in graph.inputs
            ),
            input_names=[spec.name for spec in graph.inputs],
            output_names=[spec.name for spec in graph.outputs],
            opset_version=OPSET,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    _tidy(program.model, graph)
    path = folder / f"{graph.name}.onnx"
    tensors = (value.const_value for value in program.model.graph.initializers.values())
    weights = sum(int(tensor.nbytes) for tensor in tensors if tensor is not None)
    external = weights > EXTERNAL_DATA_BYTES
    program.save(path, external_data=external)
    check_onnx(path)
    return (path, path.with_name(path.name + ".data")) if external else (path,)


def check_onnx(path: Path) -> None:
    """ONNX's own checker with strict shape inference. Raises ParityError."""
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ParityError(
            f"{path.name} is not valid ONNX ({str(error).splitlines()[0]}); nothing was written, "
            "report this as a fault of c2gm-export"
        ) from error


def _example(spec: TensorSpec) -> Tensor:
    shape = [_TRACED[d] if isinstance(d, str) else d for d in spec.shape]
    return torch.zeros(shape, dtype=getattr(torch, spec.dtype))


def _tidy(model: onnx_ir.Model, graph: Graph) -> None:
    """Contract names for dimensions; no notes of the exporter (they hold this machine's paths)."""
    names = {f"{factor}*u": name for name, factor in _MULTIPLE.items()}
    for values, specs in ((model.graph.inputs, graph.inputs), (model.graph.outputs, graph.outputs)):
        for value, spec in zip(values, specs, strict=True):
            value.shape = onnx_ir.Shape(spec.shape)
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if value.shape is not None and not value.is_graph_output():
                value.shape = onnx_ir.Shape(
                    d if isinstance(d, int) else names.get(str(d.value), d.value)
                    for d in value.shape
                )
    for owner in (model, model.graph):
        owner.metadata_props.clear()
        owner.doc_string = None
    model.producer_name, model.producer_version = "c2gm-export", None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's progress and deprecation notes are of no use to whoever exports."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
