"""When sampling may stop early: a tolerance for every scale prompt, if that is worth anything.

Early stopping has to beat simply taking fewer steps (method, section 6). So tolerances are chosen
on training ground, each as large as costs next to nothing, and then all of them together are set
against every smaller fixed number of steps. Where one of those is as good at as few steps, no
rule is written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2gm.model.data.dataset import open_sampler
from c2gm.model.data.sampler import SamplerOptions
from c2gm.model.evaluation.trajectories import Trajectories, record, stopping_steps
from c2gm.runtime.backends.onnxruntime import OnnxRuntimeBackend
from c2gm.runtime.bundle import Bundle, EarlyStop, prompt_name
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.sampler import CALM_STEPS

TOLERANCES = (0.5, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)

MINIMUM_STEPS = 4
"""Before that nothing is stopped: x0 may stand still because it has hardly begun to form."""

LOSS_DB, LOSS_SSIM = 0.05, 0.001
"""What a prompt's tolerance may cost its tiles on average."""

MARGIN_DB = 0.02
"""A fixed number of steps as good as this makes early stopping pointless."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Rules by prompt (none where they do not earn their place), and how that was found out."""

    rules: Mapping[str, EarlyStop]
    report: Mapping[str, Any]


def calibrate_early_stop(
    bundle: Bundle, dataset: Path, windows: int, progress: Callable[[str], None]
) -> Verdict:
    """Sample `windows` of training ground at every number of steps and judge.

    Raises DataError for an unusable dataset.
    """
    steps = bundle.manifest.default_steps
    if steps <= max(CALM_STEPS, MINIMUM_STEPS):
        reason = f"{steps} steps are too few to stop before their end"
        progress(f"early stopping: {reason}")
        return Verdict({}, {"rules": {}, "reason": reason})
    options = SamplerOptions(
        sides=(TILE_SIZE,), side_weights=(1.0,), no_reference_share=0.3, augment=False
    )
    sampler = open_sampler(dataset, "train", 1, options)
    samples = [sampler.batch(index, 1)[0] for index in range(windows)]
    samples = [sample for sample in samples if sample.imagery[8:-8, 8:-8, 3].any()]
    progress(f"early stopping: sampling {len(samples)} windows in up to {steps} steps")
    loops = OnnxRuntimeBackend.cpu(bundle).open_loops(None, TILE_SIZE)
    fixed = {n: record(bundle, loops, samples, n) for n in _numbers(steps)}
    prompts = np.array([prompt_name(sample.level, sample.span) for sample in samples])
    verdict = judge(fixed, prompts)
    progress(f"early stopping: {verdict.report['reason']}")
    return verdict


def judge(fixed: Mapping[int, Trajectories], prompts: NDArray[np.str_]) -> Verdict:
    """Rules from what was recorded: `fixed` by number of steps, the largest being the default."""
    steps = max(fixed)
    whole = fixed[steps]
    rules: dict[str, EarlyStop] = {}
    ends = np.full(len(prompts), steps - 1)
    for prompt in np.unique(prompts):
        chosen = prompts == prompt
        for tolerance in TOLERANCES:
            found = stopping_steps(whole.change[chosen], tolerance, CALM_STEPS, MINIMUM_STEPS)
            part = whole.rows(chosen)
            every = np.arange(len(found))
            lost_db = (part.psnr[:, -1] - part.psnr[every, found]).mean()
            lost_ssim = (part.ssim[:, -1] - part.ssim[every, found]).mean()
            if lost_db <= LOSS_DB and lost_ssim <= LOSS_SSIM:
                if (found < steps - 1).any():
                    rules[str(prompt)] = EarlyStop(tolerance, MINIMUM_STEPS)
                    ends[chosen] = found
                break
    every = np.arange(len(prompts))
    mean_steps = float((ends + 1).mean())
    psnr = float(whole.psnr[every, ends].mean())
    others = {n: float(run.psnr[:, -1].mean()) for n, run in fixed.items()}
    report: dict[str, Any] = {
        "windows": len(prompts),
        "mean_steps": round(mean_steps, 3),
        "psnr_y": round(psnr, 4),
        "fixed_psnr_y": {str(n): round(value, 4) for n, value in others.items()},
    }
    rival = max((n for n in others if n <= mean_steps), key=others.__getitem__, default=None)
    if not rules:
        reason = "no tolerance ends a window without loss"
    elif rival is not None and others[rival] >= psnr - MARGIN_DB:
        reason = (
            f"not worth it: {rival} fixed steps give {others[rival]:.2f} dB, early stopping "
            f"{psnr:.2f} dB in {mean_steps:.1f} steps"
        )
        rules = {}
    else:
        reason = f"{mean_steps:.1f} instead of {steps} steps for {psnr:.2f} dB"
    return Verdict(rules, report | {"rules": sorted(rules), "reason": reason})


def _numbers(steps: int) -> list[int]:
    """Numbers of steps that are tried, up to the default."""
    return sorted({n for n in (1, 2, 3, 4, 6, 8, 10, 15, 20, 30, 40) if n < steps} | {steps})
