"""What sampling has drawn after every step, and where a rule would have stopped it."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from c2gm.model.data.pairs import Sample
from c2gm.model.evaluation.bundle_painter import runtime_sample
from c2gm.model.evaluation.class_scores import Counts, class_counts
from c2gm.model.evaluation.evaluate import on_background
from c2gm.model.evaluation.lpips import AlexNetFeatures
from c2gm.model.evaluation.metrics import psnr_y, ssim_y
from c2gm.runtime.backends.base import Loop, StepRows
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.sampler import window_inputs


@dataclass(frozen=True, slots=True)
class Trajectories:
    """Of n tiles after each step, (n, steps): relative change of x0, PSNR-Y, SSIM-Y and LPIPS.

    `counts`: what class scores are made of (`class_counts`), (n, steps, 2).
    """

    change: NDArray[np.float64]
    psnr: NDArray[np.float64]
    ssim: NDArray[np.float64]
    lpips: NDArray[np.float64]
    counts: Mapping[str, Counts]


@dataclass(frozen=True, slots=True)
class _Step:
    change: float
    psnr: float
    ssim: float
    lpips: float
    counts: Mapping[str, Counts]


def record(
    bundle: Bundle,
    loops: Sequence[Loop],
    samples: Sequence[Sample],
    steps: int,
    network: AlexNetFeatures,
    every_step: bool = True,
) -> Trajectories:
    """Sample every tile in `steps` steps and compare with the true map after each, as c2gm-eval.

    `loops`: of one row each, and may run at the same time. `every_step`: False looks at what the
    last step has drawn only, so that there is one step to tell of. Raises BackendError.
    """
    idle = list(loops)
    schedule = bundle.manifest.schedule
    times = schedule.timesteps(steps)
    table = schedule.ddim_coefficients(steps).astype(np.float32)

    def run(sample: Sample) -> list[_Step]:
        loop = idle.pop()
        loop.admit(0, window_inputs(bundle, runtime_sample(bundle, 0, sample)))
        truth, valid = sample.target[None], sample.imagery[None, ..., 3] > 0
        found: list[_Step] = []
        for number, (t, row) in enumerate(zip(times, table, strict=True), start=1):
            change = loop.step(StepRows(np.array([t]), row[None], np.ones(1, np.float32)))
            assert change is not None
            if not (every_step or number == steps):
                continue
            picture = on_background(loop.paint([0])[0][0][None], valid)
            found.append(
                _Step(
                    float(change[0]),
                    float(psnr_y(picture, truth, valid)[0]),
                    float(ssim_y(picture, truth, valid)[0]),
                    float(network.distance(picture, truth)[0]),
                    {name: pair[0] for name, pair in class_counts(picture, truth, valid).items()},
                )
            )
        idle.append(loop)
        return found

    with ThreadPoolExecutor(len(loops)) as threads:
        tiles = list(threads.map(run, samples))

    def of(name: str) -> NDArray[np.float64]:
        return np.array([[getattr(step, name) for step in tile] for tile in tiles])

    return Trajectories(
        of("change"),
        of("psnr"),
        of("ssim"),
        of("lpips"),
        {
            name: np.array([[step.counts[name] for step in tile] for tile in tiles])
            for name in tiles[0][0].counts
        },
    )


def stopping_steps(
    change: NDArray[np.float64], tolerance: float, calm_steps: int, minimum_steps: int = 1
) -> NDArray[np.int64]:
    """The step (from 0) after which each tile ends, of changes (n, steps): the sampler's rule."""
    count, steps = change.shape
    calm = np.zeros(count, np.int64)
    ends = np.full(count, steps - 1)
    ended = np.zeros(count, np.bool_)
    for step in range(steps):
        calm = np.where(change[:, step] < tolerance, calm + 1, 0)
        ends_now = ~ended & (calm >= calm_steps) & (step + 1 >= minimum_steps)
        ends[ends_now] = step
        ended |= ends_now
    return ends
