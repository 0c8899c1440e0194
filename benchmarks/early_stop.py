"""Does early stopping earn its place? Quality against mean steps: fixed steps, rules, hindsight.

Early stopping has to beat simply taking fewer DDIM steps. Every tile is sampled with every number
of steps, and decoded and scored after each of them as c2gm-eval does; rules are then tried on what
was recorded:

- `calm`: the runtime's rule, x0 changes by less than a tolerance in two steps one after the other;
- `once`: the same after a single such step;
- `first K of N`: ends every tile of a longer schedule after K steps, which is no rule at all;
- `hindsight`: for every tile the fewest of the fixed numbers of steps up to the default that lose
  no more than 0.1 dB to it, chosen with the true map. No bound of what rules can do: it knows two
  or three pictures of a tile only, and looks at PSNR alone.

python -m c2gm.benchmarks.early_stop --dataset runs/dataset --output early_stop.json
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2gm.model.data.dataset import validation_samples
from c2gm.model.evaluation.class_scores import Counts
from c2gm.model.evaluation.lpips import HOW_TO_INSTALL, packaged_network
from c2gm.model.evaluation.trajectories import Trajectories, record, stopping_steps
from c2gm.runtime.backends import open_backend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.errors import WeightsError
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.sampler import CALM_STEPS
from c2gm.runtime.shipped import find_bundle

STEPS = (1, 2, 3, 4, 6, 8, 10, 20)
TOLERANCES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
FIRST = 4
"""So many first steps of every longer schedule are told of."""

LOSS_DB = 0.1
"""What hindsight may lose of a tile."""

CLASSES = ("iou_building", "iou_road")


def compare(
    found: dict[int, Trajectories], own: Trajectories, default: int
) -> list[dict[str, Any]]:
    """Rows of rule, mean steps, PSNR-Y, SSIM-Y, LPIPS and IoU.

    `found`: of whole schedules, by number of steps; `own`: the bundle's default.
    """
    rows: list[dict[str, Any]] = []

    def add(rule: str, run: Trajectories, ends: NDArray[np.int64]) -> None:
        rows.append(
            {"rule": rule, "mean_steps": round(float((ends + 1).mean()), 4)} | scored(run, ends)
        )

    for steps, run in found.items():
        add(f"fixed, {steps}", run, _all(run, steps))
    add(f"the bundle's default, {default}", own, _all(own, default))
    for steps, run in found.items():
        for few in range(1, min(FIRST, steps - 1) + 1):
            add(f"first {few} of {steps}", run, _all(run, few))
        if steps <= CALM_STEPS:
            continue
        for rule, calm_steps in (("calm", CALM_STEPS), ("once", 1)):
            for tolerance in TOLERANCES:
                ends = stopping_steps(run.change, tolerance, calm_steps)
                if (ends < steps - 1).any():
                    add(f"{rule}, of {steps}, below {tolerance}", run, ends)
    return [*rows, _hindsight(found, default)]


def scored(run: Trajectories, ends: NDArray[np.int64]) -> dict[str, float | None]:
    """Scores of tiles that end after these steps, counted from 0."""
    every = np.arange(len(ends))
    values = {"psnr_y": run.psnr, "ssim_y": run.ssim, "lpips": run.lpips}
    scores = {name: float(value[every, ends].mean()) for name, value in values.items()}
    return _rounded(scores | _areas({name: run.counts[name][every, ends] for name in CLASSES}))


def _areas(counts: Mapping[str, Counts]) -> dict[str, float | None]:
    """Intersection over union of all tiles (n, 2) together; None where nobody shows the class."""
    sums = {name: pairs.sum(axis=0).tolist() for name, pairs in counts.items()}
    return {name: part / whole if whole else None for name, (part, whole) in sums.items()}


def _rounded(scores: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if v is None else round(v, 4) for name, v in scores.items()}


def _all(run: Trajectories, steps: int) -> NDArray[np.int64]:
    """Every tile ends after so many steps."""
    return np.full(len(run.change), steps - 1)


def _hindsight(found: dict[int, Trajectories], default: int) -> dict[str, Any]:
    order = sorted(steps for steps in found if steps <= default)
    runs = [found[steps] for steps in order]
    psnr = np.stack([run.psnr[:, -1] for run in runs])
    pick = (psnr >= psnr[-1] - LOSS_DB).argmax(axis=0)
    every = np.arange(len(pick))
    values = np.stack([[run.psnr[:, -1], run.ssim[:, -1], run.lpips[:, -1]] for run in runs])
    names = "psnr_y", "ssim_y", "lpips"
    scores = {name: float(values[pick, i, every].mean()) for i, name in enumerate(names)}
    counts = {
        name: np.stack([run.counts[name][:, -1] for run in runs])[pick, every] for name in CLASSES
    }
    steps = float(np.array(order)[pick].mean())
    title = f"hindsight, fixed up to {default}"
    return {"rule": title, "mean_steps": round(steps, 4)} | _rounded(scores | _areas(counts))


def main() -> None:
    """Parse, record, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="bundle; default: the shipped one for a CPU")
    parser.add_argument("--per-level", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    network = packaged_network()
    if network is None:
        raise WeightsError(f"LPIPS is not installed; {HOW_TO_INSTALL}")
    bundle = Bundle.read(find_bundle(options.model, "onnxruntime"))
    default = bundle.manifest.default_steps
    # Whole schedules: ending one early is what the rules would do, too.
    manifest = replace(bundle.manifest, schedule=bundle.manifest.schedule.whole())
    whole = replace(bundle, manifest=manifest)
    samples = validation_samples(options.dataset, options.per_level, detailed=True)
    conditions = {
        "with_reference": [s for s in samples if s.reference is not None],
        "without_reference": [replace(s, reference=None, span=None) for s in samples],
    }
    loops = open_backend("onnxruntime", bundle, None, TILE_SIZE).backend.open_loops(None, TILE_SIZE)
    report: dict[str, Any] = {"model": bundle.manifest.name, "per_level": options.per_level}
    for name, chosen in conditions.items():
        found = {
            steps: record(whole, loops, chosen, steps, network) for steps in sorted(options.steps)
        }
        own = record(bundle, loops, chosen, default, network)
        rows = compare(found, own, default)
        report[name] = {"tiles": len(chosen), "rows": rows}
        print(f"{name}, {len(chosen)} tiles")
        for row in rows:
            scores = "  ".join(f"{k} {v}" for k, v in row.items() if k != "rule")
            print(f"  {row['rule']:28s} {scores}", flush=True)
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
