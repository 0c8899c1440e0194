"""When sampling may stop early: a tolerance for every scale prompt, if that is worth anything.

Early stopping has to beat simply taking fewer steps (method, section 6). So tolerances are chosen
on half of the windows, each as large as costs next to nothing, and then all of them together are
set against every smaller fixed number of steps on the other half, of a schedule of its own or the
first ones of the whole schedule. Where one of those is as good at as few steps, no rule is written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
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

MARGIN_DB, MARGIN_SSIM = 0.02, 0.0005
"""A fixed number of steps as good as this in both makes early stopping pointless."""


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
    """Rules from what was recorded: `fixed` by number of steps, the largest being the default.

    Every second window of a prompt is one to choose on, the others are to judge on.
    """
    steps = max(fixed)
    whole = fixed[steps]
    rules: dict[str, EarlyStop] = {}
    ends = np.full(len(prompts), steps - 1)
    judged = np.zeros(len(prompts), np.bool_)
    for prompt in np.unique(prompts):
        chosen, others = (np.flatnonzero(prompts == prompt)[first::2] for first in (0, 1))
        if not len(others):
            continue
        judged[others] = True
        for tolerance in TOLERANCES:
            rule = partial(
                stopping_steps,
                tolerance=tolerance,
                calm_steps=CALM_STEPS,
                minimum_steps=MINIMUM_STEPS,
            )
            found = rule(whole.change[chosen])
            lost_db = (whole.psnr[chosen, -1] - whole.psnr[chosen, found]).mean()
            lost_ssim = (whole.ssim[chosen, -1] - whole.ssim[chosen, found]).mean()
            if lost_db <= LOSS_DB and lost_ssim <= LOSS_SSIM:
                if (found < steps - 1).any():
                    rules[str(prompt)] = EarlyStop(tolerance, MINIMUM_STEPS)
                    ends[others] = rule(whole.change[others])
                break
    rows = np.flatnonzero(judged)
    if not len(rows):
        return Verdict({}, {"rules": {}, "reason": "too few windows to choose and to judge on"})
    mean_steps = float((ends[rows] + 1).mean())
    psnr, ssim = (float(of[rows, ends[rows]].mean()) for of in (whole.psnr, whole.ssim))
    scores = {
        n: (float(run.psnr[rows, -1].mean()), float(run.ssim[rows, -1].mean()))
        for n, run in fixed.items()
    }
    report: dict[str, Any] = {
        "windows": {"chosen_on": len(prompts) - len(rows), "judged_on": len(rows)},
        "mean_steps": round(mean_steps, 3),
        "psnr_y": round(psnr, 4),
        "ssim_y": round(ssim, 5),
        "fixed": {
            str(n): {"psnr_y": round(db, 4), "ssim_y": round(similarity, 5)}
            for n, (db, similarity) in scores.items()
        },
    }
    # A rule that ends every window after k steps is worth no more than taking k steps.
    cut_short = {
        f"{k} of {steps}": (float(db), float(similarity))
        for k, db, similarity in zip(
            range(1, steps),
            whole.psnr[rows].mean(axis=0),
            whole.ssim[rows].mean(axis=0),
            strict=False,
        )
    }
    affordable = int(np.ceil(mean_steps))
    rivals = {
        title: score
        for k, (title, score) in [
            *((n, (f"{n}", score)) for n, score in scores.items()),
            *enumerate(cut_short.items(), start=1),
        ]
        if k <= affordable
        and k < steps
        and score[0] >= psnr - MARGIN_DB
        and score[1] >= ssim - MARGIN_SSIM
    }
    if not rules:
        reason = "no tolerance ends a window without loss"
    elif rivals:
        rival = max(rivals, key=rivals.__getitem__)
        reason = (
            f"not worth it: {rival} fixed steps give {rivals[rival][0]:.2f} dB, early stopping "
            f"{psnr:.2f} dB in {mean_steps:.1f} steps"
        )
        rules = {}
    else:
        reason = f"{mean_steps:.1f} instead of {steps} steps for {psnr:.2f} dB"
    return Verdict(rules, report | {"rules": sorted(rules), "reason": reason})


def _numbers(steps: int) -> list[int]:
    """Numbers of steps that are tried, up to the default."""
    return sorted({n for n in (1, 2, 3, 4, 6, 8, 10, 15, 20, 30, 40) if n < steps} | {steps})
