"""The paper's job, end to end: a sheet of 441 tiles of levels 10-16, by `c2gm-infer` itself."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from c2gm.benchmarks.scenes import mirrored_scene, sheet_plan
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.cpu import available_cores
from c2gm.runtime.errors import C2GMError
from c2gm.runtime.shipped import GPU_MODEL, find_bundle

GRAPH_PARTS = ("condition", "denoise", "decode")
"""Parts of a run that are a graph's, and next to nothing else (`c2gm.runtime.infer.PARTS`)."""

OWN_THREAD = ("onnxruntime",)
"""Backends that compute a window on the thread that asks for it, whose time the run knows."""


def run_sheet(
    picture: Path,
    configurations: Sequence[tuple[Bundle, str]],
    tiles: int,
    peer_tiles: int,
    halo: int,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    """A sheet with every bundle and backend, one after the other, then in the peers' manner.

    Each of ours runs in a process of its own, start included. `graph_share`: of all cores' time,
    what the graphs took of it in this run; the rest is reading, encoding, writing, starting, and
    cores that wait for work. None where a library computes on threads of its own.
    `halo`: as of c2gm-infer; peers draw windows of the same size. `peer_tiles`: how many tiles the
    authors' way draws; none of the peers runs where it is 0.
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
                "--halo", str(halo),
            )  # fmt: skip
            wall = time.perf_counter() - start
            size = output.stat().st_size
            output.unlink()
            made, processor = sum(summary["tiles"].values()), summary["processor_seconds"]
            graphs = sum(processor[part] for part in GRAPH_PARTS)
            rows.append(
                {
                    "manner": f"c2gm: {bundle.manifest.name}, {backend}",
                    "model": bundle.manifest.name,
                    "precision": bundle.manifest.precision,
                    "backend": backend,
                    "tiles": made,
                    "steps_per_window": summary["steps_per_window"],
                    "wall_s": round(wall, 2),
                    "ms_per_tile": round(1e3 * wall / made, 1),
                    "graph_share": round(graphs / wall / available_cores(), 3)
                    if backend in OWN_THREAD
                    else None,
                    "processor_s": processor,
                    "bytes": size,
                }
            )
            progress(f"{rows[-1]['ms_per_tile']} ms a tile")
        if not peer_tiles:
            return rows
        from c2gm.benchmarks.sheet_peers import run_sheet_peers
        from c2gm.model.checkpoint import load_model
        from c2gm.model.config import SHIPPED_WEIGHTS

        plain = Bundle.read(find_bundle(Path(GPU_MODEL), "onnxruntime"))
        model = load_model(SHIPPED_WEIGHTS)
        same = replace(planned, halo=halo)
        rows += run_sheet_peers(model, plain, scene, same, folder, peer_tiles, progress)
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
