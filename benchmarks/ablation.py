"""The paper's ablation (table 4) with the small model: scale information and cascade references.

Six models, each with the same budget and data, on true references; each is scored from true
references, as the paper does, and in a full cascade on its own maps from level 12 on, which the
paper does not report. "Without scale" gives every tile one and the same prompt. The models begin
from nothing, or with `--initial` from one trained model, which each of them then learns to do
without what its row lacks: for budgets that are too short to learn to draw.

python -m c2gm.benchmarks.ablation --dataset runs/dataset --autoencoder ae.safetensors \\
    --run runs/ablation --steps 1200
python -m c2gm.benchmarks.ablation --dataset runs/dataset --initial model/assets/nano.safetensors \\
    --run runs/ablation --steps 150

Printed are means over levels 14-18, which every row paints. A row that is finished is not trained
again; `--rows` takes some of them, for several machines or processes.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from c2gm.benchmarks.rows import mean_over_levels, row_text
from c2gm.model.checkpoint import load_model
from c2gm.model.config import DEFAULT_STEPS
from c2gm.model.evaluation.evaluate import EvaluateOptions, evaluate
from c2gm.model.evaluation.lpips import packaged_network
from c2gm.model.evaluation.painter import SGDMPainter
from c2gm.model.evaluation.scores import Networks
from c2gm.model.sgdm import SGDM
from c2gm.model.train import Batch, Trainer, TrainOptions
from c2gm.model.train_stages import SGDMStage
from c2gm.runtime.levels import SPANS

SCORED_LEVELS = range(14, 19)
"""Levels whose mean is printed: at all of them every row can have its reference, and a cascade from
level 12 on a map of its own."""

NO_REFERENCE_SHARE = 0.15
"""Of the rows with references: a cascade has to begin without one."""


@dataclass(frozen=True)
class Row:
    """One line of table 4; `span` None: no references."""

    name: str
    scale: bool
    span: int | None


ROWS = (
    Row("none", False, None),
    Row("scale", True, None),
    Row("2X", False, 1),
    Row("2X+scale", True, 1),
    Row("4X", False, 2),
    Row("4X+scale", True, 2),
)


class OnePromptStage(SGDMStage):
    """Training without scale information: every tile has the first prompt."""

    def batches(self, start_step: int, rank: int, ranks: int) -> Iterator[Batch]:
        for batch in super().batches(start_step, rank, ranks):
            yield {**batch, "prompt": torch.zeros_like(batch["prompt"])}


class OnePromptPainter(SGDMPainter):
    """Painting without scale information."""

    def __init__(self, model: SGDM, steps: int, seed: int) -> None:
        super().__init__(model, steps, seed)
        self._states = self._states[:1].expand_as(self._states)
        self._pooled = self._pooled[:1].expand_as(self._pooled)


def train(row: Row, arguments: argparse.Namespace) -> Path:
    """Train a row, unless it is finished, and return its weights."""
    run: Path = arguments.run / row.name
    final = run / "sgdm.safetensors"
    if final.is_file():
        return final
    torch.manual_seed(arguments.seed)
    options = TrainOptions(
        stage="sgdm",
        dataset=arguments.dataset,
        run=run,
        autoencoder=arguments.autoencoder,
        initial=arguments.initial,
        steps=arguments.steps,
        batch=arguments.batch,
        optimizer="muon",
        learning_rate=arguments.learning_rate,
        warmup_steps=max(1, arguments.steps // 10),
        decay_share=0.5,
        no_reference_share=1.0 if row.span is None else NO_REFERENCE_SHARE,
        spans=SPANS if row.span is None else (row.span,),
        draws=2,
        mixed_precision=arguments.mixed_precision,
        validate_minutes=1e6,
        seed=arguments.seed,
    )
    stage = SGDMStage(options) if row.scale else OnePromptStage(options)
    return Trainer(stage, options).run()


def score(row: Row, weights: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The evaluation's report of a row, with true references (if it uses any) and in a cascade."""
    model = load_model(weights)
    kind = SGDMPainter if row.scale else OnePromptPainter
    networks = Networks(alexnet=packaged_network())
    conditions = ("without",) if row.span is None else ("with", "cascade")
    found: dict[str, Any] = {}
    for condition in conditions:
        options = EvaluateOptions(
            arguments.dataset,
            arguments.per_level,
            condition,
            SPANS if row.span is None else (row.span,),
            coarsest=12,
        )
        report = evaluate(
            kind(model, DEFAULT_STEPS, arguments.seed), options, networks, lambda *_: None
        )
        found |= report.report["conditions"]
    return found


def main() -> None:
    """Parse, train and score every row, print a table of the detailed tiles of levels 14-18."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, required=True)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--autoencoder", type=Path)
    start.add_argument("--initial", type=Path)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--mixed-precision", default="bf16", choices=("no", "bf16"))
    parser.add_argument("--per-level", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    names = [row.name for row in ROWS]
    parser.add_argument("--rows", nargs="+", default=names, choices=names)
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for row in (row for row in ROWS if row.name in arguments.rows):
        results[row.name] = score(row, train(row, arguments), arguments)
        for condition, content in results[row.name].items():
            values = mean_over_levels(content["detailed"], SCORED_LEVELS)
            print(row_text(f"{row.name:9s} {condition:18s}", values), flush=True)
        (arguments.run / "ablation.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
