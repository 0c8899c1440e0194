"""What sampling has drawn after every step, and where a rule would have stopped it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from c2gm.model.data.pairs import Sample
from c2gm.model.evaluation.bundle_painter import runtime_sample
from c2gm.model.evaluation.metrics import psnr_y, ssim_y
from c2gm.runtime.backends.base import Loop, StepRows
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.sampler import window_inputs


@dataclass(frozen=True, slots=True)
class Trajectories:
    """Of n tiles after each step, (n, steps): relative change of x0, PSNR-Y and SSIM-Y."""

    change: NDArray[np.float64]
    psnr: NDArray[np.float64]
    ssim: NDArray[np.float64]


def record(
    bundle: Bundle, loops: Sequence[Loop], samples: Sequence[Sample], steps: int
) -> Trajectories:
    """Sample every tile in `steps` steps and compare with the true map after each.

    `loops`: of one row each, and may run at the same time. Raises BackendError.
    """
    idle = list(loops)
    schedule = bundle.manifest.schedule
    times = schedule.timesteps(steps)
    table = schedule.ddim_coefficients(steps).astype(np.float32)

    def run(sample: Sample) -> list[list[float]]:
        loop = idle.pop()
        loop.admit(0, window_inputs(bundle, runtime_sample(bundle, 0, sample)))
        truth, valid = sample.target[None], sample.imagery[None, ..., 3] > 0
        found: list[list[float]] = [[], [], []]
        for t, row in zip(times, table, strict=True):
            change = loop.step(StepRows(np.array([t]), row[None], np.ones(1, np.float32)))
            assert change is not None
            picture = loop.paint([0])[0][0][None]
            found[0].append(float(change[0]))
            found[1].append(float(psnr_y(picture, truth, valid)[0]))
            found[2].append(float(ssim_y(picture, truth, valid)[0]))
        idle.append(loop)
        return found

    with ThreadPoolExecutor(len(loops)) as threads:
        tiles = list(threads.map(run, samples))
    return Trajectories(*(np.array([tile[part] for tile in tiles]) for part in range(3)))


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
