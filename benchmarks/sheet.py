"""The paper's job, end to end: a sheet of 441 tiles of levels 10-16, by `c2gm-infer` itself."""

import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from c2gm.benchmarks.child import run_child, summary_of
from c2gm.benchmarks.core_time import mean_split, split_core_time
from c2gm.benchmarks.rounds import Spread, order, ratios_by_round
from c2gm.benchmarks.scenes import mirrored_scene, sheet_plan
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.cpu import available_cores
from c2gm.runtime.grid import Plan
from c2gm.runtime.shipped import GPU_MODEL, find_bundle
from c2gm.runtime.tile_codec import decode_tile

GRAPH_PARTS = ("condition", "denoise", "decode")
"""Parts of a run that are a graph's, and next to nothing else (`c2gm.runtime.infer.PARTS`)."""

OWN_THREAD = ("onnxruntime",)
"""Backends that compute a window on the thread that asks for it, whose time the run knows."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Manner:
    """One way to make the sheet. `run`: makes it; returns at least `tiles` and `wall_s`."""

    title: str
    ours: bool
    run: Callable[[], Row]


def run_sheet(
    picture: Path,
    configurations: Sequence[tuple[Bundle, str]],
    *,
    tiles: int,
    peer_tiles: int,
    halo: int,
    rounds: int,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Ours, by bundle and backend, and peers take turns with a sheet, in so many rounds.

    `halo`: as of c2gm-infer; peers draw windows of the same size. `peer_tiles`: how many tiles the
    authors' way draws in every round; none of the peers runs where it is 0. Returns `manners` (see
    `summarise`) and `rounds`, every single run. Raises C2GMError.
    """
    plain = sheet_plan(tiles=tiles)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        scene = mirrored_scene(picture, plain, folder)
        planned = replace(plain, halo=halo)
        manners = [_ours(bundle, backend, scene, planned) for bundle, backend in configurations]
        if peer_tiles:
            manners += _peers(scene, planned, folder, peer_tiles)
        return take_turns(manners, rounds, progress)


def take_turns(
    manners: Sequence[Manner], rounds: int, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Every manner once in every round, then `summarise`."""
    rows: list[Row] = []
    for number in range(rounds):
        for index in order(len(manners), number):
            manner = manners[index]
            row = manner.run()
            cost = 1e3 * row["wall_s"] / row["tiles"]
            named: Row = {"round": number + 1, "manner": manner.title, "ours": manner.ours}
            rows.append(named | row | {"ms_per_tile": cost})
            progress(f"round {number + 1}/{rounds}, {manner.title}: {cost:.1f} ms a tile")
    titles = [manner.title for manner in manners]
    return {"manners": summarise(titles, rows), "rounds": rows}


def summarise(titles: Sequence[str], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """By manner the milliseconds a tile and the ratio to the fastest of ours in the same round.

    Each with its median over the rounds, lowest and highest. Of ours also the share of all cores'
    time that graphs took (`graph_share`; None where a library computes on threads of its own) and
    `core_ms_per_tile`, all of that time by what it was spent on, as means over the rounds.
    """
    found = {title: [row for row in rows if row["manner"] == title] for title in titles}
    cost = {title: [row["ms_per_tile"] for row in runs] for title, runs in found.items()}
    ours = [title for title, runs in found.items() if runs[0]["ours"]]
    base = min(ours, key=lambda title: Spread.of(cost[title]).median)
    table: list[dict[str, Any]] = []
    for title, (spent, ratio) in ratios_by_round(cost, base).items():
        runs = found[title]
        entry: dict[str, Any] = {
            "manner": title,
            "ours": runs[0]["ours"],
            "rounds": len(runs),
            "tiles": runs[0]["tiles"],
            "ms_per_tile": asdict(spent),
            "ratio": asdict(ratio),
        }
        if runs[0]["ours"]:
            split = mean_split([(run["core_s"], run["tiles"]) for run in runs])
            graphs = sum(split[part] for part in GRAPH_PARTS)
            by_part = runs[0]["backend"] in OWN_THREAD
            entry["graph_share"] = graphs / sum(split.values()) if by_part else None
            entry["core_ms_per_tile"] = split
        table.append(entry)
    return table


def _ours(bundle: Bundle, backend: str, scene: Path, planned: Plan) -> Manner:
    """`c2gm-infer` in a process of its own, start included."""
    output = scene.parent / "sheet.mbtiles"

    def run() -> Row:
        start = run_child("--version")
        child = run_child(
            "--imagery", str(scene), "--levels", f"{planned.levels[0]}-{planned.levels[-1]}",
            "--model", str(bundle.folder), "--backend", backend, "--output", str(output),
            "--halo", str(planned.halo), "--json", "--quiet",
        )  # fmt: skip
        summary = summary_of(child)
        check_s, size = decoding_s(output), output.stat().st_size
        output.unlink()
        return {
            "model": bundle.manifest.name,
            "precision": bundle.manifest.precision,
            "backend": backend,
            "tiles": sum(summary["tiles"].values()),
            "steps_per_window": summary["steps_per_window"],
            "wall_s": child.wall_s,
            "processor_s": child.processor_s,
            "core_s": split_core_time(
                cores=available_cores(),
                wall_s=child.wall_s,
                processor_s=child.processor_s,
                parts=summary["processor_seconds"],
                start_s=start.processor_s,
                check_s=check_s,
            ),
            "bytes": size,
        }

    return Manner(f"c2gm: {bundle.manifest.name}, {backend}", True, run)


def decoding_s(path: Path) -> float:
    """Processor time of decoding every tile of a map, which a run does once more at its end."""
    with closing(sqlite3.connect(path)) as file:
        tiles = [data for (data,) in file.execute("SELECT tile_data FROM tiles")]
    start = time.thread_time()
    for data in tiles:
        decode_tile(data)
    return time.thread_time() - start


def _peers(scene: Path, planned: Plan, folder: Path, tiles: int) -> list[Manner]:
    """Other people's manners; loading is left out of every run, in their favour."""
    # torch takes seconds to import, and is not needed without peers.
    from c2gm.benchmarks.sheet_peers import SheetPeer, draw_sheet, sheet_peers
    from c2gm.model.checkpoint import load_model
    from c2gm.model.config import SHIPPED_WEIGHTS

    plain = Bundle.read(find_bundle(Path(GPU_MODEL), "onnxruntime"))

    def manner(found: SheetPeer) -> Manner:
        def run() -> Row:
            peer = found.make()
            start, busy = time.perf_counter(), time.process_time()
            made = draw_sheet(peer, plain, scene, planned, folder, found.limit)
            wall, processor = time.perf_counter() - start, time.process_time() - busy
            return {"tiles": made, "wall_s": wall, "processor_s": processor}

        return Manner(found.title, False, run)

    return [manner(found) for found in sheet_peers(load_model(SHIPPED_WEIGHTS), plain, tiles)]
