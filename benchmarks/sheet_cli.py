"""`c2gm-bench sheet`: ours and peers in rounds, and where the cores' time goes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from c2gm.benchmarks.command_options import (
    BOTH_MODELS,
    INSTALLED,
    AsJson,
    Backends,
    Models,
    Output,
    check_output,
    find_backends,
    find_bundles,
    print_table,
    say,
    tell,
)
from c2gm.benchmarks.core_time import CHECK, IDLE, OTHER, START
from c2gm.benchmarks.machine import describe_machine, machine_line
from c2gm.runtime.errors import OptionError
from c2gm.runtime.grid import DEFAULT_HALO

FEWEST_TILES = 20
"""Of a sheet: seven levels have one tile each at least."""

SPOKEN = {
    START: "start: interpreter, imports",
    CHECK: "check: decode all tiles again",
    OTHER: "by no part",
    IDLE: "cores without work of this run",
}


def sheet(
    imagery: Annotated[
        Path, typer.Option(help="Picture that is mirrored until it is large enough (GeoTIFF).")
    ],
    models: Models = BOTH_MODELS,
    backends: Backends = INSTALLED,
    tiles: Annotated[int, typer.Option(help="Size of the sheet, levels 10-16.")] = 441,
    peer_tiles: Annotated[
        int,
        typer.Option(
            help="Also the authors' way, for so many tiles a round, and plain and tuned ONNX "
            "Runtime, for all."
        ),
    ] = 0,
    rounds: Annotated[
        int, typer.Option(help="All take turns so often; every second round runs backwards.")
    ] = 1,
    halo: Annotated[int, typer.Option(help="As --halo of c2gm-infer.")] = DEFAULT_HALO,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Run the paper's job, 441 tiles of levels 10-16, end to end by c2gm-infer.

    Ratios are to the fastest of ours in the same round: a machine's drift cancels. Then all cores'
    time of ours, from the command to its end, by what it was spent on.
    """
    from c2gm.benchmarks.sheet import run_sheet

    if tiles < FEWEST_TILES:
        raise OptionError(f"--tiles is {tiles}, expected at least {FEWEST_TILES}")
    if peer_tiles < 0:
        raise OptionError(f"--peer-tiles is {peer_tiles}, expected 0 or more")
    if rounds < 1:
        raise OptionError(f"--rounds is {rounds}, expected 1 or more")
    check_output(output)
    installed = find_backends(backends)
    pairs = [(bundle, backend) for bundle in find_bundles(models) for backend in installed]
    machine = describe_machine()
    found = run_sheet(
        imagery,
        pairs,
        tiles=tiles,
        peer_tiles=peer_tiles,
        halo=halo,
        rounds=rounds,
        progress=say,
    )
    document = {"machine": machine, "imagery": imagery.name, "halo": halo} | found
    if tell(document, as_json, output):
        return
    print_table(_ratios(machine_line(machine), found["manners"]))
    ours = [row for row in found["manners"] if row["ours"]]
    print_table(_core_time(machine["cores"], ours))


def _ratios(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in (
        "manner",
        "tiles",
        "ratio",
        "of rounds",
        "ms a tile",
        "of rounds",
        "in the graphs",
    ):
        table.add_column(name, justify="left" if name == "manner" else "right")
    for row in rows:
        ratio, cost, share = row["ratio"], row["ms_per_tile"], row.get("graph_share")
        table.add_row(
            row["manner"],
            str(row["tiles"]),
            f"{ratio['median']:.2f}",
            f"{ratio['low']:.2f}-{ratio['high']:.2f}",
            f"{cost['median']:.1f}",
            f"{cost['low']:.1f}-{cost['high']:.1f}",
            "" if share is None else f"{share:.0%}",
        )
    return table


def _core_time(cores: int, ours: Sequence[Mapping[str, Any]]) -> Table:
    """Milliseconds of core time a tile, and their share of it."""
    totals = [sum(row["core_ms_per_tile"].values()) for row in ours]
    table = Table(title="where the cores' time goes, ms a tile (mean of rounds)")
    table.title_justify = "left"
    table.add_column("")
    for row in ours:
        table.add_column(row["manner"].removeprefix("c2gm: "), justify="right")
    for part in ours[0]["core_ms_per_tile"]:
        cells = [
            f"{row['core_ms_per_tile'][part]:.1f}  {row['core_ms_per_tile'][part] / total:4.0%}"
            for row, total in zip(ours, totals, strict=True)
        ]
        table.add_row(SPOKEN.get(part, part), *cells)
    table.add_section()
    whole = [f"{cores} x {total / cores:.1f} 100%" for total in totals]
    table.add_row("all", *whole)
    return table
