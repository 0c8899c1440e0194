"""`c2gm-infer`: parses, calls, reports."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, cast

import typer

from c2gm.runtime.backends import BACKENDS
from c2gm.runtime.batching import BUCKETS, GPU_WINDOWS
from c2gm.runtime.cluster import run_on_cluster
from c2gm.runtime.command import Debug, Version, run_program
from c2gm.runtime.config import use_config
from c2gm.runtime.errors import OptionError
from c2gm.runtime.estimate import Estimate, estimate
from c2gm.runtime.footprint import Box
from c2gm.runtime.grid import DEFAULT_HALO, WINDOW_SIDES, Cascade
from c2gm.runtime.infer import Summary, run
from c2gm.runtime.job import GUIDE_PX, InferOptions
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.log_file import logged
from c2gm.runtime.merge import Merged
from c2gm.runtime.progress import report_on_stderr, spoken_duration, spoken_size
from c2gm.runtime.publish import flags
from c2gm.runtime.publish.options import PublishOptions
from c2gm.runtime.shards import Shard, parse_shard
from c2gm.runtime.shipped import CPU_MODEL, GPU_MODEL
from c2gm.runtime.start import STOPPED
from c2gm.runtime.verify import verify_file

PROGRAM = "c2gm-infer"

EPILOG = """\b
Examples:
  c2gm-infer --imagery town.tif --levels 10-16
  c2gm-infer --imagery town.tif --levels 12-18 --aoi flooded.geojson --output flooded.mbtiles
  c2gm-infer --imagery town.tif --levels 14-16 --reference basemap.mbtiles --steps 10
  c2gm-infer --imagery town.tif --levels 10-16 --dry-run
  c2gm-infer --imagery town.tif --levels 10-16 --format mbtiles,pmtiles,cog --qgis
  c2gm-infer --config town.toml --log-file town.log
  c2gm-infer --imagery town.tif --levels 10-16 --shard 2/4
  c2gm-infer --imagery town.tif --levels 10-16 --cluster tcp://head:8786
  c2gm-infer --verify town.mbtiles

\b
A run that was stopped (Ctrl-C, power cut, full disk) goes on with the same command.

\b
Exit codes:
    0  every planned tile is in the output
    1  a fault of c2gm itself; please report it (--debug shows where)
    2  options that make no sense
    3  the imagery cannot be used
    4  the area of interest is unreadable or misses the imagery
    5  levels that the model or the imagery does not serve
    6  the model bundle is missing, broken or of another version
    7  the backend cannot run here, or is not installed
    8  the output exists, cannot be written or does not verify
    9  the disk is full
   10  the reference map cannot be used
  130  stopped by Ctrl-C or SIGTERM
