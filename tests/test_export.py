"""export/: what c2gm-export writes computes what the torch model does, or nothing is written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from numpy.typing import NDArray
from polygraphy.tools import main as polygraphy
from tiny import tiny_config, tiny_model

from c2gm.export import pack
from c2gm.export.cases import CheckPlan, reference_cases
from c2gm.export.cli import main, read_provenance
from c2gm.export.graphs import GRAPH_CLASSES, ConditionGraph, Graph, attention
from c2gm.export.onnx import export_onnx
from c2gm.export.pack import export_bundle
from c2gm.export.parity import Parity, inner_runner, onnx_runner
from c2gm.model.config import AutoencoderConfig
from c2gm.model.sgdm import SGDM
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.contract import GRAPHS
from c2gm.runtime.errors import OutputError, ParityError, WeightsError
from c2gm.runtime.levels import scale_prompt
from c2gm.runtime.schedule import NoiseSchedule

SMALL = CheckPlan(windows=((1, 64),), steps=2, spread=4, every_step=None)


def kl_model() -> SGDM:
    """As `full`: KL autoencoder and epsilon prediction; without eq. 8."""
    config = tiny_config()
    channels = (8, 8, 8, 8)
    autoencoder = AutoencoderConfig("kl", 4, 0.18215, channels, channels, 1, 1)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return SGDM(
            replace(
                config,
                autoencoder=autoencoder,
                condition=replace(config.condition, reference_latent_channels=0),
                schedule=NoiseSchedule(),
            )
        ).eval()


@pytest.fixture(scope="module")
def half_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half") / "half.c2gm"
    return export_bundle(kl_model(), folder, "fp16", plan=SMALL)


def test_a_bundle_holds_at_other_batch_and_window_sizes(tiny_bundle: Path) -> None:
    """The graphs were traced with 2 rows of 128 px and packed with 256 px."""
    model, plan = tiny_model(), CheckPlan(((1, 64), (5, 192)), 3, 6, None)
    parity = Parity(reference_cases(model, plan, seed=5), "fp32", model.config.schedule, plan)
    bundle = Bundle.read(tiny_bundle)
    for name in GRAPHS:
        parity.check_onnx(GRAPH_CLASSES[name](model, "fp32"), bundle.graph_path(name))
    assert parity.psnr_db is not None and parity.psnr_db > 80
    assert {output.cases for output in parity.outputs if output.graph == "denoise"} == {3 + 6 + 2}


def test_the_embeddings_are_those_of_the_prompts(tiny_bundle: Path) -> None:
    embeddings = Bundle.read(tiny_bundle).embeddings
    states, pooled = tiny_model().encode_prompts([scale_prompt(15, 1)])
    row = embeddings.row(15, 1)
    np.testing.assert_allclose(embeddings.states[row], states[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(embeddings.pooled[row], pooled[0].numpy(), atol=1e-5)


def test_inactive_rows_stay_and_leave_the_others_alone(tiny_bundle: Path) -> None:
    """A slot that is empty or done may hold anything, even NaN."""
    model = tiny_model()
    case = reference_cases(model, CheckPlan(((2, 64),), 1, 2, None)).cases["denoise"][0]
    run = onnx_runner(Bundle.read(tiny_bundle).graph_path("denoise"))
    alone = run(case.inputs)
    inputs: dict[str, NDArray[Any]] = {name: array.copy() for name, array in case.inputs.items()}
    inputs["active"][1] = 0
    inputs["previous_x0"][1] = 7
    for name in ("latents", "feature_0", "coefficients"):
        inputs[name][1] = np.nan
    found = run(inputs)
    assert np.isnan(found["next_latents"][1]).all() and (found["x0"][1] == 7).all()
    assert found["change"][1] == 0 and found["change"][0] > 0
    for name, array in alone.items():
        np.testing.assert_allclose(found[name][0], array[0], rtol=1e-5, atol=1e-5)


def test_half_precision_stands_in_the_graph_with_islands_of_float32(half_bundle: Path) -> None:
    manifest = Bundle.read(half_bundle).manifest
    assert manifest.precision == "fp16"
    features = [t for t in manifest.graphs["condition"].outputs if t.name.startswith("feature")]
    assert {tensor.dtype for tensor in features} == {"float16"}
    others = {t.dtype for n in ("denoise", "vae_decoder") for t in manifest.graphs[n].outputs}
    assert others == {"float32", "uint8"}
    kinds: dict[str, set[int]] = {}
    for name in GRAPHS:
        graph = onnx_ir.load(half_bundle / f"{name}.onnx").graph
        for node in graph:
            kinds.setdefault(node.op_type, set()).add(int(node.outputs[0].dtype or 0))
    half, full = {int(onnx.TensorProto.FLOAT16)}, {int(onnx.TensorProto.FLOAT)}
    assert kinds["Conv"] == kinds["MatMul"] == half
    islands = ("Softmax", "InstanceNormalization", "LayerNormalization", "BatchNormalization")
    assert all(kinds[name] == full for name in islands)
    report = json.loads((half_bundle / "parity.json").read_text(encoding="utf-8"))
    assert min(report["half_precision_tensors_scanned"].values()) > 10
    assert {output["candidate"] for output in report["outputs"]} == {"onnxruntime", "torch fp16"}


def test_half_precision_attention_survives_products_beyond_its_range() -> None:
    """Stable Diffusion 2.x: query times key is over 65504 before scaling (black pictures)."""
    query = torch.full((1, 1, 3, 64), 40.0).half()
    key, value = torch.full((1, 1, 5, 64), 40.0).half(), torch.arange(320.0).reshape(1, 1, 5, 64)
    assert torch.isinf(query @ key.transpose(-2, -1)).all()
    found = attention(query, key, value.half())
    torch.testing.assert_close(found.float()[0, 0, 0], value.mean(dim=2)[0, 0], atol=0.2, rtol=0)


def test_an_overflow_inside_a_half_graph_is_found(tmp_path: Path) -> None:
    """ONNX Runtime's CPU kernels don't show it in any output: only the scan does."""
    model = tiny_model()
    with torch.no_grad():
        model.mf_encoder.get_submodule("reference_stem.0").get_parameter("weight").mul_(1e5)
        model.mf_encoder.get_submodule("reference_scales.0.0").get_parameter("weight").mul_(1e-3)
    parity = Parity(reference_cases(model, SMALL), "fp16", model.config.schedule, SMALL)
    graph = ConditionGraph(model, "fp16")
    with pytest.raises(ParityError, match="infinity in half-precision tensor"):
        parity.check_onnx(graph, export_onnx(graph, tmp_path)[0])
    with pytest.raises(ParityError, match="of torch fp16"):
        parity.check_torch(graph)


def test_a_graph_that_differs_fails_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault after tracing: one weight of the U-Net's output is off by a fifth."""

    def export_wrongly(graph: Graph, folder: Path) -> tuple[Path, ...]:
        files = export_onnx(graph, folder)
        if graph.name == "denoise":
            model = onnx.load(files[0])
            weight = next(i for i in model.graph.initializer if i.name.endswith("conv_out.weight"))
            values = onnx.numpy_helper.to_array(weight).copy()
            values.flat[0] *= 1.2
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
            onnx.save(model, files[0])
        return files

    monkeypatch.setattr(pack, "export_onnx", export_wrongly)
    with pytest.raises(ParityError, match="denoise.*nothing was written"):
        export_bundle(tiny_model(), tmp_path / "wrong.c2gm", plan=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bundle_stays_unless_a_whole_new_one_replaces_it(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    target = tmp_path / "map.c2gm"
    with pytest.raises(OutputError, match="not a bundle"):
        export_bundle(tiny_model(), _folder(target), plan=SMALL, overwrite=True)
    target.rmdir()
    for file in tiny_bundle.iterdir():
        _folder(target).joinpath(file.name).write_bytes(file.read_bytes())
    before = Bundle.read(target).fingerprint
    with pytest.raises(OutputError, match="--overwrite"):
        export_bundle(tiny_model(), target, plan=SMALL)
    assert Bundle.read(target).fingerprint == before
    export_bundle(tiny_model(seed=3), target, plan=SMALL, overwrite=True)
    assert Bundle.read(target).fingerprint != before
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("text_encoder", []),
        ("vae_decoder", []),
        ("condition", ["imagery:[1,3,64,64]", "reference:[1,3,64,64]", "has_reference:[1]"]),
        ("vae_encoder", ["image:[1,3,64,64]"]),
    ],
)
def test_polygraphy_finds_nothing(tiny_bundle: Path, name: str, shapes: list[str]) -> None:
    """Of the graphs as they ship. Shapes are given where lint's own (one pixel) do not suit.

    The denoise graph is left to a check by hand: lint starts a session for every node.
    """
    given = ["--input-shapes", *shapes] if shapes else []
    assert polygraphy(["check", "lint", str(tiny_bundle / f"{name}.onnx"), *given]) == 0


