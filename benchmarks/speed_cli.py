"""The measuring commands of `c2gm-bench`: parse, call, report."""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from c2gm.benchmarks.machine import describe_machine, machine_line
from c2gm.benchmarks.scenes import middle_of
from c2gm.runtime.backends import open_backend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.command import whole_numbers
from c2gm.runtime.errors import OptionError
from c2gm.runtime.grid import DEFAULT_HALO, DEFAULT_WINDOW_PX, WINDOW_MULTIPLE
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.shipped import CPU_MODEL, GPU_MODEL, find_bundle

CPU_BACKENDS = ("onnxruntime", "openvino")
_WIDTH = 120

FEWEST_TILES = 20
"""Of a sheet: seven levels have one tile each at least."""

Models = Annotated[
    str, typer.Option(help="Bundles, separated by commas: folders, or names of shipped ones.")
]
Backends = Annotated[str, typer.Option(help=f"Among {', '.join(CPU_BACKENDS)}.")]
Side = Annotated[int, typer.Option(help="Side of a window in pixels, a multiple of 64.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_BOTH_MODELS = f"{GPU_MODEL},{CPU_MODEL}"
_INSTALLED = "those that are installed"


def latency(
    models: Models = _BOTH_MODELS,
    backends: Backends = _INSTALLED,
    batches: Annotated[str, typer.Option(help="Windows in one run of a graph.")] = "1,2,4",
    seconds: Annotated[float, typer.Option(help="Of every measurement.")] = 2.0,
    side: Side = DEFAULT_WINDOW_PX,
    as_json: AsJson = False,
) -> None:
    """Time each graph, warmed up, with a run on every core: p50, p90, p99, GFLOP/s."""
    from c2gm.benchmarks.latency import graph_latencies

    _check(seconds, side)
    sizes = whole_numbers("--batches", batches)
    if not sizes or min(sizes) < 1:
        raise OptionError(f"--batches is {batches!r}, expected numbers from 1")
    machine, rows = describe_machine(), list[dict[str, Any]]()
    for bundle in _bundles(models):
        for backend in _backends(backends):
            _say(f"{bundle.manifest.name} on {backend}")
            measured = graph_latencies(bundle, backend, sizes, seconds, side)
            rows += [{"model": bundle.manifest.name} | row for row in measured]
    if as_json:
        _print_json({"machine": machine, "latency": rows})
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
    _print(table)


def limit(
    models: Models = _BOTH_MODELS,
    backends: Backends = _INSTALLED,
    seconds: Annotated[float, typer.Option(help="Of every measurement.")] = 1.5,
    side: Side = DEFAULT_WINDOW_PX,
    as_json: AsJson = False,
) -> None:
    """Measure what the machine can do at most, and what share of it each graph reaches."""
    from c2gm.benchmarks.latency import graph_latencies
    from c2gm.benchmarks.peak import measure_peaks

    _check(seconds, side)
    pairs = [(bundle, backend) for bundle in _bundles(models) for backend in _backends(backends)]
    machine = describe_machine()
    _say("peaks")
    peaks = measure_peaks(seconds)
    best = {precision: max(found.values()) for precision, found in peaks.items()}
    rows = list[dict[str, Any]]()
    for bundle, backend in pairs:
        _say(f"{bundle.manifest.name} on {backend}")
        for row in graph_latencies(bundle, backend, [1], seconds, side):
            share = row["gflops"] / best[bundle.manifest.precision]
            row |= {"precision": bundle.manifest.precision, "share_of_peak": round(share, 3)}
            rows.append({"model": bundle.manifest.name} | row)
    if as_json:
        _print_json({"machine": machine, "peak_gflops": peaks, "graphs": rows})
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
    _print(table)
    if any(row["share_of_peak"] > 1 for row in rows):
        _say("warning: a graph beyond the peak: the machine has changed its speed; run it again")


def sheet(
    imagery: Annotated[
        Path, typer.Option(help="Picture that is mirrored until it is large enough (GeoTIFF).")
    ],
    models: Models = _BOTH_MODELS,
    backends: Backends = _INSTALLED,
    tiles: Annotated[int, typer.Option(help="Size of the sheet, levels 10-16.")] = 441,
    peer_tiles: Annotated[
        int,
        typer.Option(
            help="Also the authors' way, for so many tiles, and plain ONNX Runtime, for all."
        ),
    ] = 0,
    halo: Annotated[int, typer.Option(help="As --halo of c2gm-infer.")] = DEFAULT_HALO,
    as_json: AsJson = False,
) -> None:
    """Run the paper's job, 441 tiles of levels 10-16, end to end by c2gm-infer."""
    from c2gm.benchmarks.sheet import run_sheet

    if tiles < FEWEST_TILES:
        raise OptionError(f"--tiles is {tiles}, expected at least {FEWEST_TILES}")
    if peer_tiles < 0:
        raise OptionError(f"--peer-tiles is {peer_tiles}, expected 0 or more")
    pairs = [(bundle, backend) for bundle in _bundles(models) for backend in _backends(backends)]
    machine, rows = describe_machine(), run_sheet(imagery, pairs, tiles, peer_tiles, halo, _say)
    if as_json:
        _print_json({"machine": machine, "sheet": rows})
        return
    fastest = min(row["ms_per_tile"] for row in rows)
    table = Table(title=machine_line(machine), title_justify="left")
    for name in ("manner", "tiles", "ratio", "ms a tile", "in the graphs"):
        table.add_column(name, justify="left" if name == "manner" else "right")
    for row in rows:
        share = row.get("graph_share")
        table.add_row(
            row["manner"],
            str(row["tiles"]),
            f"{row['ms_per_tile'] / fastest:.2f}",
            f"{row['ms_per_tile']:.1f}",
            "" if share is None else f"{share:.0%}",
        )
    _print(table)


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
    as_json: AsJson = False,
) -> None:
    """Run maps of many tiles: seconds a tile and memory must stay flat to the end."""
    from c2gm.benchmarks.scaling import export_thin, measure_scaling

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
            _say("exporting a thin model")
            model = export_thin(Path(scratch))
        rows = measure_scaling(imagery, model, counts, backend, _say)
    if as_json:
        _print_json({"machine": machine, "scaling": rows})
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
        _print(table)


def peers(
    dataset: Annotated[Path, typer.Option(help="Folder of c2gm-dataset: held-out tiles.")],
    per_level: Annotated[int, typer.Option(help="Tiles of every level.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Run the same weights in other people's manner, on the same tiles: time beside quality."""
    from c2gm.benchmarks.peers import compare_peers, peer_tiles
    from c2gm.model.checkpoint import load_model
    from c2gm.model.config import SHIPPED_WEIGHTS

    if per_level < 1:
        raise OptionError(f"--per-level is {per_level}, expected 1 or more")
    plain = Bundle.read(find_bundle(Path(GPU_MODEL), "onnxruntime"))
    eight = Bundle.read(find_bundle(Path(CPU_MODEL), "onnxruntime"))
    installed = _backends(_INSTALLED)
    ours = [
        (bundle, open_backend(backend, bundle, None, TILE_SIZE).backend)
        for bundle in (plain, eight)
        for backend in installed
    ]
    samples = peer_tiles(dataset, per_level)
    machine, model = describe_machine(), load_model(SHIPPED_WEIGHTS)
    rows = compare_peers(model, plain, ours, samples, "openvino" in installed, _say)
    if as_json:
        _print_json({"machine": machine, "peers": rows})
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
    _print(table)


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
    as_json: AsJson = False,
) -> None:
    """Disturb real runs: kills, damaged files, a full disk. Nothing may be lost."""
    from c2gm.benchmarks.faults import run_faults
    from c2gm.benchmarks.scaling import export_thin

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
        outcomes = run_faults(imagery, bundle, options, counts, seed, _say)
    if as_json:
        _print_json({"machine": describe_machine(), "faults": [asdict(o) for o in outcomes]})
    else:
        table = Table(title="what became of disturbed runs", title_justify="left")
        ends = list(dict.fromkeys(end for outcome in outcomes for end in outcome.ends))
        for name in ("fault", "faults", *ends, "exit codes"):
            table.add_column(name, justify="left" if name == "fault" else "right")
        for outcome in outcomes:
            codes = ", ".join(f"{code}: {n}" for code, n in sorted(outcome.codes.items()))
            cells = [str(outcome.ends[end]) for end in ends]
            table.add_row(outcome.fault, str(outcome.faults), *cells, codes)
        _print(table)
    for outcome in outcomes:
        for loss in outcome.losses:
            _say(f"LOST, {outcome.fault}: {loss}")
    if any(outcome.losses for outcome in outcomes):
        raise typer.Exit(1)


def _check(seconds: float, side: int) -> None:
    if not seconds > 0:
        raise OptionError(f"--seconds is {seconds}, expected more than 0")
    if side < WINDOW_MULTIPLE or side % WINDOW_MULTIPLE:
        raise OptionError(f"--side is {side}, expected a multiple of {WINDOW_MULTIPLE}")


def _bundles(models: str) -> list[Bundle]:
    names = [name.strip() for name in models.split(",") if name.strip()]
    if not names:
        raise OptionError("--models names no bundle")
    return [Bundle.read(find_bundle(Path(name), "onnxruntime")) for name in names]


def _backends(text: str) -> Sequence[str]:
    if text == _INSTALLED:
        from importlib.util import find_spec

        return [name for name in CPU_BACKENDS if find_spec(name)]
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in CPU_BACKENDS]
    if unknown:
        raise OptionError(
            f"--backends has {unknown[0]!r}, expected some of {', '.join(CPU_BACKENDS)}"
        )
    return names


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print(table: Table) -> None:
    width = None if sys.stdout.isatty() else _WIDTH
    Console(highlight=False, width=width).print(table)


def _print_json(document: Mapping[str, Any]) -> None:
    print(json.dumps(document, indent=1))
