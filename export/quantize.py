"""A float32 bundle -> the same in INT8: static, calibrated on real windows, checked in pictures.

Convolutions and matrix products with weights are quantised (QDQ nodes, weights per channel, signed
7 bits so that processors without VNNI cannot overflow, activations unsigned 8 bits). Attention's
own products, normalisation, time embedding and the scheduler's arithmetic stay in float32, and so
do the layers whose quantisation changes the generated pictures most: every layer is tried alone.
"""

import json
import logging
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from onnxruntime.quantization import CalibrationDataReader, QuantType, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

from c2gm.export.onnx import check_onnx
from c2gm.export.output import PARITY_NAME, SUFFIX
from c2gm.model.data.dataset import Sample, open_sampler
from c2gm.model.data.sampler import SamplerOptions
from c2gm.model.evaluation.bundle_painter import BundlePainter
from c2gm.model.evaluation.evaluate import EvaluateOptions, evaluate
from c2gm.model.evaluation.metrics import Pictures
from c2gm.model.evaluation.scores import Networks
from c2gm.runtime.backends.base import Graph, Tensors
from c2gm.runtime.backends.onnxruntime import OnnxRuntimeBackend
from c2gm.runtime.bundle import Bundle, file_spec
from c2gm.runtime.contract import GRAPHS, WINDOW_GRAPHS, GraphName, GraphSpec
from c2gm.runtime.errors import ParityError
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.manifest import write_manifest

QUANTIZED = WINDOW_GRAPHS
"""Graphs that windows pass through; the others stay as they are."""

LAYERS = ("Conv", "MatMul")

PSNR_LOSS_DB, SSIM_LOSS = 0.1, 0.002
"""What quantising may cost against the true maps; a bundle that loses more is not written."""

MOST_DRAWS = 32
"""Training windows that are looked at for each probe."""

LEAST_ERROR = 0.5
"""Square error of a window that counts as right (PSNR 51 dB)."""

