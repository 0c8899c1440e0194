"""`c2gm-train`, `c2gm-eval`, `c2gm-dataset`: parse, call, report."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from c2gm.model.config import PRESETS
from c2gm.runtime.command import run_command
from c2gm.runtime.errors import OptionError, OutputError, WeightsError

TRAIN_EXAMPLES = """\b
Examples, in the order that made the shipped nano (docs/training.md):
  c2gm-train autoencoder --dataset runs/dataset --run runs/ae
  c2gm-train sgdm --encoder-only --dataset runs/dataset --run runs/encoder \\
      --autoencoder runs/ae/autoencoder.safetensors \\
      --references degraded --no-reference-share 0.75
  c2gm-train sgdm --dataset runs/dataset --run runs/sgdm \\
      --initial runs/encoder/sgdm.safetensors \\
      --references degraded --no-reference-share 0.45 --noise-bias 2.5
  c2gm-train pack --model runs/sgdm/sgdm.safetensors --output nano.safetensors

\b
Stop with Ctrl-C at any time: the same command goes on where it stopped.
Several GPUs:
  accelerate launch --module c2gm.model.cli sgdm ...
"""

train = typer.Typer(
    help="Train a C2GM model: the autoencoder first, then the diffusion model.",
    epilog=TRAIN_EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


Dataset = Annotated[Path, typer.Option(help="Folder written by c2gm-dataset build.")]
Run = Annotated[Path, typer.Option(help="Folder of this run: checkpoints, log, picture sheets.")]
Preset = Annotated[str, typer.Option(help=f"Model size: {', '.join(PRESETS)}.")]
Steps = Annotated[int, typer.Option(help="Optimiser steps in all.")]
BatchSize = Annotated[int, typer.Option(help="256 px windows a step, or as many pixels.")]
Optimizer = Annotated[
    str,
    typer.Option(
        help="adamw, or muon for the weights of convolutions and linear layers: learns faster from "
        "nothing, takes about twice the learning rate."
    ),
]
LearningRate = Annotated[float, typer.Option(help="Learning rate on the plateau.")]
Initial = Annotated[Path | None, typer.Option(help="Weights to start from (.safetensors).")]
Workers = Annotated[int, typer.Option(help="Data loading processes.")]
Seed = Annotated[int, typer.Option(help="Seed of data order, noise and initial weights.")]
Precision = Annotated[str, typer.Option(help="Autocast: no, bf16 or fp16.")]
DecayShare = Annotated[float, typer.Option(help="Last share of the run that lowers the rate.")]
Minutes = Annotated[float, typer.Option(help="Minutes between two of them.")]
Compile = Annotated[bool, typer.Option("--compile", help="Use torch.compile.")]


def _train(values: dict[str, Any]) -> None:
    import torch

    from c2gm.model.train import Trainer, TrainOptions
    from c2gm.model.train_stages import AutoencoderStage, SGDMStage

    known = {field.name for field in fields(TrainOptions)}
    options = TrainOptions(**{k: v for k, v in values.items() if k in known})
    if options.preset not in PRESETS:
        raise typer.BadParameter(f"preset {options.preset!r}; choose from {', '.join(PRESETS)}")
    torch.manual_seed(options.seed)
    stage = AutoencoderStage if options.stage == "autoencoder" else SGDMStage
    print(f"weights: {Trainer(stage(options), options).run()}")


@train.command("autoencoder", epilog=TRAIN_EXAMPLES)
def train_autoencoder(
    dataset: Dataset,
    run: Run,
    preset: Preset = "nano",
    steps: Steps = 6_000,
    batch: BatchSize = 16,
    optimizer: Optimizer = "adamw",
    learning_rate: LearningRate = 7e-4,
    decay_share: DecayShare = 0.4,
    initial: Initial = None,
    freeze_encoder: Annotated[
        bool,
        typer.Option(
            "--freeze-encoder",
            help="Improve the decoder alone: an SGDM trained over this encoder stays valid.",
        ),
    ] = False,
    mixed_precision: Precision = "bf16",
    compile: Compile = False,
    workers: Workers = 1,
    checkpoint_minutes: Minutes = 5.0,
    validate_minutes: Minutes = 10.0,
    seed: Seed = 0,
) -> None:
    """Train the light autoencoder on map tiles."""
    _train({"stage": "autoencoder", "weight_decay": 0.0} | locals())


@train.command("sgdm", epilog=TRAIN_EXAMPLES)
def train_sgdm(
    dataset: Dataset,
    run: Run,
    preset: Preset = "nano",
    autoencoder: Annotated[
        Path | None, typer.Option(help="Trained autoencoder (.safetensors).")
    ] = None,
    initial: Initial = None,
    encoder_only: Annotated[
        bool,
        typer.Option(
            "--encoder-only",
            help="Teach the MFEncoder alone to read imagery: classes and latents, no U-Net. "
            "Sees three times as many windows in the same time; for the beginning.",
        ),
    ] = False,
    references: Annotated[
        str,
        typer.Option(
            help="true (stage 1), degraded as generation degrades, generated: mostly those that "
            "c2gm-dataset own-references drew, or mixed: all three (stage 2)."
        ),
    ] = "true",
    no_reference_share: Annotated[
        float, typer.Option(help="Share of samples without a reference.")
    ] = 0.2,
    level_weights: Annotated[
        str,
        typer.Option(help="How often levels are drawn, as LEVEL:WEIGHT,...; others weigh 1."),
    ] = "",
    kinds: Annotated[
        str,
        typer.Option(
            help="Only areas of these kinds, of real, painted, dubai.", show_default="all"
        ),
    ] = "",
    loss: Annotated[str, typer.Option(help="l2 (eq. 19) or l1 (the authors' code).")] = "l2",
    draws: Annotated[
        int, typer.Option(help="Time steps a pair: they share its condition, which saves time.")
    ] = 2,
    noise_bias: Annotated[
        float,
        typer.Option(help="1 draws time steps evenly (eq. 19), 3 mostly noisy ones."),
    ] = 1.0,
    critic_share: Annotated[
        float,
        typer.Option(
            help="Let a critic push for drawings that look like maps, with this share of the "
            "square error's force; for the last part. 0: no critic."
        ),
    ] = 0.0,
    steps: Steps = 20_000,
    batch: BatchSize = 16,
    optimizer: Optimizer = "adamw",
    learning_rate: LearningRate = 3e-4,
    decay_share: DecayShare = 0.25,
    mixed_precision: Precision = "bf16",
    compile: Compile = False,
    workers: Workers = 1,
    checkpoint_minutes: Minutes = 5.0,
    validate_minutes: Minutes = 20.0,
    seed: Seed = 0,
) -> None:
    """Train the scale-guided diffusion model, by equation 19."""
    values = {"stage": "sgdm"} | locals()
    chosen = tuple(kind.strip() for kind in kinds.split(",") if kind.strip())
    _train(values | {"level_weights": _parse_weights(level_weights), "kinds": chosen})


def _parse_weights(text: str) -> dict[int, float]:
    """`10:0.5,18:0.7` -> {10: 0.5, 18: 0.7}. Raises OptionError for anything else."""
    try:
        pairs = [part.split(":") for part in text.split(",") if part.strip()]
        return {int(level): float(weight) for level, weight in pairs}
    except ValueError:
        raise OptionError(
            f"--level-weights {text!r}: expected LEVEL:WEIGHT,..., for example 10:0.5,18:0.7"
        ) from None


@train.command("pack", epilog=TRAIN_EXAMPLES)
def pack_weights(
    model: Annotated[Path, typer.Option(help="Trained model (sgdm.safetensors).")],
    output: Annotated[Path, typer.Option(help="File to write (.safetensors).")],
    autoencoder: Annotated[
        Path | None, typer.Option(help="Autoencoder whose decoder was trained on since.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
) -> None:
    """Make the weights that ship.

    With the latest decoder, and values rounded to FP16 for half the size.
    """
    from c2gm.model.checkpoint import load_autoencoder, load_model, save_model

    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists; add --overwrite or choose another --output")
    packed = load_model(model)
    if autoencoder is not None:
        encoder = {k: v.clone() for k, v in packed.autoencoder.state_dict().items()}
        load_autoencoder(packed.autoencoder, autoencoder)
        changed = [
            name
            for name, tensor in packed.autoencoder.state_dict().items()
            if not name.startswith("decoder.") and not bool((tensor == encoder[name]).all())
        ]
        if changed:
            raise WeightsError(
                f"{autoencoder} has another encoder than {model} ({changed[0]} differs); use one "
                "that was trained with --freeze-encoder from that model's autoencoder"
            )
    output.parent.mkdir(parents=True, exist_ok=True)
    save_model(packed, output, half=True)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


def _run(program: str, load: Callable[[], typer.Typer]) -> None:
    stopped = "stopped; the same command goes on from here"
    run_command(program, load, stopped=stopped, extra="train")


def train_main() -> None:
    """Entry point of `c2gm-train`."""
    _run("c2gm-train", lambda: train)


def dataset_main() -> None:
    """Entry point of `c2gm-dataset`."""

    def load() -> typer.Typer:
        from c2gm.model.data.cli import app

        return app

    _run("c2gm-dataset", load)


def eval_main() -> None:
    """Entry point of `c2gm-eval`."""

    def load() -> typer.Typer:
        from c2gm.model.evaluation.cli import app

        return app

    _run("c2gm-eval", load)


if __name__ == "__main__":
    train_main()
