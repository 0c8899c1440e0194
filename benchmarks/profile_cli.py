"""`c2gm-bench profile`: a graph's time by operator."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from c2gm.benchmarks.command_options import (
    AsJson,
    Output,
    Side,
    check_output,
    check_side,
    print_table,
    tell,
)
from c2gm.benchmarks.machine import describe_machine, machine_line
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.contract import WINDOW_GRAPHS
from c2gm.runtime.errors import OptionError
from c2gm.runtime.grid import DEFAULT_WINDOW_PX
from c2gm.runtime.shipped import CPU_MODEL, find_bundle

DEAREST = 40
"""So many single nodes are told of in JSON."""


def profile(
    model: Annotated[Path, typer.Option(help="Bundle: a folder, or name of a shipped one.")] = Path(
        CPU_MODEL
    ),
    graph: Annotated[str, typer.Option(help=f"One of {', '.join(WINDOW_GRAPHS)}.")] = "denoise",
    side: Side = DEFAULT_WINDOW_PX,
    runs: Annotated[int, typer.Option(help="Medians over so many.")] = 30,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Split a graph's time by operator, integer and float32, with ONNX Runtime's profiler.

    One window on one core. Nodes are those of the optimised graph. Shares hardly depend on what
    else the machine does; times do.
    """
    from c2gm.benchmarks.profile import by, processor_s, profile_graph

    check_side(side)
    if graph not in WINDOW_GRAPHS:
        raise OptionError(f"--graph is {graph!r}, choose from {', '.join(WINDOW_GRAPHS)}")
    if runs < 1:
        raise OptionError(f"--runs is {runs}, expected 1 or more")
    check_output(output)
    bundle = Bundle.read(find_bundle(model, "onnxruntime"))
    found = profile_graph(bundle, graph, side, runs)
    whole = processor_s(bundle, graph, side, runs)
    kernels = sum(node.seconds for node in found.nodes)
    machine = describe_machine()
    dearest = sorted(found.nodes, key=lambda node: -node.seconds)
    groups, operators = by(found, "group"), by(found, "op")
    document = {
        "machine": machine,
        "model": bundle.manifest.name,
        "graph": graph,
        "side": side,
        "runs": found.runs,
        "processor_ms": 1e3 * whole,
        "ms_in_kernels": 1e3 * kernels,
        "groups": groups,
        "operators": operators,
        "dearest_nodes": [asdict(node) for node in dearest[:DEAREST]],
    }
    if tell(document, as_json, output):
        return
    table = Table(
        title=f"{bundle.manifest.name}, {graph}, {side} px: {1e3 * whole:.1f} ms a run, "
        f"{1e3 * kernels:.1f} of them in {len(found.nodes)} nodes; {machine_line(machine)}",
        title_justify="left",
    )
    for name in ("operator", "nodes", "share", "ms", "kind"):
        table.add_column(name, justify="left" if name in ("operator", "kind") else "right")
    for row in groups:
        cells = str(row["nodes"]), f"{row['share']:.1%}", f"{row['ms']:.2f}"
        table.add_row(row["group"], *cells, "")
    table.add_section()
    for row in operators:
        cells = str(row["nodes"]), f"{row['share']:.1%}", f"{row['ms']:.2f}"
        table.add_row(row["op"], *cells, row["group"])
    print_table(table)
