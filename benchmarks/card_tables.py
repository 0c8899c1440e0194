"""The tables of the model card, in Markdown, from reports of `c2gm-eval --output`.

Scores, then differences on the same tiles with 95 % intervals: to the enlarged reference, and to a
peer (docs/training.md, "How sure a difference of scores is").

python -m c2gm.benchmarks.card_tables docs/evaluation/nano_24.json \\
    --cascade docs/evaluation/nano_from_12.json
python -m c2gm.benchmarks.card_tables docs/evaluation/nano_24.json \\
    --peer docs/evaluation/pix2pix_24.json
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from c2gm.benchmarks.difference_tables import (
    BOTH,
    against_peer,
    against_reference,
    difference_tables,
)
from c2gm.benchmarks.rows import markdown
from c2gm.model.evaluation.tile_scores import TileScores
from c2gm.runtime.command import leave
from c2gm.runtime.errors import C2GMError, DataError

PICTURES = (("psnr_y", ".2f"), ("ssim_y", ".3f"), ("lpips", ".3f"))
_CASCADE = "cascade"
AREAS = ("iou_wood", "iou_water", "iou_built_up", "iou_building", "iou_road")
MAPPERS = (("ssim_y", ".3f"), ("iou_building", ".2f"), ("iou_road", ".2f"))

Report = Mapping[str, Any]
Row = Mapping[str, Any]


def main() -> None:
    """Parse, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path)
    parser.add_argument("--peer", type=Path, help="A report on the same tiles, to set beside.")
    parser.add_argument(
        "--cascade",
        type=Path,
        action="append",
        default=[],
        metavar="REPORT",
        help="A report whose cascades begin elsewhere, for columns beside; may be repeated.",
    )
    options = parser.parse_args()
    try:
        tables = card_tables(options.report, options.peer, options.cascade)
    except C2GMError as error:
        leave("card_tables", str(error), error.exit_code)
    print("\n\n".join("\n".join(table) for table in tables))


def card_tables(
    report: Path, peer: Path | None = None, cascades: Sequence[Path] = ()
) -> list[list[str]]:
    """Lines of every table: scores, then differences with their intervals.

    Raises DataError for a file that is no report, or lacks scores by tile or a condition, and for
    a peer's report on other tiles.
    """
    ours, our_tiles = _read(report, BOTH[:1] if peer is None else BOTH)
    compared = against_reference(our_tiles)
    if peer is None:
        for path in cascades:
            ours = {**ours, **_cascades(_read(path, ())[0], path)}
        tables = [levels_table(ours), classes_table(ours), real_table(ours)]
    else:
        theirs, their_tiles = _read(peer, BOTH)
        compared += against_peer(our_tiles, their_tiles)
        tables = [peer_table(ours, theirs, "real"), peer_table(ours, theirs, None)]
    return [*tables, *difference_tables(compared)]


def levels_table(conditions: Report) -> list[str]:
    """Pictures level by level under every condition, beside the enlarged reference."""
    columns = {
        "with a true reference": ("with_reference", "model"),
        "baseline": ("with_reference", "enlarged_reference"),
        "without a reference": ("without_reference", "model"),
        **{name: (name, "model") for name in conditions if name.startswith(_CASCADE)},
    }
    shown = {title: key for title, key in columns.items() if key[0] in conditions}
    levels = sorted({z for content in conditions.values() for z in content["detailed"]["levels"]})
    rows = [
        [level, *(_pictures(conditions[c]["detailed"], level, who) for c, who in shown.values())]
        for level in (*levels, "all")
    ]
    return markdown(["level", *shown], rows)


