"""A run on a GPU that is described, not there: real plan, cascade and batching, modelled engines.

Every figure that comes out of here is modelled. The time of an operator is the larger of its
arithmetic and its memory traffic at rates that good kernels reach, with the loss of an unfilled
last wave of thread blocks, and a gap after every kernel; the host is taken to keep up. What is real
is the code that decides which windows run together and for how long.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2gm.benchmarks.gpu_costs import Operator, count_operators
from c2gm.benchmarks.gpus import GPUS, Gpu
from c2gm.benchmarks.scenes import sheet_plan
from c2gm.model.config import ModelConfig
from c2gm.runtime.backends.base import StepRows, Tensors
from c2gm.runtime.backends.device_loop import LAG, loop_graphs
from c2gm.runtime.batching import BUCKETS
from c2gm.runtime.bundle import Bundle, ScaleEmbeddings
from c2gm.runtime.cascade import Cascade, reference_spans
from c2gm.runtime.contract import (
    FORMAT_VERSION,
    LATENT_FACTOR,
    EarlyStop,
    Manifest,
    Provenance,
    prompt_name,
)
from c2gm.runtime.grid import Plan, Window
from c2gm.runtime.levels import LEVELS, SPANS, TILE_SIZE, prompt_keys
from c2gm.runtime.pixels import Picture
from c2gm.runtime.sampler import Sample, Sampler
from c2gm.runtime.work import work_of

ARITHMETIC_SHARE, BANDWIDTH_SHARE = 0.75, 0.8
"""Of the peak rates that large well-shaped kernels reach: assumptions, not measurements."""

BLOCKS: Mapping[int, float] = {128: 1.0, 64: 0.75}
"""Sides of the square of results that a thread block computes, and its speed when the GPU is full:
small ones fill a GPU better and reuse less."""

KERNEL_GAP_S, REPLAY_S = 1.5e-6, 10e-6
"""Between two kernels of a CUDA graph, and to launch a graph: assumptions."""

CALM, STOP_TOLERANCE = 1e-6, 1e-3

TARGETS_MS: Mapping[int, float] = {50: 195.0, 20: 90.0, 10: 55.0, 4: 35.0}
"""For `full` on an RTX 3090 at 16 rows, a tile, by steps (field notes; the paper needs 1,200)."""


def operator_seconds(operator: Operator, rows: int, gpu: Gpu) -> float:
    """Modelled time of one kernel for so many rows, the gap after it included."""
    seconds = operator.traffic(rows) / (gpu.bytes_per_s * BANDWIDTH_SHARE)
    if operator.columns:
        rate = gpu.flop_per_s * ARITHMETIC_SHARE * filling(operator, rows, gpu.processors)
        seconds = max(seconds, operator.flop * rows / rate)
    return seconds + KERNEL_GAP_S


def filling(operator: Operator, rows: int, processors: int) -> float:
    """Share of its speed that a matrix product keeps: the last wave of blocks is seldom full."""
    best = 0.0
    for side, speed in BLOCKS.items():
        if operator.products == 1:  # the rows of the batch are rows of one matrix
            blocks = ceil(operator.rows * rows / side) * ceil(operator.columns / side)
        else:
            per_product = ceil(operator.rows / side) * ceil(operator.columns / side)
            blocks = per_product * operator.products * rows
        waves = blocks / processors
        padded = operator.columns / (ceil(operator.columns / side) * side)
        best = max(best, speed * padded * waves / ceil(waves))
    return best


class GraphTimes:
    """Modelled seconds of a model's graphs on a GPU, by graph and rows."""

    def __init__(self, config: ModelConfig, gpu: Gpu, side: int = TILE_SIZE) -> None:
        self.config, self.gpu, self.side = config, gpu, side
        self._operators = count_operators(config, side)

    def seconds(self, graph: str, rows: int) -> float:
        """Time of one launch."""
        kernels = (operator_seconds(x, rows, self.gpu) for x in self._operators[graph])
        return REPLAY_S + sum(kernels)

    def floor(self, graph: str, rows: int) -> float:
        """The roofline: each operator's arithmetic or traffic at the peak, whichever is slower."""
        gpu = self.gpu
        return sum(
            max(x.flop * rows / gpu.flop_per_s, x.traffic(rows) / gpu.bytes_per_s)
            for x in self._operators[graph]
        )

    def tile_seconds(self, steps: int, rows: int) -> float:
        """A tile's share of a full batch: conditions, steps, decoding."""
        single = self.seconds("condition", 1) + self.seconds("vae_decoder", 1)
        return single + steps * self.seconds("denoise", rows) / rows

    def tile_floor(self, steps: int, rows: int) -> float:
        """The same on the roofline."""
        single = self.floor("condition", 1) + self.floor("vae_decoder", 1)
        return single + steps * self.floor("denoise", rows) / rows


