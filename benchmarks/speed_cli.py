"""The measuring commands of `c2gm-bench`: parse, call, report."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from c2gm.benchmarks.command_options import (
    BOTH_MODELS,
    CPU_BACKENDS,
    INSTALLED,
    AsJson,
    Backends,
    Models,
    Output,
    Side,
    check_output,
    check_seconds,
    check_side,
    find_backends,
    find_bundles,
    print_table,
    say,
    tell,
)
from c2gm.benchmarks.machine import describe_machine, machine_line
from c2gm.benchmarks.scenes import middle_of
from c2gm.runtime.backends import open_backend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.command import whole_numbers
from c2gm.runtime.errors import OptionError
from c2gm.runtime.grid import DEFAULT_WINDOW_PX
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.shipped import CPU_MODEL, GPU_MODEL, find_bundle


def latency(
    models: Models = BOTH_MODELS,
    backends: Backends = INSTALLED,
    batches: Annotated[str, typer.Option(help="Windows in one run of a graph.")] = "1,2,4",
    seconds: Annotated[float, typer.Option(help="Of every measurement.")] = 2.0,
    side: Side = DEFAULT_WINDOW_PX,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Time each graph, warmed up, with a run on every core: p50, p90, p99, GFLOP/s."""
    from c2gm.benchmarks.latency import graph_latencies

    check_seconds(seconds)
    check_side(side)
    check_output(output)
    sizes = whole_numbers("--batches", batches)
    if not sizes or min(sizes) < 1:
        raise OptionError(f"--batches is {batches!r}, expected numbers from 1")
    machine, rows = describe_machine(), list[dict[str, Any]]()
    for bundle in find_bundles(models):
        for backend in find_backends(backends):
            say(f"{bundle.manifest.name} on {backend}")
            measured = graph_latencies(bundle, backend, sizes, seconds, side)
            rows += [{"model": bundle.manifest.name} | row for row in measured]
    if tell({"machine": machine, "side": side, "latency": rows}, as_json, output):
        return
    table = Table(title=machine_line(machine), title_justify="left")
    for name in ("model", "backend", "graph", "batch", "p50 ms", "p90", "p99", "runs/s", "GFLOP/s"):
        table.add_column(name, justify="left" if name in ("model", "backend", "graph") else "right")
    for row in rows:
        quantiles = [f"{1e3 * row[name]:.1f}" for name in ("p50", "p90", "p99")]
        table.add_row(
            row["model"],
            row["backend"],
            row["graph"],
            str(row["batch"]),
            *quantiles,
            f"{row['per_second']:.1f}",
            f"{row['gflops']:.0f}",
        )
    print_table(table)


