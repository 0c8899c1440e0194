"""Faults of an FP16 graph that can be seen without running it, before an engine is built of it.

A TensorRT build takes minutes and answers with an empty plan, or worse, with an engine that paints
black. The types that engines compute in stand in the ONNX graph (TensorRT networks are strongly
typed), so the graph says whether they are the right ones.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from c2gm.runtime.errors import EngineBuildError

HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Nearly all of the work: in half precision, or the precision was for nothing."""

SENSITIVE = frozenset(
    {
        *("Softmax", "LogSoftmax", "Exp", "Sqrt", "Pow", "ReduceSum", "ReduceMean", "ReduceL2"),
        *("InstanceNormalization", "LayerNormalization", "GroupNormalization"),
        "BatchNormalization",
    }
)
"""What half precision spoils: sums over many values, and what grows beyond 65504."""

_FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
)


def check_half(path: Path) -> None:
    """Raise EngineBuildError for a graph that must not be built in half precision.

    Found are: types that are unknown, double, or mixed within an operator; convolutions and matrix
    products left in FP32; sums, roots and normalisations in FP16; constants that are not finite.
    """
    faults = list(half_faults(onnx.load(path)))
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise EngineBuildError(
            f"{path.name} must not be built in half precision: {'; '.join(faults[:3])}{more}; "
            "export the bundle again, and report it if it stays"
        )


def half_faults(model: onnx.ModelProto) -> Iterator[str]:
    """Faults of a loaded graph, one line each."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    for constant in graph.initializer:
        types[constant.name] = constant.data_type
        yield from _constant_faults(constant.name, constant)
    for node in graph.node:
        where = f"{node.op_type} {node.name or node.output[0]!r}"
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield from _constant_faults(where, attribute.t)
        # The other inputs of a Resize are its scales, numbers and not pixels.
        inputs = node.input[:1] if node.op_type == "Resize" else node.input
        given = [types.get(name, TensorProto.UNDEFINED) for name in inputs if name]
        floats = {kind for kind in given if kind in _FLOATS}
        names = ", ".join(sorted(TensorProto.DataType.Name(kind) for kind in floats))
        if TensorProto.UNDEFINED in given:
            yield f"{where} has an input of unknown type"
        if TensorProto.DOUBLE in floats or len(floats) > 1:
            yield f"{where} computes in {names}"
        elif node.op_type in HEAVY and floats != {TensorProto.FLOAT16}:
            yield f"{where} is left in {names}"
        elif node.op_type in SENSITIVE and TensorProto.FLOAT16 in floats:
            yield f"{where} computes in FLOAT16, which it overflows or blurs"


def _constant_faults(where: str, constant: onnx.TensorProto) -> Iterator[str]:
    if constant.data_type in _FLOATS:
        values = numpy_helper.to_array(constant)
        if not np.isfinite(values.astype(np.float64)).all():
            yield f"constant of {where} holds NaN or infinity"