"""

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


def _verify(path: Path | None) -> None:
    if path is None:
        return
    found = verify_file(path)
    print(
        f"{path} is whole: {sum(found.tiles.values())} tiles ({_by_level(found.tiles)}), made by "
        f"c2gm {found.version} with {found.model}"
    )
    raise typer.Exit


@app.command(epilog=EPILOG)
def infer(
    imagery: Annotated[Path, typer.Option(help="Scene: any raster that GDAL reads, in any CRS.")],
    levels: Annotated[str, typer.Option(help="Map levels, as 10-16 or 10,12,14.")],
    output: Annotated[
        Path | None,
        typer.Option(
            help="MBTiles file to write; other formats get its name with their ending. Default: "
            "the scene's name, in this folder."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help=f"Model bundle (folder), or one that comes with c2gm: {CPU_MODEL}, {GPU_MODEL}. "
            f"Default: {CPU_MODEL}, on a GPU {GPU_MODEL}."
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(help=f"One of auto, {', '.join(BACKENDS)}; auto: the fastest here."),
    ] = "auto",
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps of a tile. Default: the model's.")
    ] = None,
    no_early_stop: Annotated[
        bool,
        typer.Option(
            "--no-early-stop", help="Take all steps, also where a model says when fewer will do."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the starting noise.")] = 0,
    cascade: Annotated[
        str, typer.Option(help="Draw a level from the map two levels up (4x) or one (2x).")
    ] = "4x",
    guide_from: Annotated[
        int | None,
        typer.Option(
            metavar="LEVEL",
            help="Coarsest level that finer ones are drawn from; coarser ones are drawn for "
            f"themselves. Default: the first at which the imagery is {GUIDE_PX} px wide and high, "
            "and which the model is good at (14 for nano).",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Base map (MBTiles or raster), from which levels are drawn that have none of "
            "the run's own to be drawn from; serves levels from 11 on."
        ),
    ] = None,
    bounds: Annotated[
        str | None, typer.Option(metavar="W,S,E,N", help="Only this box, in degrees.")
    ] = None,
    aoi: Annotated[
        Path | None, typer.Option(help="Only inside the polygons of this GeoJSON file.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            help=f"Windows at a time, one of {', '.join(map(str, BUCKETS))}. Default: "
            f"{GPU_WINDOWS} on a GPU; on a CPU one for every core, and never more."
        ),
    ] = None,
    window: Annotated[
        int,
        typer.Option(
            help=f"Tiles a side made at once, one of {', '.join(map(str, WINDOW_SIDES))}."
        ),
    ] = 1,
    halo: Annotated[
        int,
        typer.Option(
            help="Pixels around a window where it is blended with its neighbours, in steps of 32. "
            "0 is a third faster, and every tile border shows."
        ),
    ] = DEFAULT_HALO,
    no_blend: Annotated[
        bool,
        typer.Option(
            "--no-blend", help="Cut halos off, instead of blending windows where they overlap."
        ),
    ] = False,
    keep_filling: Annotated[
        bool,
        typer.Option(
            "--keep-filling",
            help="Draw a map also of a black or white rim that the file does not declare as empty.",
        ),
    ] = False,
    format_: flags.Format = None,
    tile_format: flags.TileFormat = "png",
    tile_size: flags.TileSize = TILE_SIZE,
    quality: flags.Quality = None,
    tms: flags.Tms = False,
    qgis: flags.Qgis = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Write only this part of the map, for one of N machines; c2gm-merge puts the "
            "parts together. Default output: NAME.I-of-N.mbtiles.",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Draw on the workers of a Dask cluster; the address of its scheduler.",
        ),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(help="With --cluster: parts to deal out. Default: a few for each worker."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show tiles, size and time; write nothing.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing output.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
    log_file: Annotated[
        Path | None,
        typer.Option(help="Append dated lines to this file: options, progress, how it ended."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            callback=use_config,
            is_eager=True,
            help="TOML file with options under the names of the flags, as levels = "
            '"10-16"; flags given here win, paths in it start from its folder.',
        ),
    ] = None,
    debug: Debug = False,
    verify: Annotated[
        Path | None,
        typer.Option(
            callback=_verify,
            is_eager=True,
            help="Check a finished map, every tile of it; needs no other option.",
        ),
    ] = None,
    show_version: Version = False,
) -> None:
    """Turn remote-sensing imagery into a multi-level web map, offline."""
    options = InferOptions(
        imagery=imagery,
        levels=levels,
        output=output,
        model=model,
        backend=backend,
        steps=steps,
        early_stop=not no_early_stop,
        seed=seed,
        guide_from=guide_from,
        cascade=cast(Cascade, cascade),
        reference=reference,
        bounds=None if bounds is None else parse_bounds(bounds),
        aoi=aoi,
        batch=batch,
        window=window,
        halo=halo,
        blend=not no_blend,
        keep_filling=keep_filling,
        overwrite=overwrite,
        publish=flags.publish_options(format_, tile_format, tile_size, quality, tms, qgis),
        shard=None if shard is None else parse_shard(shard),
    )
    _check_parts(options, cluster, shards, dry_run)
    result: Summary | Estimate | Merged
    with logged(log_file, options, config, report_on_stderr(quiet)) as (report, log):
        if cluster is not None:
            result = run_on_cluster(options, cluster, shards, report)
        else:
            result = estimate(options) if dry_run else run(options, report)
        told = _report(result, options.shard)
        log(told)
    with suppress(KeyboardInterrupt):  # it is done, and only to be told
        if as_json:
            print(json.dumps(result.as_json(), indent=1))
        elif not quiet:
            print(told)


def _check_parts(
    options: InferOptions, cluster: str | None, shards: int | None, dry_run: bool
) -> None:
    """Raises OptionError where options of a divided run do not go together."""
    if cluster is None and shards is not None:
        raise OptionError("--shards is given without --cluster; give --shard I/N for one part")
    if cluster is not None and (options.shard is not None or dry_run):
        other = "--dry-run" if dry_run else "--shard"
        raise OptionError(f"both --cluster and {other} are given; choose one")
    if (cluster is not None or options.shard is not None) and options.publish != PublishOptions():
        raise OptionError(
            "a map that is drawn in parts is published when it is whole; leave --format and its "
            "like out, and use c2gm-publish afterwards"
        )


def parse_bounds(text: str) -> Box:
    """`west,south,east,north`. Raises OptionError."""
    try:
        west, south, east, north = map(float, text.split(","))
    except ValueError:
        raise OptionError(
            f"--bounds is {text!r}, expected west,south,east,north in degrees, as 8.5,47.3,8.6,47.4"
        ) from None
    return west, south, east, north


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; leaves with the documented exit code and one line for every error."""
    run_program(PROGRAM, app, arguments, stopped=STOPPED)


