"""`c2gm-bench fuzz`: the counts of `fuzz`, as a table."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from c2gm.benchmarks.command_options import AsJson, Output, check_output, say, tell
from c2gm.runtime.errors import OptionError
from c2gm.runtime.shipped import CPU_MODEL, find_bundle

NAMES = ("manifest", "embeddings", "graph", "scene", "area", "ledger")


def fuzz(
    minutes: Annotated[float, typer.Option(help="For all targets together.")] = 3.0,
    only: Annotated[
        str, typer.Option("--targets", help=f"Some of {', '.join(NAMES)}; default: all.")
    ] = ",".join(NAMES),
    model: Annotated[Path, typer.Option(help="Bundle to mutate.")] = Path(CPU_MODEL),
    seed: Annotated[int, typer.Option(help="Of the mutations.")] = 0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Read mutated files: manifests, graphs, GeoTIFFs, GeoJSON, partial files."""
    from c2gm.benchmarks.fuzz import ACCEPTED, FINDINGS, REFUSED, run_fuzz

    names = [name.strip() for name in only.split(",")]
    if not set(names) <= set(NAMES):
        raise OptionError(f"--targets is {only!r}, choose from {', '.join(NAMES)}")
    if not minutes > 0:
        raise OptionError(f"--minutes is {minutes}, expected more than 0")
    check_output(output)
    bundle = find_bundle(model, "onnxruntime")
    found = run_fuzz(bundle, names, minutes, seed, say)
    if not tell([asdict(one) for one in found], as_json, output):
        table = Table(title="mutated files", title_justify="left")
        columns = (ACCEPTED, REFUSED, *FINDINGS)
        for name in ("target", "inputs", *columns, "exit codes"):
            table.add_column(name, justify="left" if name == "target" else "right")
        for one in found:
            codes = ", ".join(f"{code}: {count}" for code, count in sorted(one.codes.items()))
            counts = [str(one.outcomes[name]) for name in columns]
            table.add_row(one.target, str(one.inputs), *counts, codes)
        Console(width=160).print(table)
    for finding in (finding for one in found for finding in one.findings):
        say(finding)
    if any(one.findings for one in found):
        raise typer.Exit(1)
