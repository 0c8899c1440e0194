"""`c2gm-dataset`: builds training data."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from c2gm.model.mosaic import Area, open_areas
from c2gm.model.mosaic_build import AreaBuilder, class_shares
from c2gm.model.sources import SOURCES, plans
from c2gm.runtime.errors import OptionError

app = typer.Typer(
    help="Make training data for c2gm-train.", no_args_is_help=True, add_completion=False
)
_console = Console(stderr=True)


@app.callback()
def _commands() -> None:
    """Keep `build` a sub-command even while it is alone."""


@app.command()
def build(
    data: Annotated[Path, typer.Option(help="Folder with swiss/, dubai/ and osm/.")],
    output: Annotated[Path, typer.Option(help="Dataset folder to write.")] = Path("runs/dataset"),
    only: Annotated[
        str, typer.Option(help=f"Comma-separated sources, of {', '.join(SOURCES)}.")
    ] = ",".join(SOURCES),
    seed: Annotated[int, typer.Option(help="Chooses styles and procedural worlds.")] = 0,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Draw the maps of finished areas again.")
    ] = False,
) -> None:
    """Build mosaics of imagery and maps; finished areas are left as they are.

    \b
    c2gm-dataset build --data ../shared/data
    c2gm-dataset build --data ../shared/data --only swiss,dubai --output runs/small
    c2gm-dataset build --data ../shared/data --redraw      # after a change of the map style
    """
    sources = [name.strip() for name in only.split(",") if name.strip()]
    unknown = sorted(set(sources) - set(SOURCES))
    if unknown or not sources:
        raise OptionError(f"--only {only!r}: choose from {', '.join(SOURCES)}")
    builder = AreaBuilder(output)
    start = time.monotonic()
    for source in sources:
        for plan in plans(source, data, seed):
            finished = (output / plan.name / "area.json").exists()
            if finished and not redraw:
                _console.print(f"{plan.name}: already built")
                continue
            for line in builder.build(plan, maps_only=finished):
                _console.print(f"{time.monotonic() - start:7.1f} s  {line}", highlight=False)
    areas = open_areas(output)
    manifest = {area.name: _facts(area) for area in areas}
    (output / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    _console.print(f"{len(areas)} areas in {output}, described in manifest.json")


def _facts(area: Area) -> dict[str, object]:
    levels = {}
    for level, extent in area.levels.items():
        valid = float(area.cells(level).valid.sum()) * 32 * 32
        levels[level] = {
            "tiles": round(valid / 65536, 2),
            "pixels": [extent.width, extent.height],
            "class_shares": class_shares(area, level),
        }
    facts = {"kind": area.kind, "credit": area.credit, "licence": area.licence}
    return {**facts, "targets": list(area.targets), "levels": levels}
