"""torch -> ONNX: one file a graph, dynamic in rows and window size, checked before it is used.

By tracing (torch's TorchScript exporter): measured on this U-Net with two free dimensions, the
exporter based on torch.export takes twenty times as long for the same operators.
"""

import contextlib
import io
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir
import onnxscript.optimizer
import torch
from onnx_ir.passes import common as passes
from torch import Tensor

from c2gm.export.graphs import Graph, exportable
from c2gm.export.storage import store_exact_halves
from c2gm.runtime.contract import TensorSpec
from c2gm.runtime.errors import ParityError

OPSET = 20
"""The newest that TensorRT takes with dynamic shapes throughout (23 has its own Attention)."""

EXTERNAL_DATA_BYTES = 2_000_000_000
"""Weights above this go to one file beside the graph: protobuf ends at 2 GiB."""

_TRACED = {"b": 2, "H": 128, "h": 16, "h/2": 8, "h/4": 4}


def export_onnx(graph: Graph, folder: Path) -> tuple[Path, ...]:
    """Write `graph` as `folder/NAME.onnx`, and `NAME.onnx.data` where it is large.

    Constants are folded; dimensions carry the names of docs/graphs.md. Returns the files, the
    model first. Raises ParityError if the written graph is not valid ONNX.
    """
    path = folder / f"{graph.name}.onnx"
    specs = (*graph.inputs, *graph.outputs)
    # The tracer may write one file a weight: they stay together in a folder of their own.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        traced = Path(scratch) / path.name
        with exportable(), _quiet():
            torch.onnx.export(
                graph,
                tuple(_example(spec) for spec in graph.inputs),
                traced,
                input_names=[spec.name for spec in graph.inputs],
                output_names=[spec.name for spec in graph.outputs],
                dynamic_axes={
                    spec.name: {i: d for i, d in enumerate(spec.shape) if isinstance(d, str)}
                    for spec in specs
                },
                opset_version=OPSET,
                dynamo=False,
            )
        model = onnx_ir.load(traced)
        simplify(model)
        _name_dimensions(model, graph)
        store_exact_halves(model)
        tensors = (value.const_value for value in model.graph.initializers.values())
        external = sum(int(t.nbytes) for t in tensors if t is not None) > EXTERNAL_DATA_BYTES
        data = path.with_name(path.name + ".data")
        onnx_ir.save(model, path, external_data=data.name if external else None)
        del model
    check_onnx(path)
    return (path, data) if external else (path,)


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


def simplify(model: onnx_ir.Model) -> None:
    """Fold constants, merge equal nodes and weights, drop what is unused and the exporter's notes.

    In place. The steps of `onnxscript.optimizer.optimize` but its pattern rewriting, which takes
    most of the time (quadratic in nodes) and finds next to nothing in these graphs.
    """
    for _ in range(2):
        onnxscript.optimizer.fold_constants(
            model,
            onnx_shape_inference=True,
            # By default it keeps ConstantOfShape, which here makes a few numbers at most.
            should_fold=lambda node: True if node.op_type == "ConstantOfShape" else None,
        )
        passes.IdentityEliminationPass()(model)
        passes.RemoveUnusedNodesPass()(model)
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        passes.DeduplicateInitializersPass()(model)
        passes.CommonSubexpressionEliminationPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)
    passes.OutputFixPass()(model)
    passes.NameFixPass()(model)
    model.producer_name, model.producer_version = "c2gm-export", None


def _name_dimensions(model: onnx_ir.Model, graph: Graph) -> None:
    """Inputs and outputs get the dimensions that docs/graphs.md names."""
    for values, specs in ((model.graph.inputs, graph.inputs), (model.graph.outputs, graph.outputs)):
        for value, spec in zip(values, specs, strict=True):
            value.shape = onnx_ir.Shape(spec.shape)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's progress and deprecation notes are of no use to whoever exports."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
