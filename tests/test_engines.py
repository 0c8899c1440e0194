"""TensorRT engines: really built without a GPU, and refused wherever they do not fit.

If these fail, somebody's GPU gets machine code that was not made for it, or for this model.
"""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from c2gm.export.cases import CheckPlan
from c2gm.export.half_checks import check_half, half_faults
from c2gm.export.layer_report import parse_layers, summarise
from c2gm.export.pack import export_bundle
from c2gm.export.tensorrt import build_engines
from c2gm.model.checkpoint import load_model
from c2gm.model.config import SHIPPED_WEIGHTS
from c2gm.runtime.backends.cuda_device import CudaDevice
from c2gm.runtime.backends.device_loop import loop_graphs
from c2gm.runtime.backends.tensorrt import check_memory, needed_bytes
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.contract import GRAPHS
from c2gm.runtime.engines import (
    LAYERS_NAME,
    RECORD_NAME,
    EngineSet,
    Machine,
    find_engines,
    read_plan,
    read_record,
)
from c2gm.runtime.errors import (
    BackendError,
    EngineBuildError,
    OptionError,
)

TARGETS = ("8.6", "8.9", "12.0")
BUCKETS, SIDE = (1, 2), 320


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model in half precision."""
    plan = CheckPlan(((1, 256),), steps=2, spread=1, every_step=None)
    folder = tmp_path_factory.mktemp("half") / "half.c2gm"
    return export_bundle(load_model(SHIPPED_WEIGHTS), folder, "fp16", plan=plan)


@pytest.fixture(scope="module")
def built(half: Path) -> EngineSet:
    """Engines of all five graphs, built by TensorRT-RTX."""
    lines: list[str] = []
    folder = build_engines(
        Bundle.read(half), "tensorrt-rtx", TARGETS, buckets=BUCKETS, progress=lines.append
    )
    assert sum("half precision" in line for line in lines) == len(GRAPHS)
    return read_record(folder)


def folder_of(half: Path, built: EngineSet) -> Path:
    return half / "engines" / built.key


def machine_of(built: EngineSet, capability: str = "8.6") -> Machine:
    made = built.build
    return Machine(made.flavour, made.version, made.platform, capability)


def test_all_graphs_are_built_in_half_precision_with_fused_attention(
    half: Path, built: EngineSet
) -> None:
    assert built.build.capabilities == TARGETS and built.build.precision == "fp16"
    reports = json.loads((folder_of(half, built) / LAYERS_NAME).read_text(encoding="utf-8"))
    for graph in GRAPHS:
        report = reports[graph]
        if graph != "text_encoder":
            assert report["convolutions"] > 0
        assert report["half_convolutions"] == report["convolutions"]
        assert report["half_products"] == report["products"]
    softmaxes = [
        node
        for node in onnx.load(half / "denoise.onnx", load_external_data=False).graph.node
        if node.op_type == "Softmax"
    ]
    assert reports["denoise"]["fused_attention"] == len(softmaxes) * len(BUCKETS) > 0
    # Normalisations are the islands that stay.
    assert any("norm" in name.lower() for name in reports["denoise"]["float32_nodes"])
    memory = built.memory["denoise"]
    assert memory.weight_bytes > 0
    assert len(memory.activation_bytes) == len(BUCKETS)
    assert memory.activation_bytes[1] > memory.activation_bytes[0] > 0


def test_a_bundle_is_the_same_with_engines(half: Path, built: EngineSet) -> None:
    bundle = Bundle.read(half)
    copy = half.with_name("without.c2gm")
    shutil.copytree(half, copy, ignore=shutil.ignore_patterns("engines"))
    assert Bundle.read(copy).fingerprint == bundle.fingerprint
    lines: list[str] = []
    folder = build_engines(bundle, "tensorrt-rtx", TARGETS, buckets=BUCKETS, progress=lines.append)
    assert folder.name == built.key and lines == [f"{folder}: built already, nothing to do"]


def test_they_are_found_where_they_fit(half: Path, built: EngineSet) -> None:
    bundle = Bundle.read(half)
    for capability in TARGETS:
        found = find_engines(bundle, machine_of(built, capability), 2, SIDE)
        assert found == built
        assert read_plan(bundle, found, "denoise")[:4]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"capability": "7.5"}, "is for compute capability 8.6, 8.9, 12.0, not 7.5"),
        ({"version": "1.7.0.1"}, "not 1.7.0.1"),
        ({"flavour": "tensorrt"}, "is for the library tensorrt-rtx, not tensorrt"),
        ({"platform": "windows-amd64"}, "not windows-amd64"),
    ],
)
def test_foreign_ones_are_refused(
    half: Path, built: EngineSet, change: dict[str, str], reason: str
) -> None:
    machine = replace(machine_of(built), **change)
    with pytest.raises(BackendError) as caught:
        find_engines(Bundle.read(half), machine, 2, SIDE)
    text = str(caught.value)
    assert reason in text
    command = f"c2gm-export --add-to {half} --engine {machine.flavour}"
    assert f"{command} --targets {machine.capability}" in text


@pytest.mark.parametrize(
    ("bucket", "side", "reason"),
    [(8, 320, "is for batches of 1, 2, not 8"), (2, 256, "is for windows of 320 px, not 256")],
)
def test_other_shapes_are_refused(
    half: Path, built: EngineSet, bucket: int, side: int, reason: str
) -> None:
    with pytest.raises(BackendError, match=reason):
        find_engines(Bundle.read(half), machine_of(built), bucket, side)


def damage_record(folder: Path) -> None:
    record = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
    record["build"]["version"] = "9.9"
    (folder / RECORD_NAME).write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: (f / "denoise.plan").write_bytes(b"x"), "is not what was built"),
        (lambda f: (f / "denoise.plan").unlink(), "cannot be read"),
        (damage_record, "does not fit its key"),
        (lambda f: (f / RECORD_NAME).write_text("{}"), "format version is None"),
        (lambda f: (f / RECORD_NAME).unlink(), "cannot be used"),
    ],
)
def test_spoilt_ones_never_reach_the_deserialiser(
    half: Path,
    built: EngineSet,
    tmp_path: Path,
    spoil: Callable[[Path], object],
    reason: str,
) -> None:
    copy = tmp_path / "copy.c2gm"
    shutil.copytree(half, copy)
    spoil(folder_of(copy, built))
    bundle = Bundle.read(copy)
    with pytest.raises(BackendError, match=reason):
        read_plan(bundle, find_engines(bundle, machine_of(built), 2, SIDE), "denoise")


def test_engines_of_another_model_are_stale(
    half: Path, built: EngineSet, tiny_bundle: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.c2gm"
    shutil.copytree(tiny_bundle, other)
    shutil.copytree(half / "engines", other / "engines")
    with pytest.raises(BackendError, match="was built from other graphs than the bundle's"):
        find_engines(Bundle.read(other), machine_of(built), 2, SIDE)


def test_too_little_memory_is_known_before_loading(half: Path, built: EngineSet) -> None:
    bundle = Bundle.read(half)
    shapes = loop_graphs(2, SIDE)
    needed = needed_bytes(bundle, built, shapes)
    weights = sum(m.weight_bytes for n, m in built.memory.items() if "encoder" not in n)
    assert needed > weights + built.memory["denoise"].activation_bytes[1]
    check_memory(bundle, built, CudaDevice("big", "8.6", 2**34, 2**34), shapes)
    with pytest.raises(BackendError, match="small has 0.01 of 0.02 GB free, 2 windows of 320 px"):
        check_memory(bundle, built, CudaDevice("small", "8.6", 20_000_000, 10_000_000), shapes)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"capabilities": ("5.2",)}, "--targets 5.2: expected compute capabilities among 7.5"),
        ({"capabilities": ()}, "--targets is empty"),
        ({"buckets": (0,)}, "--buckets"),
        ({"sides": (100,)}, "--sides has 100, expected multiples of 64"),
    ],
)
def test_what_cannot_be_built_is_said_before(
    half: Path, options: dict[str, tuple[object, ...]], reason: str
) -> None:
    chosen = {"capabilities": TARGETS, "buckets": BUCKETS} | options
    capabilities = chosen.pop("capabilities")
    with pytest.raises(OptionError, match=reason):
        build_engines(Bundle.read(half), "tensorrt-rtx", capabilities, **chosen)


def spoil_constant(model: onnx.ModelProto) -> None:
    for constant in model.graph.initializer:
        if constant.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(constant).copy()
            values.flat[0] = np.inf
            constant.CopyFrom(numpy_helper.from_array(values, constant.name))
            return


def widen_convolution(model: onnx.ModelProto) -> None:
    """One convolution left in FP32 between two casts."""
    index, node = next((i, n) for i, n in enumerate(model.graph.node) if n.op_type == "Conv")
    casts = []
    for place, name in enumerate(node.input):
        casts.append(helper.make_node("Cast", [name], [f"{name}.wide"], to=TensorProto.FLOAT))
        node.input[place] = f"{name}.wide"
    output = node.output[0]
    node.output[0] = f"{output}.wide"
    casts_back = helper.make_node("Cast", [f"{output}.wide"], [output], to=TensorProto.FLOAT16)
    model.graph.node.insert(index + 1, casts_back)
    for cast in reversed(casts):
        model.graph.node.insert(index, cast)


def narrow_softmax(model: onnx.ModelProto) -> None:
    """A softmax in FP16, whose sums and exponentials it spoils."""
    index, node = next((i, n) for i, n in enumerate(model.graph.node) if n.op_type == "Softmax")
    before, after = node.input[0], node.output[0]
    node.input[0], node.output[0] = f"{before}.half", f"{after}.half"
    cast = helper.make_node("Cast", [before], [f"{before}.half"], to=TensorProto.FLOAT16)
    back = helper.make_node("Cast", [f"{after}.half"], [after], to=TensorProto.FLOAT)
    model.graph.node.insert(index + 1, back)
    model.graph.node.insert(index, cast)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_constant, "holds NaN or infinity"),
        (widen_convolution, "is left in FLOAT"),
        (narrow_softmax, "computes in FLOAT16"),
    ],
)
def test_half_precision_faults_are_found_before_a_build(
    half: Path, tmp_path: Path, spoil: Callable[[onnx.ModelProto], None], reason: str
) -> None:
    path = tmp_path / "denoise.onnx"
    model = onnx.load(half / "denoise.onnx")
    assert not list(half_faults(model))
    spoil(model)
    onnx.save(model, path)
    with pytest.raises(EngineBuildError, match=reason):
        check_half(path)


def test_what_tensorrt_cannot_read_is_named(half: Path, tmp_path: Path) -> None:
    """An operator that TensorRT lacks: its own words reach the user, and nothing is left."""
    copy = tmp_path / "copy.c2gm"
    shutil.copytree(half, copy, ignore=shutil.ignore_patterns("engines"))
    bundle = Bundle.read(copy)
    path = bundle.graph_path("text_encoder")
    model = onnx.load(path)
    model.graph.node[-1].op_type = "NoSuchOperator"
    onnx.save(model, path)
    with pytest.raises(EngineBuildError, match=r"text_encoder\.onnx"):
        build_engines(bundle, "tensorrt-rtx", ("8.6",), buckets=(1,))
    assert not list((copy / "engines").iterdir())


def test_layers_are_read_from_tensorrt_s_own_list() -> None:
    tensor = "{{ Name: {}, Dimensions: [1,4], Strides: [4,1], Datatype: {}, Format: (Linear) x }}"
    lines = "Layers:\n" + "\n".join(
        f"Name: {name}, LayerType: {kind}, Inputs: [ {tensor.format('a', a)}], Constants: [], "
        f"Outputs: [ {tensor.format('b', b)}], TacticName: t, StreamId: 0, Metadata: {nodes}"
        for name, kind, a, b, nodes in (
            ("/c1/Conv", "correlation", "Half", "Half", "[ONNX Layer: /c1/Conv]"),
            ("/c2/Conv", "correlation", "Float", "Float", "[ONNX Layer: /c2/Conv]"),
            ("/g/MatMul", "gemm", "Half", "Float", "[ONNX Layer: /g/MatMul]"),
            ("_gemm_mha_v2_7", "kgen", "Half", "Half", "[ONNX Layer: /a/Softmax]"),
        )
    )
    report = summarise(list(parse_layers(lines)))
    assert (report.kernels, report.convolutions, report.half_convolutions) == (4, 2, 1)
    assert (report.products, report.half_products, report.fused_attention) == (1, 0, 1)
    assert report.float32_nodes == ("/c2/Conv", "/g/MatMul")


def test_ctrl_c_ends_a_build_and_leaves_nothing(half: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.c2gm"
    shutil.copytree(half, copy, ignore=shutil.ignore_patterns("engines"))
    command = "from c2gm.export.cli import main; main()"
    options = ("--add-to", copy, "--engine", "tensorrt-rtx", "--targets", "8.6", "--buckets", "1")
    with subprocess.Popen(
        [sys.executable, "-c", command, *options], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "denoise: building" in line:
                process.send_signal(signal.SIGTERM)
            last = line
    assert process.returncode == 130
    assert last == "c2gm-export: error: stopped; nothing half-written is left\n"
    assert not list((copy / "engines").iterdir())