class ModelledLoop:
    """A `Loop` that computes nothing and keeps a clock instead."""

    lag = LAG

    def __init__(self, times: GraphTimes, rows: int, still_after: int | None) -> None:
        self._costs = {name: times.seconds(name, n) for name, n, _ in loop_graphs(rows, times.side)}
        self.rows, self._still_after = rows, still_after
        self._done = np.zeros(rows, np.int64)
        self._changes: list[NDArray[np.float32]] = []
        self.seconds = {"condition": 0.0, "denoise": 0.0, "vae_decoder": 0.0}
        self.row_steps = self.useful_row_steps = 0
        side = times.side
        self._picture: Picture = np.zeros((side, side, 3), np.uint8)
        cells = side // LATENT_FACTOR
        self._latents = np.zeros(
            (times.config.autoencoder.latent_channels, cells, cells), np.float32
        )

    def admit(self, row: int, window: Tensors) -> None:
        """See `Loop.admit`."""
        self._done[row] = 0
        self.seconds["condition"] += self._costs["condition"]

    def step(self, rows: StepRows) -> NDArray[np.float32] | None:
        """See `Loop.step`; x0 stands still after `still_after` steps."""
        self.seconds["denoise"] += self._costs["denoise"]
        self.row_steps += self.rows
        self.useful_row_steps += int(rows.active.sum())
        self._done += rows.active.astype(np.int64)
        still = np.zeros(self.rows, bool)
        if self._still_after is not None:
            still = self._done > self._still_after
        self._changes.append(np.where(still, CALM, 1.0).astype(np.float32))
        return self._changes[-1 - self.lag] if len(self._changes) > self.lag else None

    def paint(self, rows: Sequence[int]) -> tuple[list[Picture], NDArray[np.float32]]:
        """See `Loop.paint`."""
        self.seconds["vae_decoder"] += len(rows) * self._costs["vae_decoder"]
        return [self._picture] * len(rows), np.zeros(len(rows), np.float32)

    def take(self, row: int) -> tuple[NDArray[np.float32], np.float32]:
        """See `Loop.take`; copying is taken to cost nothing."""
        return self._latents, np.float32(0)

    def decode(self, latents: NDArray[np.float32]) -> Picture:
        """See `Loop.decode`."""
        self.seconds["vae_decoder"] += self._costs["vae_decoder"]
        return self._picture

    def close(self) -> None:
        """See `Loop.close`."""


@dataclass(frozen=True, slots=True)
class SheetRun:
    """A modelled run: tiles by level, seconds by graph, how full the batches were."""

    tiles: Mapping[int, int]
    seconds: Mapping[str, float]
    floor_seconds: float
    filled: float
    steps_a_tile: float


