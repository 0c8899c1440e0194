"""The machine's own limit: what matrix products and convolutions reach, by precision.

Not from a data sheet: the best of what well-known libraries do on this machine with shapes that
suit them, on all cores at once. A step of the model can come near it and not beyond.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from c2gm.benchmarks.timing import measure
from c2gm.runtime.cpu import available_cores

GEMM = 1536
"""Side of the matrices."""

CHANNELS, SIDE, KERNEL = 128, 32, 3
"""Of the convolution, which is as those of `nano`'s U-Net are."""

CONV_GFLOP = 2e-9 * CHANNELS**2 * KERNEL**2 * SIDE**2
GEMM_GFLOP = 2e-9 * GEMM**3


def measure_peaks(seconds: float = 1.0) -> dict[str, dict[str, float]]:
    """GFLOP/s (INT8: GOP/s) by precision, then by what was run."""
    found: dict[str, dict[str, float]] = {}
    for precision, what, gflop, call in _candidates():
        timing = measure([call] * available_cores(), seconds)
        found.setdefault(precision, {})[what] = round(gflop * timing.per_second, 1)
    return found


def _candidates() -> Iterator[tuple[str, str, float, Callable[[], object]]]:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((GEMM, GEMM), np.float32) for _ in range(2))
    product = _session(_graph("MatMul", (GEMM, GEMM), b))
    yield "fp32", "matrix product, ONNX Runtime", GEMM_GFLOP, lambda: product.run(None, {"x": a})
    unsigned, signed = (np.clip(m * 40 + z, -127, 255) for m, z in ((a, 128), (b, 0)))
    u8, s8 = unsigned.clip(0).astype(np.uint8), signed.clip(-63, 63).astype(np.int8)
    integer = _session(_graph("MatMulInteger", (GEMM, GEMM), s8, TensorProto.UINT8))
    yield "int8", "matrix product, ONNX Runtime", GEMM_GFLOP, lambda: integer.run(None, {"x": u8})
    weight = rng.standard_normal((CHANNELS, CHANNELS, KERNEL, KERNEL), np.float32) / 30
    picture = rng.standard_normal((1, CHANNELS, SIDE, SIDE), np.float32)
    plain = _graph("Conv", picture.shape, weight)
    conv = _session(plain)
    yield "fp32", "convolution, ONNX Runtime", CONV_GFLOP, lambda: conv.run(None, {"x": picture})
    quantised = _quantised_conv(picture.shape, weight)
    conv8 = _session(quantised)
    yield "int8", "convolution, ONNX Runtime", CONV_GFLOP, lambda: conv8.run(None, {"x": picture})
    for precision, hint, model in (
        ("fp32", "f32", plain),
        ("bf16", "bf16", plain),
        ("int8", "f32", quantised),
    ):
        call = _openvino_call(model, hint, picture)
        if call is not None:
            yield precision, "convolution, OpenVINO", CONV_GFLOP, call


def _graph(op: str, shape: tuple[int, ...], weight: Any, kind: int = TensorProto.FLOAT) -> bytes:
    out = TensorProto.INT32 if op == "MatMulInteger" else TensorProto.FLOAT
    node = helper.make_node(op, ["x", "w"], ["y"])
    if op == "Conv":
        node.attribute.append(helper.make_attribute("pads", [KERNEL // 2] * 4))
    return _model([node], shape, kind, [numpy_helper.from_array(weight, "w")], out)


def _quantised_conv(shape: tuple[int, ...], weight: Any) -> bytes:
    """A convolution between quantised tensors, as `c2gm-export --precision int8` writes it."""
    scale = np.abs(weight).max(axis=(1, 2, 3)) / 63
    constants = {
        "w": np.round(weight / scale[:, None, None, None]).astype(np.int8),
        "ws": scale.astype(np.float32),
        "wz": np.zeros(CHANNELS, np.int8),
        "s": np.float32(0.03),
        "z": np.uint8(128),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"], pads=[KERNEL // 2] * 4),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    return _model(nodes, shape, TensorProto.FLOAT, tensors, TensorProto.FLOAT)


def _model(nodes: Any, shape: tuple[int, ...], kind: int, constants: Any, out: int) -> bytes:
    x = helper.make_tensor_value_info("x", kind, shape)
    y = helper.make_tensor_value_info("y", out, None)
    graph = helper.make_graph(nodes, "peak", [x], [y], constants)
    opsets = [helper.make_opsetid("", 20)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return bytes(model.SerializeToString())


def _session(model: bytes) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _openvino_call(model: bytes, hint: str, picture: Any) -> Callable[[], object] | None:
    """A call from any thread; None where OpenVINO is not installed."""
    try:
        import openvino
    except ImportError:
        return None
    core, cores = openvino.Core(), available_cores()
    options = {
        "INFERENCE_PRECISION_HINT": hint,
        "NUM_STREAMS": cores,
        "INFERENCE_NUM_THREADS": cores,
    }
    compiled = core.compile_model(core.read_model(model, b""), "CPU", options)
    local = threading.local()  # every thread keeps a request, as in the runtime

    def call() -> object:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        return local.request.infer({"x": picture}, share_inputs=True, share_outputs=True)

    return call
