"""`c2gm-view`: parses, calls, reports."""

import sys
import webbrowser
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated

import typer

from c2gm.runtime.command import Debug, Version, run_program
from c2gm.runtime.errors import OptionError
from c2gm.runtime.progress import report_on_stderr
from c2gm.runtime.viewer.export import check_folder, export_folder
from c2gm.runtime.viewer.imagery import ImageryTiles
from c2gm.runtime.viewer.mbtiles_source import MbtilesSource, spoken_levels
from c2gm.runtime.viewer.page import View
from c2gm.runtime.viewer.server import DEFAULT_HOST, DEFAULT_PORT, open_server
from c2gm.runtime.viewer.source import count_tiles

PROGRAM = "c2gm-view"

EPILOG = """\b
Examples:
  c2gm-view town.mbtiles
  c2gm-view town.mbtiles --imagery town.tif --open
  c2gm-view town.mbtiles --imagery town.tif --html town-viewer

\b
The folder of --html needs no server and no network: open its index.html.

\b
Exit codes:
    0  the folder is written, or Ctrl-C ended the server
    1  a fault of c2gm itself; please report it (--debug shows where)
    2  options that make no sense
    3  the imagery cannot be used
    8  the folder exists or cannot be written
    9  the disk is full
   15  the map cannot be read
   16  the port is taken, or the address is not this machine's
  130  stopped by Ctrl-C while the folder was written
"""

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(epilog=EPILOG)
def view(
    result: Annotated[
        Path,
        typer.Argument(
            metavar="RESULT", help="Map to look at: an MBTiles file of pictures, ours or another."
        ),
    ],
    imagery: Annotated[
        Path | None,
        typer.Option(help="Scene that the map was made of, to compare: any raster GDAL reads."),
    ] = None,
    imagery_credit: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Whom the imagery is owed to, as '© swisstopo'."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write a folder that opens without a server, and end."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a folder that --html made before.")
    ] = False,
    host: Annotated[
        str | None,
        typer.Option(
            help=f"Address to listen on. Default: {DEFAULT_HOST}, where only this machine connects."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help=f"Port to listen on, 0 for any free one. Default: {DEFAULT_PORT}, or a free one "
            "where that is taken."
        ),
    ] = None,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open it in the browser of this machine.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Say nothing but the address, warnings and errors.")
    ] = False,
    debug: Debug = False,
    show_version: Version = False,
) -> None:
    """Look at a map in a browser, beside its imagery, without a network."""
    if html is None and overwrite:
        raise OptionError("--overwrite is given without --html; it replaces that folder")
    if html is not None and (host is not None or port is not None):
        raise OptionError("--html serves nothing; leave --host and --port out, or --html")
    if imagery is None and imagery_credit is not None:
        raise OptionError("--imagery-credit is given without --imagery; give both")
    if html is not None:
        check_folder(html, overwrite)
    with ExitStack() as stack:
        source = stack.enter_context(closing(MbtilesSource.open(result)))
        scene = None
        if imagery is not None:
            if not quiet:
                _say(f"reading {imagery}, all of it once")
            scene = stack.enter_context(
                closing(ImageryTiles.open(imagery, source, imagery_credit or ""))
            )
        shown = View(source, scene)
        if html is None:
            _serve(shown, host or DEFAULT_HOST, port, open_browser)
            return
        count = export_folder(shown, html, overwrite, report_on_stderr(quiet))
        index = html / "index.html"
        if not quiet:
            print(f"{html}: {count} tiles; open {index} in a browser")
        if open_browser:
            webbrowser.open(index.absolute().as_uri())


def _serve(shown: View, host: str, port: int | None, open_browser: bool) -> None:
    """Until Ctrl-C, which is how it ends well."""
    with open_server(shown, host, port, _say) as server:
        levels = spoken_levels(shown.result.levels)
        if not server.is_loopback:
            _say(
                f"warning: everybody who reaches {host} can look at map and imagery, without a "
                "password and unencrypted; use it in networks that you trust"
            )
        try:
            print(
                f"{shown.result.about.name}: levels {levels}, {count_tiles(shown.result)} tiles; "
                f"{server.url} (Ctrl-C ends)",
                flush=True,
            )
            if open_browser:
                webbrowser.open(server.url)
            server.serve_forever()
        except KeyboardInterrupt:
            return


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; leaves with the documented exit code and one line for every error."""
    run_program(PROGRAM, app, arguments, stopped="stopped; nothing half-written is left")
