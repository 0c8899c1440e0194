"""The paper's job, end to end: a sheet of 441 tiles of levels 10-16, by `c2gm-infer` itself."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from c2gm.benchmarks.gpu_model import sheet_plan
from c2gm.benchmarks.latency import graph_latencies
from c2gm.benchmarks.scenes import mirrored_scene
from c2gm.runtime.bundle import WINDOW_GRAPHS, Bundle
from c2gm.runtime.errors import C2GMError


def run_sheet(
    picture: Path,
    configurations: Sequence[tuple[Bundle, str]],
    tiles: int,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    """A sheet with every bundle and backend, one after the other.

    Each runs in a process of its own, start included. `graph_share`: of all cores' time, what the
    graphs take when nothing else disturbs them (`graph_latencies`); the rest is reading, encoding,
    writing, starting, and cores that wait for work.
    """
    planned = sheet_plan(tiles=tiles)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        scene = mirrored_scene(picture, planned, folder)
        for bundle, backend in configurations:
            progress(f"{bundle.manifest.name} on {backend}")
            output = folder / "sheet.mbtiles"
            start = time.perf_counter()
            summary = infer(
                "--imagery", str(scene), "--levels", f"{planned.levels[0]}-{planned.levels[-1]}",
                "--model", str(bundle.folder), "--backend", backend, "--output", str(output),
            )  # fmt: skip
            wall = time.perf_counter() - start
            size = output.stat().st_size
            output.unlink()
            latencies = {row["graph"]: row for row in graph_latencies(bundle, backend, [1], 1.0)}
            made = sum(summary["tiles"].values())
            runs = dict.fromkeys(WINDOW_GRAPHS, 1.0) | {"denoise": summary["steps_per_tile"]}
            graphs = {name: made * n / latencies[name]["per_second"] for name, n in runs.items()}
            rows.append(
                {
                    "model": bundle.manifest.name,
                    "precision": bundle.manifest.precision,
                    "backend": backend,
                    "tiles": made,
                    "steps_per_tile": summary["steps_per_tile"],
                    "wall_s": round(wall, 2),
                    "ms_per_tile": round(1e3 * wall / made, 1),
                    "graph_share": round(sum(graphs.values()) / wall, 3),
                    "graph_s": {name: round(value, 2) for name, value in graphs.items()},
                    "part_s": summary["seconds"],
                    "bytes": size,
                }
            )
    return rows


def infer(*arguments: str) -> Mapping[str, Any]:
    """The summary of `c2gm-infer` in a process of its own. Raises C2GMError with its last line."""
    call = "from c2gm.runtime.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", call, *arguments, "--json", "--quiet"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise C2GMError(f"c2gm-infer {' '.join(arguments)}: {done.stderr.strip()[-500:]}")
    summary: Mapping[str, Any] = json.loads(done.stdout)
    return summary
