"""Which windows should maps be made of? Seams, quality and time of combinations, on real scenes.

Every scene is mapped by c2gm-infer with every combination; its borders are measured, what a level
keeps of the one it was drawn from, and the time (the machine must be idle for that). Where the
dataset has an area of the scene's name, tiles of held-out ground with detail are scored against its
true map, and that map itself, cut into tiles, is a control: a picture without seams. Borders inside
windows of several tiles are another: the model's own drawing, without seams by construction.

python -m c2gm.benchmarks.windows --dataset runs/dataset --levels 12-17 \
    scenes/brig_west.tif scenes/ftan.tif

Combinations are options of c2gm-infer, so that two models are compared as they are used, in whole
cascades on references of their own, and on the same tiles:

python -m c2gm.benchmarks.windows --dataset runs/dataset --levels 12-17 \
    --combinations "--model nano" "--model nano-int8" --output models.json scenes/*.tif
"""

import argparse
import json
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mercantile import Tile

from c2gm.benchmarks.child import infer
from c2gm.benchmarks.tile_scores import Key, TileScore, compare, means, score_tiles, tile_extents
from c2gm.model.data.mosaic import Area, crop, open_area
from c2gm.model.evaluation.consistency import measure_consistency, shares
from c2gm.model.evaluation.result_map import ResultMap
from c2gm.model.evaluation.seams import (
    STATISTICS,
    LevelLines,
    by_line,
    groups,
    measure_lines,
    ratios,
    share_across,
)
from c2gm.runtime.grid import parse_levels
from c2gm.runtime.pixels import Picture

COMBINATIONS = (
    "--halo 0",
    "--window 2 --halo 0",
    "--halo 32 --no-blend",
    "--halo 32",
    "--window 2 --halo 32",
    "--window 2 --halo 64",
    "--window 4 --halo 64",
)

OWN_CONTROL = "--window 4 --halo 64"
"""Among the combinations, the one whose borders inside windows the others are compared with."""

DRAWS = 400
"""Of a bootstrap."""

SHOWN = ("building", "road")


@dataclass(slots=True)
class Totals:
    """What one combination did on all scenes."""

    lines: dict[int, LevelLines] = field(default_factory=dict)
    scores: dict[Key, TileScore] = field(default_factory=dict)
    agreement: dict[tuple[int, int], Any] = field(default_factory=dict)
    seconds: float = 0.0
    tiles: int = 0

    def add_lines(self, found: dict[int, LevelLines]) -> None:
        """Borders of one more scene."""
        for level, lines in found.items():
            mine = self.lines.setdefault(level, LevelLines())
            mine.borders += lines.borders
            mine.controls += lines.controls

    def add_agreement(self, found: dict[tuple[int, int], Any]) -> None:
        """Counts of levels that agree, of one more scene."""
        for pair, counts in found.items():
            self.agreement[pair] = self.agreement.get(pair, 0) + counts

    def add(self, other: "Totals") -> None:
        """All of one more scene."""
        self.add_lines(other.lines)
        self.add_agreement(other.agreement)
        self.scores |= other.scores
        self.seconds += other.seconds
        self.tiles += other.tiles

    def row(self) -> dict[str, Any]:
        """Plain values: seams by level and group, agreement, scores, milliseconds a tile."""
        seams = {
            level: {
                group: {"borders": len(borders)}
                | {
                    name: None if ratio is None else asdict(ratio)
                    for name, ratio in ratios(borders, lines.controls).items()
                }
                for group, borders in groups(lines)
            }
            for level, lines in self.lines.items()
        }
        detailed = [score for score in self.scores.values() if score.detailed]
        return {
            "seams": seams,
            "agreement": {
                f"{level} from {coarse}": shares(counts)
                for (level, coarse), counts in self.agreement.items()
            },
            "scored_tiles": len(detailed),
            "scores": means(detailed),
            "ms_per_tile": 1e3 * self.seconds / self.tiles if self.tiles else None,
        }


