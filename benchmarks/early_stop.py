"""Does early stopping earn its place? Quality against mean steps: fixed steps, early stop, oracle.

Early stopping has to beat simply taking fewer DDIM steps. Every tile is sampled with every number
of steps, and decoded after each of them; rules are then tried on what was recorded:

- `calm`: the runtime's rule, x0 changes by less than a tolerance in two steps one after the other;
- `once`: the same after a single such step;
- `oracle`: knows the truth, and takes of all fixed numbers the smallest that loses no more than
  0.1 dB to the default for this tile: what no rule can beat.

python -m c2gm.benchmarks.early_stop --dataset runs/dataset --output early_stop.json
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2gm.model.data.dataset import validation_samples
from c2gm.model.evaluation.trajectories import Trajectories, record, stopping_steps
from c2gm.runtime.backends import open_backend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.sampler import CALM_STEPS
from c2gm.runtime.shipped import find_bundle

STEPS = (1, 2, 3, 4, 6, 8, 10, 20)
TOLERANCES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
LOSS_DB = 0.1
"""What the oracle may lose of a tile."""


def compare(found: dict[int, Trajectories], default: int) -> list[dict[str, Any]]:
    """Rows of rule, mean steps, PSNR-Y and SSIM-Y."""
    rows: list[dict[str, Any]] = []

    def add(rule: str, steps: NDArray[Any] | int, psnr: NDArray[Any], ssim: NDArray[Any]) -> None:
        values = {"mean_steps": np.mean(steps), "psnr_y": psnr.mean(), "ssim_y": ssim.mean()}
        rows.append({"rule": rule} | {name: round(float(v), 4) for name, v in values.items()})

    for steps, run in found.items():
        add(f"fixed, {steps}", steps, run.psnr[:, -1], run.ssim[:, -1])
    for steps, run in found.items():
        if steps <= CALM_STEPS:
            continue
        every = np.arange(len(run.psnr))
        for rule, calm_steps in (("calm", CALM_STEPS), ("once", 1)):
            for tolerance in TOLERANCES:
                ends = stopping_steps(run.change, tolerance, calm_steps)
                if (ends < steps - 1).any():
                    title = f"{rule}, of {steps}, below {tolerance}"
                    add(title, ends + 1, run.psnr[every, ends], run.ssim[every, ends])
    order = sorted(steps for steps in found if steps <= default)
    psnr = np.stack([found[steps].psnr[:, -1] for steps in order])
    ssim = np.stack([found[steps].ssim[:, -1] for steps in order])
    enough = psnr >= psnr[-1] - LOSS_DB
    pick = enough.argmax(axis=0)
    every = np.arange(psnr.shape[1])
    add(f"oracle, up to {default}", np.array(order)[pick], psnr[pick, every], ssim[pick, every])
    return rows


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
    bundle = Bundle.read(find_bundle(options.model, "onnxruntime"))
    # Whole schedules: ending one early is what the rules would do, too.
    manifest = replace(bundle.manifest, schedule=bundle.manifest.schedule.whole())
    bundle = replace(bundle, manifest=manifest)
    samples = validation_samples(options.dataset, options.per_level, detailed=True)
    conditions = {
        "with_reference": [s for s in samples if s.reference is not None],
        "without_reference": [replace(s, reference=None, span=None) for s in samples],
    }
    loops = open_backend("onnxruntime", bundle, None, TILE_SIZE).backend.open_loops(None, TILE_SIZE)
    report: dict[str, Any] = {}
    for name, chosen in conditions.items():
        found = {steps: record(bundle, loops, chosen, steps) for steps in sorted(options.steps)}
        report[name] = {
            "tiles": len(chosen),
            "rows": compare(found, bundle.manifest.default_steps),
        }
        print(f"{name}, {len(chosen)} tiles")
        for row in report[name]["rows"]:
            print(
                f"  {row['rule']:28s} {row['mean_steps']:6.2f} steps  {row['psnr_y']:.3f} dB  "
                f"{row['ssim_y']:.4f}",
                flush=True,
            )
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
