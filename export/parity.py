"""torch = ONNX Runtime, per output and in pixels; fails closed.

Every graph is compared with the float32 torch model on the cases of `cases.py`. ONNX Runtime's CPU
kernels compute half precision in float32, which hides its faults; so an FP16 graph is also run with
every half-precision intermediate made an output (NaN and infinity show there), and the half-
precision module itself is run in torch, which rounds after every operation.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from c2gm.export.cases import Arrays, Case, CheckPlan, Reference
from c2gm.export.graphs import Graph, Precision, exportable
from c2gm.runtime.contract import GraphName, TensorSpec
from c2gm.runtime.errors import ParityError
from c2gm.runtime.schedule import NoiseSchedule

Runner = Callable[[Arrays], Arrays]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest accepted errors.

    `maximum`, `mean`: of float outputs, as a share of the reference's root mean square.
    `image_mean`: of the decoded picture in steps of 1/255. `psnr_db`: of a whole sampling run.
    """

    maximum: float
    mean: float
    image_mean: float
    psnr_db: float


TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(maximum=1e-3, mean=2e-5, image_mean=0.01, psnr_db=60.0),
    "fp16": Tolerance(maximum=5e-2, mean=5e-3, image_mean=0.5, psnr_db=40.0),
}


@dataclass(frozen=True, slots=True)
class OutputParity:
    """The worst of all cases of one output; errors as in `Tolerance`."""

    graph: GraphName
    output: str
    candidate: str
    cases: int
    max_error: float
    mean_error: float
    worst_case: str


@dataclass(slots=True)
class Parity:
    """Collects comparisons; every method raises ParityError beyond tolerance or on NaN."""

    reference: Reference
    precision: Precision
    schedule: NoiseSchedule
    plan: CheckPlan
    outputs: list[OutputParity] = field(default_factory=list)
    scanned_tensors: dict[str, int] = field(default_factory=dict)
    psnr_db: float | None = None
    _sampling: dict[str, NDArray[Any]] = field(default_factory=dict)

    def check_torch(self, graph: Graph) -> None:
        """Compare the module that was exported (worth its time for half precision)."""

        def run(inputs: Arrays) -> Arrays:
            with exportable():
                results = graph(*(torch.from_numpy(inputs[s.name]) for s in graph.inputs))
            results = results if isinstance(results, tuple) else (results,)
            pairs = zip(graph.outputs, results, strict=True)
            return {spec.name: tensor.numpy() for spec, tensor in pairs}

        self._compare(graph, run, f"torch {self.precision}", self.reference.cases[graph.name])

    def check_onnx(self, graph: Graph, path: Path) -> None:
        """Compare an ONNX file, scan it, and take its part of the whole sampling run.

        Graphs come in the order of `GRAPHS`: sampling uses what the ones before have computed.
        """
        run = onnx_runner(path)
        self._compare(graph, run, "onnxruntime", self.reference.cases[graph.name])
        self._sample(graph, run)
        del run
        if self.precision == "fp16":
            self._scan(graph, path)

    def report(self) -> dict[str, object]:
        """What `parity.json` holds."""
        return {
            "compared": "float32 torch model against the exported graphs",
            "precision": self.precision,
            "versions": {"torch": torch.__version__, "onnxruntime": ort.__version__},
            "unit": "share of the reference's root mean square; images in steps of 1/255",
            "tolerance": asdict(TOLERANCES[self.precision]),
            "plan": asdict(self.plan),
            "sampling_psnr_db": self.psnr_db,
            "half_precision_tensors_scanned": self.scanned_tensors,
            "outputs": [asdict(output) for output in self.outputs],
        }

    def _compare(self, graph: Graph, run: Runner, candidate: str, cases: list[Case]) -> None:
        worst: dict[str, tuple[float, float, str]] = {}
        for case in cases:
            found = run(_cast(case.inputs, graph.inputs))
            for name, expected in case.outputs.items():
                largest, mean = _errors(found[name], expected)
                where = f"{graph.name}.{name} of {candidate}, {case.label}"
                self._accept(where, largest, mean, expected.dtype == np.uint8)
                before = worst.get(name, (-1.0, -1.0, ""))
                label = case.label if largest > before[0] else before[2]
                worst[name] = (max(largest, before[0]), max(mean, before[1]), label)
        self.outputs += [
            OutputParity(graph.name, name, candidate, len(cases), *figures)
            for name, figures in worst.items()
        ]

    def _accept(self, where: str, largest: float, mean: float, image: bool) -> None:
        tolerance = TOLERANCES[self.precision]
        if not np.isfinite(largest):
            raise ParityError(
                f"{where}: NaN or infinity; nothing was written, check the weights or use fp32"
            )
        limit = tolerance.image_mean if image else tolerance.mean
        # A picture may differ by a step where a value lies on a rounding border: its mean counts.
        if mean > limit or (not image and largest > tolerance.maximum):
            raise ParityError(
                f"{where}: errors up to {largest:.2g}, mean {mean:.2g}, accepted are "
                f"{tolerance.maximum:.2g} and {limit:.2g} in {self.precision}; nothing was written"
            )

    def _sample(self, graph: Graph, run: Runner) -> None:
        """This graph's part of sampling the first window with exported graphs alone."""
        state = self._sampling
        first = self.reference.cases[graph.name][0]
        if graph.name == "condition":
            state.update(run(_cast(first.inputs, graph.inputs)))
        elif graph.name == "denoise":
            shared = {name: first.inputs[name] for name in ("states", "pooled")} | state
            latents, previous = self.reference.noise, np.zeros_like(self.reference.noise)
            rows = np.ones(len(latents), np.float32)
            steps = zip(
                self.schedule.timesteps(self.plan.steps),
                self.schedule.ddim_coefficients(self.plan.steps).astype(np.float32),
                strict=True,
            )
            for t, coefficients in steps:
                inputs = shared | {
                    "latents": latents,
                    "previous_x0": previous,
                    "timestep": np.full(len(latents), t),
                    "coefficients": np.tile(coefficients, (len(latents), 1)),
                    "active": rows,
                }
                outputs = run(inputs)
                latents, previous = outputs["next_latents"], outputs["x0"]
            self._sampling = {"latents": latents}
        elif graph.name == "vae_decoder":
            image = run(state)["image"].transpose(0, 2, 3, 1)
            self.psnr_db = psnr(image, self.reference.pictures)
            minimum = TOLERANCES[self.precision].psnr_db
            if not self.psnr_db >= minimum:
                raise ParityError(
                    f"a sampling run of the exported graphs differs from torch: {self.psnr_db:.1f} "
                    f"dB, at least {minimum:.0f} dB are accepted in {self.precision}; nothing was "
                    "written"
                )

    def _scan(self, graph: Graph, path: Path) -> None:
        """Run with every half-precision intermediate as an output; none may be NaN or infinite."""
        names, run = inner_runner(path)
        for case in self.reference.cases[graph.name]:
            for name, array in run(_cast(case.inputs, graph.inputs)).items():
                if not np.isfinite(array).all():
                    raise ParityError(
                        f"{graph.name}: NaN or infinity in half-precision tensor {name!r}, "
                        f"{case.label}; nothing was written, export in fp32"
                    )
        self.scanned_tensors[graph.name] = len(names)


