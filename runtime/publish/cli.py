"""`c2gm-publish`: parses, calls, reports."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from c2gm.runtime.command import Debug, Version, run_program
from c2gm.runtime.errors import OptionError
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.publish import flags
from c2gm.runtime.publish.options import PublishOptions
from c2gm.runtime.publish.publication import Publication
from c2gm.runtime.publish.source import open_finished

PROGRAM = "c2gm-publish"
ENDINGS = (".mbtiles", ".pmtiles", ".tif")

EPILOG = """\b
Examples:
  c2gm-publish town.mbtiles --format pmtiles                      town.pmtiles
  c2gm-publish town.mbtiles --format xyz --tms --tile-size 512    town_tms/LEVEL/COLUMN/ROW.png
  c2gm-publish town.mbtiles --format cog --qgis                   town_z10.tif ..., town.qlr
  c2gm-publish town.mbtiles --format mbtiles --tile-format webp --output small.mbtiles

\b
Exit codes:
    0  all outputs are there
    1  a fault of c2gm itself; please report it (--debug shows where)
    2  options that make no sense
    8  the map is not whole, or an output exists or cannot be written
    9  the disk is full
  130  stopped by Ctrl-C
"""

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)


@app.command(epilog=EPILOG)
def publish(
    map_file: Annotated[
        Path, typer.Argument(metavar="MAP.mbtiles", help="A finished map of c2gm-infer.")
    ],
    format_: flags.Format = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Name of the outputs; each gets the ending of its format. Default: the map's, "
            "beside it."
        ),
    ] = None,
    tile_format: flags.TileFormat = "png",
    tile_size: flags.TileSize = TILE_SIZE,
    quality: flags.Quality = None,
    tms: flags.Tms = False,
    qgis: flags.Qgis = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing outputs.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the outputs as JSON on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
    debug: Debug = False,
    show_version: Version = False,
) -> None:
    """Publish a finished map in other formats. It is verified first, and never changed."""
    if format_ is None:
        raise OptionError("--format is missing; choose some of mbtiles, pmtiles, xyz, cog")
    options = flags.publish_options(format_, tile_format, tile_size, quality, tms, qgis)
    outputs = convert(map_file, output, options, overwrite=overwrite, quiet=quiet)
    if as_json:
        print(json.dumps({"outputs": [str(path) for path in outputs]}, indent=1))
    elif not quiet:
        print("\n".join(map(str, outputs)))


def convert(
    map_file: Path, output: Path | None, options: PublishOptions, *, overwrite: bool, quiet: bool
) -> tuple[Path, ...]:
    """Publish a finished map; returns the outputs. Raises C2GMError."""

    def note(message: str) -> None:
        if not quiet:
            sys.stderr.write(message + "\n")

    options.check(())
    base = _base(map_file if output is None else output)
    if "mbtiles" in options.formats and base.with_name(base.name + ".mbtiles") == _plain(map_file):
        raise OptionError(f"{map_file} is the map itself; give another --output")
    for warning in options.warnings():
        note(f"warning: {warning}")
    publication = Publication(base, options, with_archive=False, overwrite=overwrite)
    with open_finished(map_file) as source:
        options.check(source.levels)
        publication.check(source.levels)
        outputs = publication.publish(source, note)
    publication.clean()
    return outputs


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; leaves with the documented exit code and one line for every error."""
    run_program(
        PROGRAM,
        app,
        arguments,
        stopped="stopped; no output was begun that is not complete, run it again",
    )


def _base(path: Path) -> Path:
    if not path.name:
        raise OptionError(f"--output is {str(path)!r}, expected a name for the outputs")
    plain = _plain(path)
    return plain.with_suffix("") if plain.suffix in ENDINGS else plain


def _plain(path: Path) -> Path:
    """Absolute, with links in its folders followed: what is compared."""
    return path.parent.resolve() / path.name
