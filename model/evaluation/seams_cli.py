"""`c2gm-eval seams`: parse, measure, report."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from c2gm.model.evaluation.consistency import measure_consistency, shares
from c2gm.model.evaluation.result_map import ResultMap
from c2gm.model.evaluation.seams import (
    STATISTICS,
    Ratio,
    groups,
    measure_lines,
    outstanding,
    ratios,
)
from c2gm.model.evaluation.seams_picture import draw_worst
from c2gm.model.maps.classes import CLASSES
from c2gm.runtime.errors import LevelError, OptionError, OutputError, SeamError
from c2gm.runtime.grid import parse_levels

_PIPE_WIDTH = 120

LARGE = 100
"""Ratios beyond this say no more than that there are seams."""


def seams(
    result: Annotated[Path, typer.Argument(help="Map made by c2gm-infer (.mbtiles).")],
    levels: Annotated[
        str | None, typer.Option(help="Only these, as in 14-16.", show_default="all")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write all figures here (JSON).")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write the worst borders of every level here (PNG).")
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(
            metavar="RATIO",
            help="Leave with exit code 17 if gradient or residual of a level is above it, or one "
            "of them or activity below its reciprocal (smoothed), with all of the interval, or if "
            "one line, border or tile stands out by itself.",
            show_default="never",
        ),
    ] = None,
) -> None:
    """Measure how visible the tile borders of a map are, and whether its levels agree.

    A seam is what happens across tile borders as a multiple of what happens across the middle of
    the same tiles: 1 is no seam, more is one, less is a map smoothed over its borders. By level,
    and by what the two tiles share: their parent (siblings), the tile two levels up (families),
    neither (references).

    Levels agree where a class of the coarser map is kept in the finer one; "new" is what the finer
    one has beyond it.

    \b
    c2gm-eval seams scene.mbtiles
    c2gm-eval seams scene.mbtiles --levels 14-16 --output seams.json --picture worst.png
    c2gm-eval seams scene.mbtiles --fail-above 1.5
    """
    if fail_above is not None and not fail_above > 0:
        raise OptionError(f"--fail-above is {fail_above:g}, expected a ratio above 0, as 1.5")
    for path in (output, picture):
        if path is not None and not path.absolute().parent.is_dir():
            raise OutputError(f"{path.parent} is not a folder; make it first")
        if path is not None and path.is_dir():
            raise OutputError(f"{path} is a folder; give the name of a file")
    if picture is not None and picture.suffix.lower() != ".png":
        raise OutputError(f"--picture is {picture}, expected a name that ends in .png")
    with ResultMap(result) as found:
        chosen = found.levels if levels is None else parse_levels(levels)
        missing = sorted(set(chosen) - set(found.levels))
        if missing:
            raise LevelError(
                f"{result} has no level {', '.join(map(str, missing))}; it has "
                f"{', '.join(map(str, found.levels))}"
            )
        lines = measure_lines((pair for z in chosen for pair in found.tiles(z)), found.window)
        pairs = measure_consistency(found, chosen)
        worst = None if picture is None else draw_worst(found, lines)
    report: dict[str, Any] = {
        "format": "c2gm-eval seams 1",
        "map": result.name,
        "window": found.window,
        "seams": {
            str(level): {
                name: {"borders": len(borders)} | _plain(ratios(borders, measured.controls))
                for name, borders in groups(measured, found.cascade)
                if borders
            }
            for level, measured in lines.items()
        },
        "outstanding": {str(level): outstanding(measured) for level, measured in lines.items()},
        "consistency": {
            f"{level} from {coarse}": shares(counts) for (level, coarse), counts in pairs.items()
        },
    }
    if output is not None:
        output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if worst is not None and picture is not None:
        worst.save(picture)
    _print(report)
    if not any(measured.borders for measured in lines.values()):
        Console(stderr=True).print("no borders: no level has two tiles beside each other")
    if fail_above is not None:
        _check(report["seams"], report["outstanding"], fail_above)


def _check(
    seams: Mapping[str, Any], outstanding: Mapping[str, Sequence[str]], limit: float
) -> None:
    """Raises SeamError where a level has seams beyond the limit for sure."""
    found: list[str] = []
    for level, kinds in seams.items():
        for name, row in kinds.get("all", {}).items():
            if name not in ("gradient", "residual", "activity") or row is None:
                continue
            if row["high"] < 1 / limit or (name != "activity" and row["low"] > limit):
                found.append(f"level {level} {name} {_interval(row)}")
        if some := outstanding[level]:
            more = f" and {len(some) - 3} more" if len(some) > 3 else ""
            found.append(f"level {level} {', '.join(some[:3])}{more}")
    if found:
        raise SeamError(f"seams above {limit:g}: {'; '.join(found)}. --picture shows where")


def _plain(found: Mapping[str, Ratio | None]) -> dict[str, Any]:
    return {name: None if ratio is None else asdict(ratio) for name, ratio in found.items()}


def _print(report: Mapping[str, Any]) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    table = Table(title="seams: 1 is none (95 % interval)", title_justify="left")
    for name in ("level", "borders of", "count", *STATISTICS):
        table.add_column(name, justify="left" if name == "borders of" else "right")
    for level, kinds in report["seams"].items():
        table.add_section()
        for name, row in kinds.items():
            cells = [_interval(row[statistic]) for statistic in STATISTICS]
            table.add_row(level, name, str(row["borders"]), *cells)
    console.print(table)
    if not report["consistency"]:
        return
    table = Table(title="agreement of levels: kept / new", title_justify="left")
    for name in ("level", *CLASSES):
        table.add_column(name.replace("_", "-"), justify="right")
    for pair, classes in report["consistency"].items():
        cells = [f"{_share(row['kept'])} / {_share(row['new'])}" for row in classes.values()]
        table.add_row(pair, *cells)
    console.print(table)


def _interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    return f"{_ratio(found['ratio'])} ({_ratio(found['low'])}-{_ratio(found['high'])})"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < LARGE else f">{LARGE}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