def classes_table(conditions: Report) -> list[str]:
    """IoU of classes, all levels together, and on real imagery alone."""
    rows: list[list[str]] = []
    for condition, content in conditions.items():
        detailed = content["detailed"]
        places = {"": detailed["overall"], ", real imagery": detailed["kinds"]["real"]["overall"]}
        for where, row in places.items():
            for who in ("model", "enlarged_reference"):
                if who == "enlarged_reference" and condition != "with_reference":
                    continue
                name = condition.replace("_", " ") if who == "model" else "enlarged reference"
                values = row[who]
                rows.append(
                    [
                        f"{name}{where} ({row['tiles']})",
                        *(_number(values[area], ".2f") for area in AREAS),
                        f"{_number(values['road_completeness'], '.2f')} / "
                        f"{_number(values['road_correctness'], '.2f')}",
                        _number(values.get("fd_alexnet"), ".1f"),
                    ]
                )
    names = [area.removeprefix("iou_").replace("_", "-") for area in AREAS]
    return markdown(["detailed tiles", *names, "roads found / right", "FD"], rows)


def real_table(conditions: Report) -> list[str]:
    """What a mapper asks, on real imagery level by level, model / enlarged reference."""
    levels = conditions["with_reference"]["detailed"]["kinds"]["real"]["levels"]
    columns = (*MAPPERS, PICTURES[0])
    rows = [
        [
            level,
            str(row["tiles"]),
            *(
                f"{_number(row['model'][name], form)} / "
                f"{_number(row['enlarged_reference'][name], form)}"
                for name, form in columns
            ),
        ]
        for level, row in levels.items()
    ]
    return markdown(["level", "tiles", *(_title(name) for name, _ in columns)], rows)


def peer_table(ours: Report, peer: Report, kind: str | None) -> list[str]:
    """SSIM-Y / buildings / roads, ours and a peer's, from level 13 on."""
    tables = {
        f"{condition.replace('_', ' ')}{suffix}": (_of(report[condition], kind), who)
        for condition in ("with_reference", "without_reference")
        for suffix, report, who in (
            ("", ours, "model"),
            (", peer", peer, "model"),
            (", enlarged", ours, "enlarged_reference"),
        )
        if not (suffix == ", enlarged" and condition == "without_reference")
    }
    first = next(iter(tables.values()))[0]
    rows = [
        [
            level,
            str(_row(first, level)["tiles"]),
            *(
                " / ".join(_number(_row(table, level)[who][name], form) for name, form in MAPPERS)
                for table, who in tables.values()
            ),
        ]
        for level in (*(z for z in first["levels"] if int(z) >= 13), "all")
    ]
    return markdown(["level", "tiles", *tables], rows)


def _read(path: Path, needed: Sequence[str]) -> tuple[Report, TileScores]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        conditions: Report = {
            f"{name} from {content['options']['coarsest']}" if name == _CASCADE else name: part
            for name, part in content["conditions"].items()
        }
        tiles = TileScores.of_report(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no report of c2gm-eval --output ({type(error).__name__}: {error})"
        ) from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    for name in needed:
        if name not in conditions:
            raise DataError(f"{path} has nothing of {name}; make it with --references both or all")
    return conditions, tiles


def _cascades(conditions: Report, path: Path) -> Report:
    found = {name: part for name, part in conditions.items() if name.startswith(_CASCADE)}
    if not found:
        raise DataError(f"{path} has no cascade; make it with --references cascade or all")
    return found


def _of(content: Report, kind: str | None) -> Report:
    detailed: Report = content["detailed"]
    return detailed if kind is None else detailed["kinds"][kind]


def _row(table: Report, level: str) -> Row:
    row: Row = table["overall"] if level == "all" else table["levels"].get(level, {})
    return row


def _pictures(table: Report, level: str, who: str) -> str:
    values = _row(table, level).get(who)
    if values is None:
        return "-"
    return " / ".join(_number(values.get(name), form) for name, form in PICTURES)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _title(name: str) -> str:
    return {"ssim_y": "SSIM-Y", "psnr_y": "PSNR-Y"}.get(name, name.removeprefix("iou_") + " IoU")


if __name__ == "__main__":
    main()