def test_every_time_step_is_compared() -> None:
    cases = reference_cases(tiny_model(), CheckPlan(((1, 64),), 1, 1, 64)).cases["denoise"]
    compared = {int(case.inputs["timestep"][0]) for case in cases}
    assert compared == set(range(1000))


def test_no_constant_is_left_to_fold(tiny_bundle: Path, half_bundle: Path) -> None:
    for path in (*tiny_bundle.glob("*.onnx"), *half_bundle.glob("*.onnx")):
        graph = onnx_ir.load(path).graph
        constant = {value.name for value in graph.initializers.values()}
        for node in graph:
            names = [value.name for value in node.inputs if value is not None]
            # Weights stored as halves are the exception: Cast brings them back (storage.py).
            assert node.op_type == "Cast" or not set(names) <= constant, (path.name, node.name)


def test_no_tensor_of_a_half_graph_goes_unscanned(half_bundle: Path) -> None:
    """The scan knows tensors by their recorded types: every node's output must have one."""
    for path in half_bundle.glob("*.onnx"):
        model = onnx.load(path)
        known = {v.name for v in (*model.graph.value_info, *model.graph.output)}
        assert {name for node in model.graph.node for name in node.output if name} <= known
    assert len(inner_runner(half_bundle / "denoise.onnx")[0]) > 300


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--preset", "nope", "--random-weights"], 2),
        (["--preset", "full"], 2),
        (["--checkpoint", "a.safetensors", "--random-weights"], 2),
        (["--precision", "int3"], 2),
        (["--output", "map"], 2),
        (["--checkpoint", "absent.safetensors"], 11),
        (["--checkpoint", "text.safetensors"], 11),
        (["--output", "taken.c2gm"], 8),
    ],
)
def test_wrong_input_has_one_line_and_its_exit_code(
    arguments: list[str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.safetensors").write_text("not a tensor")
    Path("taken.c2gm").mkdir()
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in " ".join(lines)
    if code != 2 or "--precision" not in arguments:  # typer words that one itself
        assert lines[-1].startswith("c2gm-export: error: ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["taken.c2gm", "text.safetensors"]


def test_provenance_stands_beside_the_weights(tmp_path: Path) -> None:
    weights, card = tmp_path / "w.safetensors", tmp_path / "w.json"
    assert read_provenance(weights).licence == "not stated"
    stated = {"weights": "w", "licence": "CC0-1.0", "attribution": "a", "training_data": ["d"]}
    card.write_text(json.dumps(stated))
    assert read_provenance(weights).training_data == ("d",)
    for wrong in (
        {**stated, "more": 1},
        {**stated, "licence": 3},
        {**stated, "training_data": "d"},
    ):
        card.write_text(json.dumps(wrong))
        with pytest.raises(WeightsError):
            read_provenance(weights)


def _folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path
