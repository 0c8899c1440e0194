"""The same weights run in other people's manner, on the same tiles in the same run.

- `authors`: as C2GM's public code samples: torch, 50 steps, the conditions inside every step, one
  tile at a time.
- `diffusers`: as diffusers' pipelines are used: torch, 20 steps, eight tiles in a batch, the
  conditions inside every step too, for a pipeline knows its U-Net as one call.
- `optimum`: plain ONNX Runtime in the manner of optimum: the exported float32 graphs with the
  library's defaults, all cores inside an operator, conditions in every step, one tile at a time;
  and once more by somebody who knows that library: threads do not spin, conditions once.
- `fastsd`: OpenVINO in the manner of FastSD CPU: the same graphs, compiled for latency.
- `c2gm`: the runtime.

Pictures come from memory and stay there: reading and encoding are `c2gm-bench sheet`'s.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from c2gm.model.data.dataset import Sample, validation_samples
from c2gm.model.data.pairs import PROMPT_INDEX
from c2gm.model.evaluation.bundle_painter import BundlePainter, runtime_sample
from c2gm.model.evaluation.metrics import Pictures, psnr_y, ssim_y
from c2gm.model.sampling import to_pictures
from c2gm.model.sgdm import SGDM
from c2gm.runtime.backends.base import Backend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.contract import WINDOW_GRAPHS, GraphName
from c2gm.runtime.cpu import available_cores
from c2gm.runtime.levels import TILE_SIZE, prompt_keys, scale_prompt
from c2gm.runtime.sampler import Sample as RuntimeSample
from c2gm.runtime.schedule import NoiseSchedule

Window = RuntimeSample[int]

Run = Callable[[dict[str, NDArray[Any]]], Sequence[NDArray[Any]]]


def peer_tiles(dataset: Path, per_level: int) -> list[Sample]:
    """Validation tiles with detail; every second one goes without its reference."""
    samples = validation_samples(dataset, per_level, detailed=True)
    return [
        replace(sample, reference=None, span=None) if index % 2 else sample
        for index, sample in enumerate(samples)
    ]


def time_peer(
    title: str, paint: Callable[[Sequence[Sample]], Pictures], samples: Sequence[Sample]
) -> dict[str, Any]:
    """Seconds a tile, after two tiles of warm-up, and scores against the true maps."""
    paint(samples[:2])
    start = time.perf_counter()
    pictures = paint(samples)
    seconds = (time.perf_counter() - start) / len(samples)
    truth = np.stack([sample.target for sample in samples])
    valid = np.stack([sample.imagery[..., 3] > 0 for sample in samples])
    return {
        "peer": title,
        "tiles": len(samples),
        "seconds_per_tile": seconds,
        "psnr_y": float(psnr_y(pictures, truth, valid).mean()),
        "ssim_y": float(ssim_y(pictures, truth, valid).mean()),
    }


def shown_reference(window: Window) -> NDArray[np.float32]:
    """A window's reference as the network wants it: zeros where there is none."""
    return np.zeros_like(window.imagery) if window.reference is None else window.reference


class TorchPeer:
    """torch, the conditions computed in every step as part of the network's call."""

    def __init__(self, model: SGDM, steps: int, batch: int, schedule: NoiseSchedule) -> None:
        self._model, self._steps, self._batch = model, steps, batch
        self._schedule = schedule
        with torch.inference_mode():
            prompts = [scale_prompt(*key) for key in prompt_keys()]
            self._states, self._pooled = model.encode_prompts(prompts)

    @torch.inference_mode()
    def draw(self, windows: Sequence[Window]) -> Pictures:
        """Pictures (n, H, H, 3) of windows of one side."""
        parts = [
            self._draw(windows[i : i + self._batch]) for i in range(0, len(windows), self._batch)
        ]
        return np.concatenate(parts)

    def _draw(self, windows: Sequence[Window]) -> Pictures:
        model, schedule = self._model, self._schedule
        prompts = [PROMPT_INDEX[window.level, window.span] for window in windows]
        states, pooled = self._states[prompts], self._pooled[prompts]
        imagery = torch.from_numpy(np.stack([window.imagery for window in windows]))
        reference = torch.from_numpy(np.stack([shown_reference(window) for window in windows]))
        has_reference = torch.tensor([float(window.reference is not None) for window in windows])
        latents = torch.from_numpy(np.stack([window.noise for window in windows]))
        coefficients = schedule.ddim_coefficients(self._steps).tolist()
        for t, (c0, c1, c2, c3) in zip(
            schedule.timesteps(self._steps).tolist(), coefficients, strict=True
        ):
            condition = model.condition(imagery, reference, has_reference)
            timestep = torch.full((len(windows),), t)
            output = model.denoise(latents, timestep, states, pooled, condition)
            x0 = c0 * latents + c1 * output
            latents = c2 * x0 + c3 * latents
        pictures: Pictures = to_pictures(model.autoencoder.decode(latents)).numpy()
        return pictures


