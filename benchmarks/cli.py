"""`c2gm-bench`: how fast, measured where it can be and modelled where it cannot."""

from pathlib import Path
from typing import Annotated, Any

import typer

from c2gm.benchmarks.command_options import AsJson, Output, check_output, tell
from c2gm.benchmarks.faults_cli import faults
from c2gm.benchmarks.fuzz_cli import fuzz
from c2gm.benchmarks.gpus import GPUS
from c2gm.benchmarks.profile_cli import profile
from c2gm.benchmarks.sheet_cli import sheet
from c2gm.benchmarks.speed_cli import latency, limit, peers, scaling
from c2gm.benchmarks.tile_formats import weigh
from c2gm.model.config import PRESETS
from c2gm.runtime.batching import BUCKETS
from c2gm.runtime.command import run_command, whole_numbers
from c2gm.runtime.errors import OptionError

PROGRAM = "c2gm-bench"

EXAMPLES = """\b
Examples:
  c2gm-bench limit
      what the machine can do, and what share of it the graphs reach
  c2gm-bench profile --model nano-int8 --graph denoise
      which operators a graph's time is spent in
  c2gm-bench sheet --imagery tests/data/town.tif --peer-tiles 12 --rounds 5
      441 tiles, end to end: ours and other manners in turns
  c2gm-bench peers --dataset runs/dataset
      torch, diffusers, optimum, FastSD CPU: the same weights
  c2gm-bench scaling --imagery tests/data/town.tif --tiles 1000,20000
  c2gm-bench faults --imagery tests/data/town.tif --kills 20
      runs that are killed, damaged files, full disks: nothing may be lost
  c2gm-bench tile-formats town.mbtiles
      bytes a tile as PNG, WebP, JPEG, with a palette
  c2gm-bench fuzz --minutes 5
      mutated files: no traceback, no hang, no absurd memory
  c2gm-bench gpu-model
      the full model on an RTX 3090
  c2gm-bench gpu-model --gpu rtx-4060-laptop --preset nano --steps 2
  c2gm-bench gpu-model --still-after 12
      the sheet's windows stop once nothing moves any more
"""

app = typer.Typer(
    help="Benchmarks of c2gm.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def bench() -> None:
    """Benchmarks of c2gm."""


for command in (latency, limit, profile, sheet, scaling, peers, faults, fuzz):
    app.command(epilog=EXAMPLES)(command)


@app.command("tile-formats", epilog=EXAMPLES)
def tile_formats(
    map_file: Annotated[Path, typer.Argument(metavar="MAP.mbtiles", help="A finished map.")],
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Bytes of a map's tiles in every encoding of c2gm-publish, and what lossy ones lose."""
    check_output(output)
    found = weigh(map_file)
    if tell(found, as_json, output):
        return
    print(
        f"{found['map']}: {found['tiles']} tiles of {found['bytes_as_made']:,.0f} bytes as made, "
        f"{found['tiles_with_a_palette']} of up to 256 colours "
        f"(median {found['colours_median']:,.0f})"
    )
    for row in found["encodings"]:
        loss = (
            "lossless"
            if row["psnr_mean"] is None
            else f"PSNR {row['psnr_mean']:.1f} dB, worst tile {row['psnr_worst']:.1f}"
        )
        print(f"{row['encoding']:20} {row['bytes_per_tile']:8,.0f} bytes a tile  {loss}")


@app.command("gpu-model", epilog=EXAMPLES)
def gpu_model(
    gpu: Annotated[str, typer.Option(help=f"One of {', '.join(GPUS)}.")] = "rtx-3090",
    preset: Annotated[str, typer.Option(help=f"Model: {', '.join(PRESETS)}.")] = "full",
    steps: Annotated[str, typer.Option(help="Denoising steps of a tile.")] = "50,20,10,4",
    batch: Annotated[int, typer.Option(help="Windows at a time.")] = max(BUCKETS),
    still_after: Annotated[
        int | None,
        typer.Option(help="Steps after which a window's picture stands still; default: never."),
    ] = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Model a run on a GPU that is not there: real batching over modelled engines."""
    if gpu not in GPUS:
        raise OptionError(f"--gpu is {gpu!r}, choose from {', '.join(GPUS)}")
    if preset not in PRESETS:
        raise OptionError(f"--preset is {preset!r}, choose from {', '.join(PRESETS)}")
    if batch not in BUCKETS:
        raise OptionError(f"--batch is {batch}, choose from {', '.join(map(str, BUCKETS))}")
    counts = whole_numbers("--steps", steps)
    if not counts or min(counts) < 1:
        raise OptionError(f"--steps is {steps!r}, expected numbers from 1")
    check_output(output)
    # torch takes seconds to import: wrong options are answered before.
    from c2gm.benchmarks.gpu_model import report

    found = report(PRESETS[preset], GPUS[gpu], counts, batch, still_after)
    if not tell(found, as_json, output):
        print(_told(found))


def _told(found: dict[str, Any]) -> str:
    """The report for people."""
    assumed = found["assumed"]
    lines = [
        f"MODELLED, not measured: {found['model']} on a {found['gpu']} "
        f"({found['peak_tflops']:.1f} TFLOPS FP16, {found['bandwidth_gb_s']:.0f} GB/s)",
        f"assumed: kernels reach {assumed['arithmetic_share']:.0%} of the peak and "
        f"{assumed['bandwidth_share']:.0%} of the bandwidth, "
        f"{assumed['kernel_gap_s'] * 1e6:.1f} us between kernels, "
        f"{assumed['replay_s'] * 1e6:.0f} us to launch a graph",
        "",
        "ms a tile    "
        + "".join(f"{f'{b} rows':>10s}" for b in BUCKETS)
        + f"{'roofline':>10s}"
        + ("    target" if found["tile_target_seconds"] else ""),
    ]
    for steps, row in found["tile_seconds"].items():
        cells = "".join(f"{1e3 * row[b]:10.1f}" for b in BUCKETS)
        floor = 1e3 * found["tile_floor_seconds"][steps]
        target = found["tile_target_seconds"].get(steps)
        aim = "" if target is None else f"{1e3 * target:10.0f}"
        lines.append(f"{steps:4d} steps   {cells}{floor:10.1f}{aim}")
    tiles = found["sheet_tiles"]
    lines += [
        "",
        f"{sum(tiles.values())} tiles of levels {min(tiles)}-{max(tiles)}, {found['batch']} rows",
    ]
    for steps, modelled in found["sheet"].items():
        parts = ", ".join(f"{name} {s:.1f}" for name, s in modelled["seconds_by_graph"].items())
        lines.append(
            f"{steps:4d} steps   {modelled['seconds']:7.1f} s ({parts}); "
            f"{modelled['share_of_roofline']:.0%} of the roofline, "
            f"rows {modelled['batch_filled']:.0%} filled, "
            f"{modelled['steps_a_tile']:.1f} steps a tile"
        )
    return "\n".join(lines)


def main() -> None:
    """Entry point of `c2gm-bench`."""
    run_command(PROGRAM, lambda: app, stopped="stopped", extra="train")


if __name__ == "__main__":
    main()
