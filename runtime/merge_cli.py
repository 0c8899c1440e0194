"""`c2gm-merge`: parses, calls, reports."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from c2gm.runtime.command import Debug, Version, run_program
from c2gm.runtime.merge import merge
from c2gm.runtime.progress import report_on_stderr, spoken_duration

PROGRAM = "c2gm-merge"

EPILOG = """\b
Example, with three machines:
  c2gm-infer --imagery town.tif --levels 10-16 --shard 1/3     # on the first
  c2gm-infer --imagery town.tif --levels 10-16 --shard 2/3     # on the second
  c2gm-infer --imagery town.tif --levels 10-16 --shard 3/3     # on the third
  c2gm-merge town.*-of-3.mbtiles --output town.mbtiles

\b
The result is, tile by tile, the map that one machine would have made. A merge that was stopped
goes on with the same command. Shards are left as they are.

\b
Exit codes:
    0  every tile of every shard is in the output
    1  a fault of c2gm itself; please report it (--debug shows where)
    2  options that make no sense
    8  a shard is missing, unfinished, damaged or of another run, or the output cannot be written
    9  the disk is full
  130  stopped by Ctrl-C
"""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command(epilog=EPILOG)
def merge_shards(
    shards: Annotated[list[Path], typer.Argument(help="All shards of a run, in any order.")],
    output: Annotated[Path, typer.Option(help="MBTiles file to write.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing output.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
    debug: Debug = False,
    show_version: Version = False,
) -> None:
    """Merge the shards that c2gm-infer --shard wrote into one map."""
    merged = merge(shards, output, report_on_stderr(quiet), overwrite)
    if as_json:
        typer.echo(json.dumps(merged.as_json(), indent=1))
    elif not quiet:
        typer.echo(
            f"{merged.output}: {sum(merged.tiles.values())} tiles of {merged.shards} shards in "
            f"{spoken_duration(merged.seconds_total)}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; leaves with the documented exit code and one line for every error."""
    run_program(PROGRAM, app, arguments, stopped="stopped before anything was merged")