def onnx_runner(path: Path, outputs: list[str] | None = None) -> Runner:
    """Runs an ONNX file on ONNX Runtime's CPU provider."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = outputs or [value.name for value in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run


def inner_runner(path: Path) -> tuple[list[str], Runner]:
    """The half-precision tensors inside an ONNX file, and a runner that yields them all."""
    # External data stays where it is: the scanned copy lies beside it and refers to it.
    model = onnx.load(path, load_external_data=False)
    known = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    names = [
        name
        for node in model.graph.node
        for name in node.output
        if name in known and known[name].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    ]
    present = {value.name for value in model.graph.output}
    model.graph.output.extend(known[name] for name in names if name not in present)
    opened = path.with_name(f"{path.stem}.scan.onnx")
    try:
        onnx.save(model, opened)
        return names, onnx_runner(opened, names)
    finally:
        opened.unlink(missing_ok=True)


def psnr(image: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pictures; equal ones count as one step off."""
    error = np.square(image.astype(np.float64) - expected).mean()
    return float(10.0 * np.log10(255.0**2 / max(error, 1.0 / expected.size)))


def _errors(found: NDArray[Any], expected: NDArray[Any]) -> tuple[float, float]:
    """Largest and mean absolute error, of floats relative to the expected root mean square."""
    if found.shape != expected.shape:
        raise ParityError(f"shape {found.shape}, expected {expected.shape}; nothing was written")
    if expected.size == 0:
        return 0.0, 0.0
    wanted = expected.astype(np.float64)
    error = np.abs(found.astype(np.float64) - wanted)
    if expected.dtype == np.uint8:
        return float(error.max()), float(error.mean())
    scale = max(float(np.sqrt(np.square(wanted).mean())), 1e-6)
    return float(error.max()) / scale, float(error.mean()) / scale


def _cast(arrays: Mapping[str, NDArray[Any]], specs: tuple[TensorSpec, ...]) -> Arrays:
    """The graph's inputs in the dtypes of its interface."""
    return {s.name: np.ascontiguousarray(arrays[s.name].astype(s.dtype, copy=False)) for s in specs}