def limit(
    models: Models = BOTH_MODELS,
    backends: Backends = INSTALLED,
    seconds: Annotated[float, typer.Option(help="Of every measurement.")] = 1.5,
    side: Side = DEFAULT_WINDOW_PX,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Measure what the machine can do at most, and what share of it each graph reaches."""
    from c2gm.benchmarks.latency import graph_latencies
    from c2gm.benchmarks.peak import measure_peaks

    check_seconds(seconds)
    check_side(side)
    check_output(output)
    pairs = [
        (bundle, backend) for bundle in find_bundles(models) for backend in find_backends(backends)
    ]
    machine = describe_machine()
    say("peaks")
    peaks = measure_peaks(seconds)
    best = {precision: max(found.values()) for precision, found in peaks.items()}
    rows = list[dict[str, Any]]()
    for bundle, backend in pairs:
        say(f"{bundle.manifest.name} on {backend}")
        for row in graph_latencies(bundle, backend, [1], seconds, side):
            share = row["gflops"] / best[bundle.manifest.precision]
            row |= {"precision": bundle.manifest.precision, "share_of_peak": round(share, 3)}
            rows.append({"model": bundle.manifest.name} | row)
    document = {"machine": machine, "side": side, "peak_gflops": peaks, "graphs": rows}
    if tell(document, as_json, output):
        return
    table = Table(title=machine_line(machine), title_justify="left")
    for name in ("", "precision", "GFLOP/s", "share of peak"):
        table.add_column(name, justify="right" if name in ("GFLOP/s", "share of peak") else "left")
    for precision, found in peaks.items():
        for what, value in found.items():
            table.add_row(what, precision, f"{value:.0f}", f"{value / best[precision]:.0%}")
    table.add_section()
    for row in rows:
        what = f"{row['model']}, {row['graph']}, {row['backend']}"
        table.add_row(what, row["precision"], f"{row['gflops']:.0f}", f"{row['share_of_peak']:.0%}")
    print_table(table)
    if any(row["share_of_peak"] > 1 for row in rows):
        say("warning: a graph beyond the peak: the machine has changed its speed; run it again")


def scaling(
    imagery: Annotated[
        Path, typer.Option(help="Picture that is mirrored until it is large enough (GeoTIFF).")
    ],
    tiles: Annotated[str, typer.Option(help="Sizes of the runs, levels 10-17.")] = "1000,10000",
    model: Annotated[
        Path | None,
        typer.Option(help="Bundle; default: a thin one of random weights, made for this."),
    ] = None,
    backend: Annotated[str, typer.Option(help="As --backend of c2gm-infer.")] = "onnxruntime",
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Run maps of many tiles: seconds a tile and memory must stay flat to the end."""
    from c2gm.benchmarks.scaling import export_thin, measure_scaling

    check_output(output)
    counts = whole_numbers("--tiles", tiles)
    if not counts or min(counts) < 100:
        raise OptionError(f"--tiles is {tiles!r}, expected numbers from 100")
    if backend not in CPU_BACKENDS:
        raise OptionError(f"--backend is {backend!r}, choose from {', '.join(CPU_BACKENDS)}")
    if model is not None:
        model = find_bundle(model, backend)
        Bundle.read(model)
    middle_of(imagery)  # before anything that takes a while
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as scratch:
        if model is None:
            say("exporting a thin model")
            model = export_thin(Path(scratch))
        rows = measure_scaling(imagery, model, counts, backend, say)
    if tell({"machine": machine, "scaling": rows}, as_json, output):
        return
    for row in rows:
        title = (
            f"{row['tiles']} tiles in {row['seconds']:.0f} s, {row['model']}; "
            f"{row['seconds_before_the_first_window']:.1f} s before the first"
        )
        table = Table(title=title, title_justify="left")
        for name in ("tiles", "ms a tile", "of processors", "memory MB"):
            table.add_column(name, justify="right")
        for part in row["parts"]:
            table.add_row(
                str(part["tiles"]),
                f"{part['ms_per_tile']:.1f}",
                f"{part['processor_ms_per_tile']:.1f}",
                f"{part['resident_mb']:.0f}",
            )
        print_table(table)


def peers(
    dataset: Annotated[Path, typer.Option(help="Folder of c2gm-dataset: held-out tiles.")],
    per_level: Annotated[int, typer.Option(help="Tiles of every level.")] = 2,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Run the same weights in other people's manner, on the same tiles: time beside quality."""
    from c2gm.benchmarks.peers import compare_peers, peer_tiles
    from c2gm.model.checkpoint import load_model
    from c2gm.model.config import SHIPPED_WEIGHTS

    check_output(output)
    if per_level < 1:
        raise OptionError(f"--per-level is {per_level}, expected 1 or more")
    plain = Bundle.read(find_bundle(Path(GPU_MODEL), "onnxruntime"))
    eight = Bundle.read(find_bundle(Path(CPU_MODEL), "onnxruntime"))
    installed = find_backends(INSTALLED)
    ours = [
        (bundle, open_backend(backend, bundle, None, TILE_SIZE).backend)
        for bundle in (plain, eight)
        for backend in installed
    ]
    samples = peer_tiles(dataset, per_level)
    machine, model = describe_machine(), load_model(SHIPPED_WEIGHTS)
    rows = compare_peers(model, plain, ours, samples, "openvino" in installed, say)
    if tell({"machine": machine, "peers": rows}, as_json, output):
        return
    title = f"{len(samples)} tiles; {machine_line(machine)}"
    table = Table(title=title, title_justify="left")
    for name in ("manner", "ratio", "ms a tile", "PSNR-Y dB", "SSIM-Y"):
        table.add_column(name, justify="left" if name == "manner" else "right")
    for row in rows:
        table.add_row(
            row["peer"],
            f"{row['ratio']:.1f}",
            f"{1e3 * row['seconds_per_tile']:.0f}",
            f"{row['psnr_y']:.2f}",
            f"{row['ssim_y']:.4f}",
        )
    print_table(table)
