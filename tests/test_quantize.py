"""INT8: layers are quantised where that does little harm, and too much harm is refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from blocks import GROUND, write_blocks
from hypothesis import given
from hypothesis import strategies as st

from c2gm.export import quantize
from c2gm.export.cli import main
from c2gm.export.pack import new_bundle
from c2gm.export.quantize import (
    QuantizePlan,
    check_losses,
    quantize_bundle,
    within_budget,
)
from c2gm.model.data.mosaic import Extent
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.contract import GraphName
from c2gm.runtime.errors import ParityError
from c2gm.runtime.infer import run
from c2gm.runtime.job import InferOptions
from c2gm.runtime.progress import QuietReport

GRAPHS: tuple[GraphName, ...] = ("condition", "vae_decoder")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks of which the western half is held out."""
    folder = tmp_path_factory.mktemp("dataset")
    blocks = np.random.default_rng(0).integers(60, 250, (16, 16, 3), dtype=np.uint8)
    half = Extent(GROUND.left, GROUND.top, GROUND.width // 2, GROUND.height)
    write_blocks(folder, blocks, (13, 14), held_out=half)
    return folder


@pytest.fixture(scope="module")
def eight(tiny_bundle: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    output = tmp_path_factory.mktemp("eight") / "eight.c2gm"
    plan = QuantizePlan(dataset, windows=3, probes=2, loss_db=1e-6, per_level=2)
    with pytest.MonkeyPatch.context() as patch, new_bundle(output, overwrite=False) as folder:
        patch.setattr(quantize, "QUANTIZED", GRAPHS)  # the denoiser's many layers take a minute
        quantize_bundle(Bundle.read(tiny_bundle), folder, plan, lambda line: None)
    return Bundle.read(output)


def test_just_the_layers_that_the_report_does_not_except_are_quantised(eight: Bundle) -> None:
    report = json.loads((eight.folder / "parity.json").read_text(encoding="utf-8"))["int8"]
    assert eight.manifest.precision == "int8"
    count = 0
    for name in GRAPHS:
        model = onnx.load(eight.graph_path(name))
        makers = {output: node for node in model.graph.node for output in node.output}
        kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type not in ("Conv", "MatMul") or node.input[1] not in {*makers, *kinds}:
                continue
            weights = makers.get(node.input[1])
            quantised = (
                weights is not None
                and weights.op_type == "DequantizeLinear"
                and kinds.get(weights.input[0]) == onnx.TensorProto.INT8
            )
            count += quantised
            assert not (quantised and f"{name}: {node.name}" in report["layers_in_float32"])
    assert count == report["layers"] - len(report["layers_in_float32"])
    assert 0 < count < report["layers"]
    assert 0.2 < report["work_in_int8"] < 1


def test_pictures_stay_as_near_as_asked_for_and_on_both_backends(
    eight: Bundle, tiny_bundle: Path, small_scene: Path, tmp_path: Path
) -> None:
    report = json.loads((eight.folder / "parity.json").read_text(encoding="utf-8"))["int8"]
    assert report["pictures_against_float32_db"] > 55
    for backend in ("onnxruntime", "openvino"):
        output = tmp_path / f"{backend}.mbtiles"
        options = InferOptions(small_scene, "13-14", output, eight.folder, backend, steps=2)
        summary = run(options, QuietReport())
        assert sum(summary.tiles.values()) > 1 and "int8" in summary.model


@given(
    layers=st.dictionaries(
        st.integers(0, 40), st.tuples(st.floats(0, 10), st.floats(0.01, 5)), min_size=1
    ),
    budget=st.floats(0, 30),
)
def test_the_budget_is_kept_and_used(layers: dict[int, tuple[float, float]], budget: float) -> None:
    harm = {layer: pair[0] for layer, pair in layers.items()}
    chosen = within_budget(harm, {layer: pair[1] for layer, pair in layers.items()}, budget)
    total = sum(harm[layer] for layer in chosen)
    assert total <= budget * (1 + 1e-9)
    assert all(total + harm[layer] > budget * (1 - 1e-9) for layer in harm.keys() - chosen)


def test_what_loses_too_much_is_refused() -> None:
    scores = {"with_reference": {"psnr_y": 30.0, "ssim_y": 0.9}}
    near = {"with_reference": {"psnr_y": 29.95, "ssim_y": 0.8995}}
    assert check_losses({"fp32": scores, "int8": near})["with_reference"]["psnr_y"] == 0.05
    for lost in ({"psnr_y": 29.8, "ssim_y": 0.9}, {"psnr_y": 30.0, "ssim_y": 0.89}):
        with pytest.raises(ParityError, match="nothing was written, use fp32"):
            check_losses({"fp32": scores, "int8": {"with_reference": lost}})


@pytest.mark.parametrize(
    "arguments",
    [["--precision", "int8"], ["--precision", "int8", "--calibrate", "x", "--engine",
     "tensorrt-rtx"]],
)  # fmt: skip
def test_int8_needs_data_and_takes_no_engine(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "--precision int8" in capsys.readouterr().err