def measure(
    scenes: Sequence[Path], dataset: Path, levels: str, combinations: Sequence[str], timed: bool
) -> dict[str, Any]:
    """Rows by combination, and the control's: of all scenes together, and of each.

    Every combination is also compared with the first one on the same tiles. Raises C2GMError.
    """
    chosen = parse_levels(levels)
    names = ("control", *combinations)
    every = {name: Totals() for name in names}
    by_scene: dict[str, dict[str, Totals]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "map.mbtiles"
        for scene in scenes:
            folder = dataset / scene.stem
            area = open_area(folder) if folder.is_dir() else None
            rows = by_scene[scene.stem] = {name: Totals() for name in names}
            for name in combinations:
                totals, start = rows[name], time.perf_counter()
                summary = infer(
                    "--imagery", str(scene), "--levels", levels, "--output", str(output),
                    "--overwrite", *shlex.split(name),
                )  # fmt: skip
                if timed:
                    totals.seconds += time.perf_counter() - start
                    totals.tiles += sum(summary["tiles"].values())
                with ResultMap(output) as found:
                    pairs = (pair for z in found.levels for pair in found.tiles(z))
                    totals.add_lines(measure_lines(pairs, found.window))
                    totals.add_agreement(measure_consistency(found, found.levels))
                    if area is not None:
                        totals.scores |= score_tiles(area, found, chosen)
            if area is not None:
                rows["control"].add_lines(measure_lines(_truth(area, chosen)))
            for name, totals in rows.items():
                every[name].add(totals)
    compared = {}
    if OWN_CONTROL in every:
        own = every[OWN_CONTROL].lines
        compared = {
            name: {level: paired(lines, own[level]) for level, lines in totals.lines.items()}
            for name, totals in every.items()
            if name not in ("control", OWN_CONTROL)
        }
    return {
        "rows": {name: totals.row() for name, totals in every.items()},
        "against_own_map_on_the_same_lines": compared,
        "against_the_first_on_the_same_tiles": {
            name: compare(every[combinations[0]].scores, every[name].scores)
            for name in combinations[1:]
        },
        "scenes": {
            scene: {name: totals.row() for name, totals in rows.items()}
            for scene, rows in by_scene.items()
        },
    }


def paired(here: LevelLines, own: LevelLines) -> dict[str, Any]:
    """What happens across borders over what happens on the same lines where they are no borders.

    `own`: the map in larger windows, of which the borders inside windows count. By statistic the
    ratio and its 95 % interval, lines of one meridian or parallel drawn together in both.
    """
    inside = {(b.tile, b.upright): b for b in own.borders if b.inside_window}
    borders = [border for border in here.borders if (border.tile, border.upright) in inside]
    if not borders:
        return {"borders": 0}
    pair = by_line(borders), by_line([inside[b.tile, b.upright] for b in borders])
    rng, count = np.random.default_rng(0), len(pair[0])
    draws = rng.integers(0, count, (DRAWS, count))
    found: dict[str, Any] = {"borders": len(borders)}
    for index, name in enumerate(STATISTICS):
        at = 1 + 2 * index
        ratio = share_across(pair[0].sum(axis=0), at) / share_across(pair[1].sum(axis=0), at)
        sums = [lines[draws].sum(axis=1) for lines in pair]
        spread = share_across(sums[0], at) / share_across(sums[1], at)
        low, high = np.quantile(spread, [0.025, 0.975])
        found[name] = {"ratio": float(ratio), "low": float(low), "high": float(high)}
    return found


def _truth(area: Area, levels: Sequence[int]) -> Iterator[tuple[Tile, Picture]]:
    """The true map where there is imagery, tile by tile."""
    for level in levels:
        for tile, extent in tile_extents(area, level):
            seen = crop(area.imagery(level), area.levels[level], extent)[..., 3:]
            if seen.any():
                drawn = crop(area.map(level), area.levels[level], extent)
                yield tile, np.concatenate([drawn, seen], axis=2)


def _rounded(value: Any) -> Any:
    """Numbers with four digits behind the point: there are thousands of them."""
    if isinstance(value, dict):
        return {str(name): _rounded(part) for name, part in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def _print(report: dict[str, Any]) -> None:
    levels = list(next(iter(report.values()))["seams"])
    print(f"| windows | {' | '.join(f'level {z}' for z in levels)} | quality | ms a tile |")
    print(f"|{'---|' * (len(levels) + 3)}")
    for name, row in report.items():
        cells = []
        for level in levels:
            found = row["seams"].get(level, {}).get("all", {})
            numbers = [found.get(s) for s in STATISTICS]
            cells.append(" / ".join("-" if n is None else f"{n['ratio']:.2f}" for n in numbers))
        scores = row["scores"]
        quality = "-"
        if "psnr_y" in scores:
            areas = ", ".join(f"{scores[f'iou_{c}']:.3f}" for c in SHOWN)
            quality = f"{scores['psnr_y']:.2f} / {scores['ssim_y']:.4f}, {areas}"
        cost = "-" if row["ms_per_tile"] is None else f"{row['ms_per_tile']:.0f}"
        print(f"| `{name}` | {' | '.join(cells)} | {quality} | {cost} |")


def _print_comparison(report: Mapping[str, Any]) -> None:
    """Differences to the first combination: PSNR-Y / SSIM-Y, by scene (all levels) and by level."""
    for name, content in report.items():
        print(f"\n| `{name}` less the first | tiles | all | tiles | with detail |")
        print("|---|---|---|---|---|")
        rows = {"overall": content["overall"]}
        rows |= {f"level {level}": row for level, row in content["levels"].items()}
        rows |= {scene: found["overall"] for scene, found in content["scenes"].items()}
        for title, row in rows.items():
            cells = []
            for chosen in ("all", "detailed"):
                found = row[chosen]
                cells.append(str(found["tiles"]))
                cells.append(
                    f"{found['psnr_y']['difference']:+.3f} / {found['ssim_y']['difference']:+.4f}"
                    if found["tiles"]
                    else "-"
                )
            print(f"| {title} | {' | '.join(cells)} |")


def main() -> None:
    """Parse, run, print a table in Markdown: gradient / edges / residual, PSNR-Y / SSIM-Y, IoU."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", type=Path, nargs="+")
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--levels", default="12-17")
    parser.add_argument(
        "--combinations", nargs="+", default=COMBINATIONS, help="options of c2gm-infer"
    )
    parser.add_argument("--no-times", action="store_true", help="the machine has other work")
    parser.add_argument("--output", type=Path, help="all figures (JSON)")
    options = parser.parse_args()
    report = measure(
        options.scenes,
        options.dataset,
        options.levels,
        options.combinations,
        timed=not options.no_times,
    )
    if options.output is not None:
        options.output.write_text(json.dumps(_rounded(report)) + "\n", encoding="utf-8")
    _print({name: row for name, row in report["rows"].items() if row["seams"]})
    _print_comparison(report["against_the_first_on_the_same_tiles"])


if __name__ == "__main__":
    main()
