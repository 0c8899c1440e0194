"""`c2gm-dataset`: builds training data."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from c2gm.model.config import DEFAULT_STEPS, SHIPPED_WEIGHTS
from c2gm.model.data.cscmg import write_cscmg
from c2gm.model.data.manifest import write_manifest
from c2gm.model.data.mosaic import GROUND_LEVEL, Extent
from c2gm.model.data.mosaic_build import AreaBuilder
from c2gm.model.data.real_pairs import geotiff_area
from c2gm.model.data.sources import SOURCES, plans
from c2gm.runtime.errors import OptionError
from c2gm.runtime.levels import LEVELS

EXAMPLES = """\b
Examples:
  c2gm-dataset build --data ../shared/data --output runs/dataset
  c2gm-dataset add --imagery town.tif --vectors town.gpkg --output runs/dataset
  c2gm-dataset own-references --dataset runs/dataset \\
      --checkpoint runs/sgdm/sgdm.safetensors
  c2gm-dataset cscmg --dataset runs/dataset --output runs/cscmg
"""

app = typer.Typer(
    help="Make training data for c2gm-train.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_console = Console(stderr=True)


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
    """Build mosaics of imagery and maps.

    Finished areas are left as they are.

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
    _write_manifest(output)


@app.command()
def add(
    imagery: Annotated[Path, typer.Option(help="Raster with a CRS and red, green, blue bands.")],
    vectors: Annotated[Path, typer.Option(help="GeoPackage or GeoJSON of the same ground.")],
    output: Annotated[Path, typer.Option(help="Dataset folder to add to.")] = Path("runs/dataset"),
    name: Annotated[str, typer.Option(help="Name of the area; default: the raster's.")] = "",
    finest: Annotated[int, typer.Option(min=14, max=18, help="Finest level to make.")] = 18,
    shift: Annotated[
        str, typer.Option(help="Moves the vectors: DX,DY in level-18 pixels, east and south.")
    ] = "0,0",
    held_out: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of the ground (its east) to hold out.")
    ] = 0.125,
    credit: Annotated[str, typer.Option(help="Who is to be credited.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of imagery and vectors.")] = "",
) -> None:
    """Add a pair of your own.

    Imagery and vectors of the same ground.

    \b
    c2gm-dataset add --imagery town.tif --vectors town.gpkg --licence "CC-BY-4.0"
    c2gm-dataset add --imagery town.tif --vectors town.gpkg --shift=-4,0 --finest 17
    """
    try:
        east, south = (int(part) for part in shift.split(","))
    except ValueError:
        raise OptionError(f"--shift {shift!r}: expected DX,DY, for example -4,0") from None
    plan = geotiff_area(
        name or imagery.stem,
        imagery,
        vectors,
        shift_px=(east, south),
        finest=finest,
        credit=credit,
        licence=licence,
    )
    ground = plan.extent.at(finest, GROUND_LEVEL)
    width = round(ground.width * held_out)
    if width:
        left = ground.left + ground.width - width
        plan = replace(plan, validation=(Extent(left, ground.top, width, ground.height),))
    for line in AreaBuilder(output).build(plan):
        _console.print(line, highlight=False)
    _write_manifest(output)


@app.command()
def own_references(
    dataset: Annotated[Path, typer.Option(help="Dataset folder with areas.")] = Path(
        "runs/dataset"
    ),
    checkpoint: Annotated[
        Path,
        typer.Option(
            help="Weights of the model that draws (.safetensors).", show_default="the shipped"
        ),
    ] = SHIPPED_WEIGHTS,
    steps: Annotated[int, typer.Option(min=1, help="DDIM steps a tile.")] = DEFAULT_STEPS,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the starting noise.")] = 0,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Draw finished areas again, with a newer model.")
    ] = False,
) -> None:
    """Let a model draw references for stage 2.

    It draws the training ground of every area.

    \b
    c2gm-dataset own-references --dataset runs/dataset \\
        --checkpoint runs/sgdm/sgdm.safetensors
    c2gm-train sgdm --references generated ...
    """
    from c2gm.model.checkpoint import load_model
    from c2gm.model.own_references import draw_own_references

    start = time.monotonic()
    for line in draw_own_references(dataset, load_model(checkpoint), steps, seed, redraw):
        _console.print(f"{time.monotonic() - start:7.1f} s  {line}", highlight=False)


@app.command()
def cscmg(
    output: Annotated[Path, typer.Option(help="New folder for the set.")],
    dataset: Annotated[Path, typer.Option(help="Dataset folder with areas.")] = Path(
        "runs/dataset"
    ),
    levels: Annotated[str, typer.Option(help="Levels to write, as COARSEST-FINEST.")] = "14-18",
    valid: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Smallest share of valid imagery of a tile.")
    ] = 0.5,
) -> None:
    """Write areas as a CSCMG set.

    train/ and val/ with imagery, maps, references and a list of tiles.

    \b
    c2gm-dataset cscmg --dataset runs/dataset --output runs/cscmg
    c2gm-dataset cscmg --dataset runs/dataset --output runs/cscmg --levels 14-17 --valid 1
    """
    try:
        coarsest, finest = (int(part) for part in levels.split("-"))
    except ValueError:
        raise OptionError(f"--levels {levels!r}: expected COARSEST-FINEST, e.g. 14-18") from None
    if not min(LEVELS) <= coarsest <= finest <= max(LEVELS):
        raise OptionError(
            f"--levels {levels}: expected a range within {min(LEVELS)}-{max(LEVELS)}, coarse first"
        )
    counts = write_cscmg(dataset, output, tuple(range(coarsest, finest + 1)), valid)
    numbers = ", ".join(f"{count} tiles for {split}" for split, count in counts.items())
    _console.print(f"{output}: {numbers}", highlight=False)


def _write_manifest(output: Path) -> None:
    count = write_manifest(output)
    _console.print(f"{count} areas in {output}, described in manifest.json")