Key = TypeVar("Key")
Progress = Callable[[str], None]
Feeds = Sequence[Mapping[str, NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class QuantizePlan:
    """How a bundle is calibrated and checked.

    `dataset`: folder of c2gm-dataset. `windows` of training ground give the ranges of activations;
    on `probes` others, half of them without detail, every layer is tried alone. Layers are left in
    float32, worst first, until what the others lose, added up, is less than `loss_db`: PSNR against
    the true maps, mean over the probes (together they may lose more: errors of many layers are not
    independent; `_quality` decides). `per_level`: validation tiles a level that are scored, with
    and without reference.
    """

    dataset: Path
    windows: int = 32
    probes: int = 16
    loss_db: float = 0.05
    per_level: int = 8
    seed: int = 0


def quantize_bundle(source: Bundle, folder: Path, plan: QuantizePlan, progress: Progress) -> None:
    """Write the INT8 bundle of a float32 one into `folder`, which exists and is empty.

    Raises ParityError where it would lose too much, DataError for an unusable dataset.
    """
    samples = _training_samples(plan)
    progress(f"calibrating on {plan.windows} windows of {plan.dataset}")
    feeds = _record(source, samples[: plan.windows])
    with tempfile.TemporaryDirectory(prefix=".int8.", dir=folder.parent) as scratch:
        probe = _Probe(source, samples[plan.windows :], Path(scratch))
        layers: dict[GraphName, _Layers] = {}
        harm: dict[tuple[GraphName, str], float] = {}
        work: dict[tuple[GraphName, str], float] = {}
        for name in QUANTIZED:
            layers[name] = _Layers(source.graph_path(name), feeds.pop(name), Path(scratch))
            work |= {(name, layer): value for layer, value in layers[name].work.items()}
            progress(f"{name}: quantising {len(layers[name].names)} layers, one by one")
            for layer in layers[name].names:
                harm[name, layer] = probe.harm({name: layers[name].quantised({layer})})
        chosen = within_budget(harm, work, plan.loss_db)
        written = {
            name: own.quantised({layer for layer in own.names if (name, layer) in chosen})
            for name, own in layers.items()
        }
        changed_db = round(probe.likeness_db(written), 2)
        for graph in GRAPHS:
            path = source.graph_path(graph)
            shutil.copyfile(written.get(graph, path), folder / path.name)
    for name in QUANTIZED:
        check_onnx(folder / source.graph_path(name).name)
    progress(f"{len(chosen)} of {len(harm)} layers in INT8; scoring held-out ground")
    quality = {
        "fp32": _quality(source, plan),
        "int8": _quality(replace(source, folder=folder), plan),
    }
    report = {
        "plan": asdict(plan) | {"dataset": plan.dataset.resolve().name},
        "layers": len(harm),
        "work_in_int8": round(sum(work[layer] for layer in chosen) / sum(work.values()), 4),
        "layers_in_float32": [
            f"{name}: {layer}" for name, layer in harm if (name, layer) not in chosen
        ],
        "pictures_against_float32_db": changed_db,
        "harm_db": {f"{name}: {layer}": round(value, 5) for (name, layer), value in harm.items()},
        "quality": quality,
        "losses": check_losses(quality),
    }
    _write_rest(source, folder, report)


def within_budget(harm: Mapping[Key, float], work: Mapping[Key, float], budget: float) -> set[Key]:
    """The layers that do the least harm for their work, as long as it adds up to `budget` at most.

    `harm`: in any unit that adds up; `work`: operations.
    """
    chosen, total = set[Key](), 0.0
    for layer in sorted(harm, key=lambda layer: harm[layer] / work[layer]):
        if total + harm[layer] <= budget:
            total += harm[layer]
            chosen.add(layer)
    return chosen


def check_losses(quality: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """What INT8 loses, by set of tiles: PSNR-Y in dB, SSIM-Y. Raises ParityError for too much."""
    limits = {"psnr_y": PSNR_LOSS_DB, "ssim_y": SSIM_LOSS}
    losses: dict[str, Any] = {}
    for condition, scores in quality["fp32"].items():
        lost = {name: scores[name] - quality["int8"][condition][name] for name in limits}
        if any(lost[name] > limit for name, limit in limits.items()):
            raise ParityError(
                f"in INT8 {condition} lose {lost['psnr_y']:.3f} dB PSNR-Y "
                f"and {lost['ssim_y']:.4f} SSIM-Y, accepted are {PSNR_LOSS_DB} and {SSIM_LOSS}; "
                "nothing was written, use fp32"
            )
        losses[condition] = {name: round(value, 5) for name, value in lost.items()}
    return losses


def _training_samples(plan: QuantizePlan) -> list[Sample]:
    """Windows of training ground, with every kind of reference and with none."""
    options = SamplerOptions(
        sides=(TILE_SIZE,),
        side_weights=(1.0,),
        no_reference_share=0.4,
        degraded_share=0.5,
        augment=False,
    )
    sampler = open_sampler(plan.dataset, "train", plan.seed, options)
    samples = [sampler.batch(index, 1)[0] for index in range(plan.windows)]
    probes: dict[bool, list[Sample]] = {True: [], False: []}
    # Ground without detail is rare in training, and may be missing from small datasets.
    for index in range(plan.windows, plan.windows + MOST_DRAWS * plan.probes):
        sample = sampler.batch(index, 1)[0]
        if len(probes[sample.detail]) < plan.probes // 2:
            probes[sample.detail].append(sample)
        if sum(map(len, probes.values())) == plan.probes // 2 * 2:
            break
    return samples + probes[True] + probes[False]


class _Recorder(OnnxRuntimeBackend):
    """Keeps what its graphs are given."""

    def __init__(self, bundle: Bundle, name: str, provider: str) -> None:
        super().__init__(bundle, name, provider)
        self.feeds: dict[GraphName, list[Tensors]] = {graph: [] for graph in GRAPHS}

    def load(self, graph: GraphName) -> Graph:
        """See `OnnxRuntimeBackend.load`."""
        return _Recorded(super().load(graph), self.feeds[graph])


@dataclass(frozen=True, slots=True)
class _Recorded:
    graph: Graph
    feeds: list[Tensors]

    def run(self, inputs: Tensors) -> Tensors:
        """See `Graph.run`."""
        self.feeds.append({name: array.copy() for name, array in inputs.items()})
        return self.graph.run(inputs)


def _record(bundle: Bundle, samples: Sequence[Sample]) -> dict[GraphName, list[Tensors]]:
    """What each graph is given while the bundle paints the samples."""
    backend = _Recorder.cpu(bundle)
    assert isinstance(backend, _Recorder)
    painter = BundlePainter(bundle, backend)
    painter.paint(samples)
    painter.close()
    return backend.feeds


class _Probe:
    """Pictures of some windows by a bundle, some of whose graphs are replaced.

    On plain ground the float32 model is nearly right, and what would not be seen elsewhere shows: a
    change is measured against the error that is there without it.
    """

    def __init__(self, bundle: Bundle, samples: Sequence[Sample], scratch: Path) -> None:
        self._bundle, self._samples = replace(bundle, folder=scratch / "probe"), samples
        self._graphs = {name: bundle.graph_path(name).resolve() for name in GRAPHS}
        self._expected = self._paint({})
        truth = np.stack([sample.target for sample in samples])
        self._error = np.maximum(_square_error(self._expected, truth), LEAST_ERROR)

    def harm(self, replaced: Mapping[GraphName, Path]) -> float:
        """PSNR that a change costs, dB: mean over the windows, as if errors were independent."""
        change = _square_error(self._paint(replaced), self._expected)
        return float((10 * np.log10(1 + change / self._error)).mean())

    def likeness_db(self, replaced: Mapping[GraphName, Path]) -> float:
        """PSNR against the bundle's own pictures, over all windows."""
        change = _square_error(self._paint(replaced), self._expected).mean()
        return float(10 * np.log10(255.0**2 / max(change, 1e-9)))

    def _paint(self, replaced: Mapping[GraphName, Path]) -> Pictures:
        folder = self._bundle.folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, path in self._graphs.items():
            (folder / path.name).symlink_to(replaced.get(name, path))
        painter = BundlePainter(self._bundle, OnnxRuntimeBackend.cpu(self._bundle))
        try:
            return painter.paint(self._samples)
        finally:
            painter.close()


def _square_error(pictures: Pictures, others: Pictures) -> NDArray[np.float64]:
    """Mean square difference of each picture (n, H, H, 3), in steps of 1/255."""
    error = pictures.astype(np.float64) - others
    return np.asarray(np.square(error).mean(axis=(1, 2, 3)))


class _Layers:
    """The layers of a graph that can be quantised, and the ranges of their activations."""

    def __init__(self, source: Path, feeds: Sequence[Tensors], scratch: Path) -> None:
        prepared = scratch / source.name
        self._target = scratch / f"int8.{source.name}"
        with _quiet():
            # Folds constants and batch norms, infers shapes.
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            calibrator = create_calibrator(
                prepared, LAYERS, augmented_model_path=str(scratch / "augmented.onnx")
            )
            calibrator.collect_data(_Reader(feeds))
            self._ranges = calibrator.compute_data()
        self._model = onnx.load(prepared)
        constants = {tensor.name: tensor.dims for tensor in self._model.graph.initializer}
        nodes = [
            node
            for node in self._model.graph.node
            if node.op_type in LAYERS and node.input[1] in constants
        ]
        self.names = [node.name for node in nodes]
        shapes = self._output_shapes([node.output[0] for node in nodes], feeds[0])
        self.work = {}
        """Multiplications and additions of each layer for one window."""
        for node, shape in zip(nodes, shapes, strict=True):
            weight = constants[node.input[1]]
            inner = weight[0] if node.op_type == "MatMul" else math.prod(weight[1:])
            self.work[node.name] = 2.0 * math.prod(shape) * inner

    def _output_shapes(self, tensors: Sequence[str], feed: Tensors) -> list[tuple[int, ...]]:
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        model.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in tensors)
        session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return [output.shape for output in session.run(list(tensors), dict(feed))]

    def quantised(self, layers: set[str]) -> Path:
        """A file with these layers in INT8; it lasts until the next call."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        if layers:
            with _quiet():
                quantizer = QDQQuantizer(
                    model,
                    per_channel=True,
                    reduce_range=True,
                    weight_qType=QuantType.QInt8,
                    activation_qType=QuantType.QUInt8,
                    tensors_range=self._ranges,
                    nodes_to_quantize=sorted(layers),
                    nodes_to_exclude=[],
                    op_types_to_quantize=list(LAYERS),
                    # Products have kernels that give floats: quantising their output loses more.
                    extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
                )
                quantizer.quantize_model()
                quantizer.model.topological_sort()
                model = quantizer.model.model
        model.producer_name = "c2gm-export"
        onnx.save(model, self._target)
        return self._target


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
    def __init__(self, feeds: Sequence[Tensors]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Tensors | None:
        """See `CalibrationDataReader`."""
        return next(self._feeds, None)


def _quality(bundle: Bundle, plan: QuantizePlan) -> dict[str, dict[str, float]]:
    """Scores of validation tiles against the true maps, by condition, all and detailed ones."""
    painter = BundlePainter(bundle, OnnxRuntimeBackend.cpu(bundle))
    options = EvaluateOptions(plan.dataset, plan.per_level, "both")
    report = evaluate(painter, options, Networks(), lambda *_: None).report
    painter.close()
    scores: dict[str, dict[str, float]] = {}
    for condition, content in report["conditions"].items():
        for name in ("all", "detailed"):
            overall = content[name]["overall"]
            values = {score: overall["model"][score] for score in ("psnr_y", "ssim_y")}
            key = f"{name} tiles {condition.replace('_', ' ')}"
            scores[key] = {"tiles": overall["tiles"], **values}
    return scores


def _write_rest(source: Bundle, folder: Path, report: Mapping[str, Any]) -> None:
    """The other files of the bundle, the manifest last."""
    manifest = source.manifest
    for spec in manifest.files:
        shutil.copyfile(source.folder / spec.name, folder / spec.name)
    parity = json.loads((source.folder / PARITY_NAME).read_text(encoding="utf-8"))
    text = json.dumps({"float32": parity, "int8": report}, indent=1) + "\n"
    (folder / PARITY_NAME).write_text(text, encoding="utf-8")
    graphs: dict[str, GraphSpec] = {
        name: replace(spec, files=tuple(file_spec(folder, file.name) for file in spec.files))
        for name, spec in manifest.graphs.items()
    }
    write_manifest(
        folder,
        replace(
            manifest,
            name=folder.name.removesuffix(SUFFIX),
            precision="int8",
            graphs=graphs,
            files=tuple(file_spec(folder, spec.name) for spec in manifest.files),
        ),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser's advice is of no use to whoever exports."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
