"""Quality against the number of DDIM steps and where they end: the same tiles, painted anew.

With `--sampling-end 0.5` they are the first of twice as many.

python -m c2gm.benchmarks.few_steps --dataset runs/dataset --output few_steps.json
"""

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from c2gm.benchmarks.rows import row_text
from c2gm.model.checkpoint import load_model
from c2gm.model.config import SHIPPED_WEIGHTS
from c2gm.model.evaluation.evaluate import CONDITIONS, EvaluateOptions, evaluate
from c2gm.model.evaluation.lpips import packaged_network
from c2gm.model.evaluation.painter import SGDMPainter
from c2gm.model.evaluation.scores import Networks

STEPS = (4, 6, 8, 10, 20, 50)


def main() -> None:
    """Parse, paint, print a table of the detailed tiles."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED_WEIGHTS)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--sampling-end", type=float, nargs="+", default=(0.0,))
    parser.add_argument("--per-level", type=int, default=8)
    parser.add_argument("--references", default="both", choices=sorted(CONDITIONS))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    networks = Networks(alexnet=packaged_network())
    chosen = EvaluateOptions(options.dataset, options.per_level, options.references)
    model = load_model(options.checkpoint)
    reports: dict[str, Any] = {}
    for steps, end in itertools.product(options.steps, options.sampling_end):
        schedule = replace(model.config.schedule, sampling_end=end)
        model.config = replace(model.config, schedule=schedule)
        title = f"{steps:3d} steps to {end:g}"
        report = evaluate(
            SGDMPainter(model, steps, seed=0), chosen, networks, lambda *_: None
        ).report
        reports[title.strip()] = report
        for condition, content in report["conditions"].items():
            values = content["detailed"]["overall"]["model"]
            print(row_text(f"{title}  {condition:18s}", values), flush=True)
    if options.output is not None:
        options.output.write_text(json.dumps(reports, indent=1) + "\n")


if __name__ == "__main__":
    main()
