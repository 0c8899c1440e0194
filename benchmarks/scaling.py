"""What a run of many tiles costs: seconds a tile and memory, which must stay flat to the end.

With a thin model of random weights, so that the house around the model is most of the cost: the
same graphs, exported as any model, with a few channels. A real bundle does as well, and longer.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from c2gm.benchmarks.scenes import mirrored_scene, sheet_plan
from c2gm.model.config import (
    AutoencoderConfig,
    ConditionConfig,
    ModelConfig,
    TextConfig,
    UNetConfig,
)
from c2gm.runtime.job import InferOptions
from c2gm.runtime.progress import QuietReport
from c2gm.runtime.schedule import NoiseSchedule

LEVELS = tuple(range(10, 18))

MARKS = 10
"""A run is told about in so many parts."""


def thin_config() -> ModelConfig:
    """A model with every layer kind of `nano`'s, one block and one head everywhere."""
    return ModelConfig(
        name="thin",
        text=TextConfig(width=16, heads=2, layers=1, vocab_size=49408),
        autoencoder=AutoencoderConfig(
            kind="light",
            latent_channels=4,
            scaling_factor=1.0,
            encoder_channels=(16, 16),
            decoder_channels=(16, 16),
            encoder_blocks=1,
            decoder_blocks=1,
        ),
        condition=ConditionConfig(
            stem_channels=4,
            channels=(4, 8, 8),
            spade_hidden=(4, 4, 4),
            output_channels=8,
            reference_latent_channels=4,
            reference_hidden_channels=8,
        ),
        unet=UNetConfig(
            channels=(16, 16, 32, 32),
            attention=(False, True, True, False),
            layers_per_block=1,
            head_width=8,
            norm_groups=4,
        ),
        schedule=NoiseSchedule(prediction_type="v_prediction", zero_terminal_snr=True),
        freeze_text=False,
        train_unet="all",
    )


def export_thin(folder: Path) -> Path:
    """A bundle of the thin model with random weights, two default steps."""
    import torch

    from c2gm.export.cases import CheckPlan
    from c2gm.export.pack import export_bundle
    from c2gm.model.sgdm import SGDM

    torch.manual_seed(0)
    plan = CheckPlan(((1, 256),), steps=2, spread=1, every_step=None)
    return export_bundle(SGDM(thin_config()).eval(), folder / "thin.c2gm", plan=plan)


def measure_scaling(
    picture: Path,
    model: Path,
    counts: Sequence[int],
    backend: str,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    """A run for every count of tiles, in a process of its own.

    `parts`: for each tenth of the tiles milliseconds a tile, of the clock and of processors, and
    resident memory at its end.
    """
    rows: list[dict[str, Any]] = []
    for count in counts:
        progress(f"{count} tiles")
        with tempfile.TemporaryDirectory() as scratch:
            planned = sheet_plan(LEVELS, count)
            scene = mirrored_scene(picture, planned, Path(scratch))
            options = InferOptions(
                imagery=scene,
                levels=f"{LEVELS[0]}-{LEVELS[-1]}",
                output=Path(scratch) / "many.mbtiles",
                model=model,
                backend=backend,
            )
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(pool.apply(_run, (options,)))
    return rows


class _Marks(QuietReport):
    """Notes time and memory at every tenth of the tiles."""

    def __init__(self) -> None:
        self.total = self.done = 0
        self.marks: list[tuple[int, float, float, float]] = []

    def start(self, total: int, done: int) -> None:
        """See `ProgressReport.start`."""
        self.total = total
        self._mark()

    def advance(self, level: int, tiles: int) -> None:
        """See `ProgressReport.advance`."""
        self.done += tiles
        if self.done >= len(self.marks) * self.total / MARKS:
            self._mark()

    def _mark(self) -> None:
        now = time.perf_counter(), time.process_time(), resident_mb()
        self.marks.append((self.done, *now))


def _run(options: InferOptions) -> dict[str, Any]:
    from c2gm.runtime.infer import run

    report = _Marks()
    start = time.perf_counter()
    summary = run(options, report)
    parts = [
        {
            "tiles": after[0],
            "ms_per_tile": round(1e3 * (after[1] - before[1]) / (after[0] - before[0]), 2),
            "processor_ms_per_tile": round(
                1e3 * (after[2] - before[2]) / (after[0] - before[0]), 2
            ),
            "resident_mb": round(after[3], 1),
        }
        for before, after in zip(report.marks, report.marks[1:], strict=False)
    ]
    return {
        "tiles": sum(summary.tiles.values()),
        "seconds": round(time.perf_counter() - start, 1),
        "seconds_before_the_first_window": round(report.marks[0][1] - start, 2),
        "model": summary.model,
        "parts": parts,
        "part_s": {name: round(value, 1) for name, value in summary.seconds.items()},
    }


def resident_mb() -> float:
    """Memory of this process that is in RAM now, in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