def run_sheet(
    times: GraphTimes,
    steps: int,
    batch: int,
    planned: Plan,
    *,
    still_after: int | None = None,
) -> SheetRun:
    """Run a plan through the real cascade and sampler over modelled engines."""
    loop = ModelledLoop(times, batch, still_after)
    bundle = _bundle(times.config, steps, still_after)
    sampler: Sampler[Window] = Sampler(bundle, loop, side=times.side, steps=steps)
    spans = reference_spans(planned.levels)
    cascade = Cascade(work_of(planned, spans))
    imagery = np.zeros((3, times.side, times.side), np.float32)
    cells = times.side // LATENT_FACTOR
    noise = np.zeros((times.config.autoencoder.latent_channels, cells, cells), np.float32)
    made, steps_done = 0, 0
    while len(cascade):
        while sampler.free and (window := cascade.take()) is not None:
            span = spans[window.level]
            cascade.release(window)
            reference = None if span is None else imagery
            sampler.admit(Sample(window, imagery, reference, noise, window.level, span))
        for out in sampler.step():
            cascade.finish(out.key)
            made, steps_done = made + 1, steps_done + out.steps
    single = times.floor("condition", 1) + times.floor("vae_decoder", 1)
    return SheetRun(
        tiles={level: planned.tile_count(level) for level in planned.levels},
        seconds=loop.seconds,
        floor_seconds=made * single + steps_done * times.floor("denoise", batch) / batch,
        filled=loop.useful_row_steps / loop.row_steps,
        steps_a_tile=steps_done / made,
    )


def _bundle(config: ModelConfig, steps: int, still_after: int | None) -> Bundle:
    """What the sampler asks of a bundle, for a model that was never exported."""
    names = [prompt_name(*key) for key in prompt_keys()]
    rule = EarlyStop() if still_after is None else EarlyStop(STOP_TOLERANCE)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=config.name,
        preset=config.name,
        precision="fp16",
        latent_channels=config.autoencoder.latent_channels,
        latent_factor=LATENT_FACTOR,
        scaling_factor=config.autoencoder.scaling_factor,
        schedule=config.schedule,
        trained_levels=tuple(LEVELS),
        cascade_spans=SPANS,
        default_steps=steps,
        early_stop=dict.fromkeys(names, rule),
        graphs={},
        files=(),
        provenance=Provenance("none", "none", "", (), ""),
    )
    width, count = 1, len(names)
    embeddings = ScaleEmbeddings(
        {name: row for row, name in enumerate(names)},
        np.zeros((count, 1, width), np.float32),
        np.zeros((count, width), np.float32),
    )
    return Bundle(Path(), manifest, embeddings)


def _targets(config: ModelConfig, gpu: Gpu) -> dict[int, float]:
    """Targets by steps, where there are any."""
    if config.name != "full" or gpu is not GPUS["rtx-3090"]:
        return {}
    return {steps: milliseconds / 1e3 for steps, milliseconds in TARGETS_MS.items()}


def report(
    config: ModelConfig, gpu: Gpu, steps: Sequence[int], batch: int, still_after: int | None
) -> dict[str, Any]:
    """All that `c2gm-bench gpu-model` says, as plain values; seconds."""
    times = GraphTimes(config, gpu)
    planned = sheet_plan()
    sheets = {}
    for count in steps:
        run = run_sheet(times, count, batch, planned, still_after=still_after)
        total = sum(run.seconds.values())
        sheets[count] = {
            "seconds": total,
            "seconds_by_graph": dict(run.seconds),
            "floor_seconds": run.floor_seconds,
            "share_of_roofline": run.floor_seconds / total,
            "batch_filled": run.filled,
            "steps_a_tile": run.steps_a_tile,
        }
    return {
        "modelled": True,
        "model": config.name,
        "gpu": gpu.title,
        "peak_tflops": gpu.flop_per_s / 1e12,
        "bandwidth_gb_s": gpu.bytes_per_s / 1e9,
        "assumed": {
            "arithmetic_share": ARITHMETIC_SHARE,
            "bandwidth_share": BANDWIDTH_SHARE,
            "kernel_gap_s": KERNEL_GAP_S,
            "replay_s": REPLAY_S,
        },
        "tile_seconds": {
            count: {rows: times.tile_seconds(count, rows) for rows in BUCKETS} for count in steps
        },
        "tile_floor_seconds": {count: times.tile_floor(count, max(BUCKETS)) for count in steps},
        "tile_target_seconds": _targets(config, gpu),
        "sheet_tiles": {level: planned.tile_count(level) for level in planned.levels},
        "batch": batch,
        "sheet": sheets,
    }