def _report(result: Summary | Estimate | Merged, shard: Shard | None) -> str:
    if isinstance(result, Merged):
        return (
            f"{result.output}: {sum(result.tiles.values())} tiles of {result.shards} shards in "
            f"{spoken_duration(result.seconds_total)}\ntiles by level: {_by_level(result.tiles)}"
        )
    return _told(result, shard) if isinstance(result, Summary) else _foretold(result)


def _told(summary: Summary, shard: Shard | None) -> str:
    total = sum(summary.tiles.values())
    resumed = f", {summary.tiles_resumed} of them before" if summary.tiles_resumed else ""
    empty = (
        f"; {summary.tiles_without_data} tiles without data left out"
        if summary.tiles_without_data
        else ""
    )
    lines = (
        f"{summary.output}: {total} tiles{resumed} in {spoken_duration(summary.seconds_total)} "
        f"({summary.tiles_per_second:.1f} tiles/s, {summary.steps_per_window:.1f} steps a window)"
        f"{empty}",
        "tiles by level: " + _by_level(summary.tiles),
        "seconds: "
        + ", ".join(f"{part} {value:.1f}" for part, value in summary.seconds.items())
        + " (scene, reference, encode, archive beside the others)",
        f"model {summary.model}, {summary.backend}",
        *(f"also {path}" for path in summary.outputs[1:]),
        *(
            _how_to_look(summary.outputs)
            if shard is None
            else [f"This is shard {shard}; c2gm-merge makes one map of all {shard.count}."]
        ),
    )
    return "\n".join(lines)


def _how_to_look(outputs: Sequence[Path]) -> tuple[str, ...]:
    raster = "Add Layer > Add Raster Layer"
    menus = {".qlr": "Add From Layer Definition File", ".mbtiles": raster, ".tif": raster}
    for ending, place in menus.items():
        for path in outputs:
            if path.suffix == ending:
                return (
                    f"To look at it in QGIS, drag {path.name} onto the map, or use Layer > "
                    f"{place}.",
                )
    return ()


def _foretold(plan: Estimate) -> str:
    size = "not known" if plan.bytes_estimated is None else spoken_size(plan.bytes_estimated)
    time = (
        "not known" if plan.seconds_estimated is None else spoken_duration(plan.seconds_estimated)
    )
    probe = (
        f"estimated from {plan.probe_tiles} tiles of level {plan.probe_level}, just made in "
        f"{plan.probe_seconds:.1f} s"
        if plan.probe_tiles
        else "no tile with data found to estimate from"
    )
    lines = [
        f"{plan.output} would hold up to {sum(plan.tiles.values())} tiles",
        "tiles by level: " + _by_level(plan.tiles),
        *(
            [
                f"{plan.windows_around} windows around that are drawn, too, and not written: "
                "so its tiles are those of a map of the whole scene"
            ]
            if plan.windows_around
            else []
        ),
        f"size about {size} ({spoken_size(plan.bytes_free)} free), time about {time}",
        f"  ({probe})",
        f"model {plan.model}, {plan.backend}",
    ]
    return "\n".join([f"warning: {warning}" for warning in plan.warnings] + lines)


def _by_level(tiles: Mapping[int, int]) -> str:
    return ", ".join(f"{level}: {count}" for level, count in tiles.items())
