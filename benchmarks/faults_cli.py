"""`c2gm-bench faults`: what became of disturbed runs, as a table."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from c2gm.benchmarks.command_options import AsJson, Output, check_output, print_table, say, tell
from c2gm.benchmarks.machine import describe_machine
from c2gm.runtime.shipped import find_bundle


def faults(
    imagery: Annotated[Path, typer.Option(help="Scene (GeoTIFF).")],
    levels: Annotated[str, typer.Option(help="Levels of the runs.")] = "13-15",
    model: Annotated[
        Path | None,
        typer.Option(help="Bundle; default: a thin one of random weights, made for this."),
    ] = None,
    kills: Annotated[int, typer.Option(help="Runs killed (-9).")] = 100,
    partials: Annotated[int, typer.Option(help="Partial files damaged.")] = 40,
    scenes: Annotated[int, typer.Option(help="Scenes damaged.")] = 40,
    models: Annotated[int, typer.Option(help="Files of bundles damaged.")] = 40,
    disks: Annotated[int, typer.Option(help="Disks too small (needs the right to mount).")] = 5,
    seed: Annotated[int, typer.Option(help="Of moments and places.")] = 0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Disturb real runs: kills, damaged files, a full disk. Nothing may be lost."""
    from c2gm.benchmarks.faults import run_faults
    from c2gm.benchmarks.scaling import export_thin

    check_output(output)
    counts = {
        "kills": kills,
        "partial": partials,
        "scene": scenes,
        "model": models,
        "disk": disks,
    }
    with tempfile.TemporaryDirectory() as scratch:
        bundle = export_thin(Path(scratch)) if model is None else find_bundle(model, "onnxruntime")
        options = ["--levels", levels, "--backend", "onnxruntime"]
        outcomes = run_faults(imagery, bundle, options, counts, seed, say)
    document = {"machine": describe_machine(), "faults": [asdict(o) for o in outcomes]}
    if not tell(document, as_json, output):
        table = Table(title="what became of disturbed runs", title_justify="left")
        ends = list(dict.fromkeys(end for outcome in outcomes for end in outcome.ends))
        for name in ("fault", "faults", *ends, "exit codes"):
            table.add_column(name, justify="left" if name == "fault" else "right")
        for outcome in outcomes:
            codes = ", ".join(f"{code}: {n}" for code, n in sorted(outcome.codes.items()))
            cells = [str(outcome.ends[end]) for end in ends]
            table.add_row(outcome.fault, str(outcome.faults), *cells, codes)
        print_table(table)
    for outcome in outcomes:
        for loss in outcome.losses:
            say(f"LOST, {outcome.fault}: {loss}")
    if any(outcome.losses for outcome in outcomes):
        raise typer.Exit(1)