class PlainGraphs:
    """Exported graphs, one after the other for one tile at a time, conditions in every step."""

    def __init__(
        self,
        bundle: Bundle,
        load: Callable[[Bundle, GraphName], Run],
        steps: int,
        schedule: NoiseSchedule,
        reuse: bool = False,
    ) -> None:
        """`reuse`: compute conditions once a window."""
        self._bundle, self._steps, self._schedule = bundle, steps, schedule
        self._reuse = reuse
        self._condition, self._denoise, self._decode = (
            load(bundle, name) for name in WINDOW_GRAPHS
        )

    def draw(self, windows: Sequence[Window]) -> Pictures:
        """Pictures (n, H, H, 3) of windows of one side."""
        return np.stack([self._draw(window) for window in windows])

    def _draw(self, window: Window) -> Pictures:
        manifest, embeddings = self._bundle.manifest, self._bundle.embeddings
        row = embeddings.row(window.level, window.span)
        imagery, reference = window.imagery[None], shown_reference(window)[None]
        shown = np.array([window.reference is not None], np.float32)
        latents = window.noise[None]
        x0 = np.zeros_like(latents)
        table = self._schedule.ddim_coefficients(self._steps).astype(np.float32)
        names = [spec.name for spec in manifest.graphs["condition"].outputs]
        features: Sequence[NDArray[Any]] = ()
        for t, coefficients in zip(self._schedule.timesteps(self._steps), table, strict=True):
            if not (self._reuse and features):
                features = self._condition(
                    {"imagery": imagery, "reference": reference, "has_reference": shown}
                )
            latents, x0, _ = self._denoise(
                {
                    "latents": latents,
                    "previous_x0": x0,
                    "timestep": np.array([t]),
                    "coefficients": coefficients[None],
                    "active": np.ones(1, np.float32),
                    "states": embeddings.states[row][None],
                    "pooled": embeddings.pooled[row][None],
                }
                | dict(zip(names, features, strict=True))
            )
        (image,) = self._decode({"latents": latents})
        return np.ascontiguousarray(image[0].transpose(1, 2, 0))


Peer = TorchPeer | PlainGraphs


def plain_onnxruntime(bundle: Bundle, graph: GraphName) -> Run:
    """A session with the library's defaults."""
    import onnxruntime as ort

    path = bundle.graph_path(graph)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


def quiet_onnxruntime(bundle: Bundle, graph: GraphName) -> Run:
    """A session whose threads do not spin while they wait: three sessions' pools do not fight."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = bundle.graph_path(graph)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


def plain_openvino(bundle: Bundle, graph: GraphName) -> Run:
    """A graph compiled for one tile with the latency hint. Raises ImportError without OpenVINO."""
    import openvino

    core = openvino.Core()
    model = core.read_model(bundle.graph_path(graph))
    inputs = bundle.manifest.graphs[graph].inputs
    model.reshape({tensor.name: list(tensor.at(1, TILE_SIZE)) for tensor in inputs})
    request = core.compile_model(
        model, "CPU", {"PERFORMANCE_HINT": "LATENCY"}
    ).create_infer_request()

    def run(values: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        results = request.infer(values)
        return [np.array(results[index]) for index in range(len(results))]

    return run


def compare_peers(
    model: SGDM,
    plain: Bundle,
    ours: Sequence[tuple[Bundle, Backend]],
    samples: Sequence[Sample],
    with_openvino: bool,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Every peer on the same tiles; `ratio` is to the fastest of ours. `plain`: in float32."""
    torch.set_num_threads(available_cores())
    few, our_schedule = plain.manifest.default_steps, plain.manifest.schedule
    whole = our_schedule.whole()
    makers: list[tuple[str, Callable[[], Peer]]] = [
        ("authors: torch, 50 steps, a tile at a time", lambda: TorchPeer(model, 50, 1, whole)),
        ("diffusers: torch, 20 steps, batch of 8", lambda: TorchPeer(model, 20, 8, whole)),
        (
            f"diffusers: torch, {few} steps, batch of 8",
            lambda: TorchPeer(model, few, 8, our_schedule),
        ),
    ]
    libraries = {"optimum: ONNX Runtime": plain_onnxruntime}
    if with_openvino:
        libraries["fastsd: OpenVINO"] = plain_openvino
    for title, load in libraries.items():
        for steps, schedule in ((50, whole), (20, whole), (few, our_schedule)):
            plain_peer = partial(PlainGraphs, plain, load, steps, schedule)
            makers.append((f"{title}, {steps} steps", plain_peer))
    tuned = partial(PlainGraphs, plain, quiet_onnxruntime, few, our_schedule, True)
    makers.append((f"ONNX Runtime tuned: no spinning, conditions once, {few} steps", tuned))
    rows: list[dict[str, Any]] = []
    for title, make in makers:
        progress(title)
        peer = make()

        def paint(chosen: Sequence[Sample], peer: Peer = peer) -> Pictures:
            return peer.draw([runtime_sample(plain, i, s) for i, s in enumerate(chosen)])

        rows.append(time_peer(title, paint, samples))
    for bundle, backend in ours:
        title = f"c2gm: {bundle.manifest.name} ({bundle.manifest.precision}), {backend.name}"
        progress(title)
        painter = BundlePainter(bundle, backend)
        rows.append(time_peer(title, painter.paint, samples))
        painter.close()
    fastest = min(row["seconds_per_tile"] for row in rows[-len(ours) :])
    return [row | {"ratio": row["seconds_per_tile"] / fastest} for row in rows]
