"""A sheet from a scene to PNG files in other people's manner: one thread, level by level."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from mercantile import Tile
from PIL import Image

from c2gm.benchmarks.peers import Peer, PlainGraphs, TorchPeer, plain_onnxruntime, quiet_onnxruntime
from c2gm.model.sgdm import SGDM
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.cascade import reference_picture
from c2gm.runtime.cpu import available_cores
from c2gm.runtime.grid import Plan, reference_level
from c2gm.runtime.job import GUIDE_PX
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.noise import starting_noise
from c2gm.runtime.pixels import Picture, to_network
from c2gm.runtime.sampler import Sample
from c2gm.runtime.scene import Scene
from c2gm.runtime.workers import with_alpha


@dataclass(frozen=True, slots=True)
class SheetPeer:
    """A manner; `make` loads it. `limit`: how many tiles it draws (None: all)."""

    title: str
    make: Callable[[], Peer]
    limit: int | None = None


def sheet_peers(model: SGDM, plain: Bundle, tiles: int) -> list[SheetPeer]:
    """The authors' way for `tiles` of the sheet (every tile costs the same), then plain graphs.

    `plain`: a float32 bundle of `model`.
    """
    torch.set_num_threads(available_cores())
    steps, schedule = plain.manifest.default_steps, plain.manifest.schedule
    return [
        SheetPeer(
            "authors: torch, 50 steps", lambda: TorchPeer(model, 50, 1, schedule.whole()), tiles
        ),
        SheetPeer(
            f"optimum: ONNX Runtime, {steps} steps",
            lambda: PlainGraphs(plain, plain_onnxruntime, steps, schedule),
        ),
        SheetPeer(
            f"ONNX Runtime tuned: no spinning, conditions once, {steps} steps",
            lambda: PlainGraphs(plain, quiet_onnxruntime, steps, schedule, reuse=True),
        ),
    ]


def draw_sheet(
    peer: Peer, bundle: Bundle, path: Path, planned: Plan, folder: Path, limit: int | None = None
) -> int:
    """Write the first `limit` tiles of a plan of single tiles as PNG; returns how many they are.

    Halos are cut off: blending is no peer's manner.
    """
    channels, factor = bundle.manifest.latent_channels, bundle.manifest.latent_factor
    maps: dict[Tile, Picture] = {}
    with Scene.open(path) as scene:
        trusted = [z for z in planned.levels if z >= bundle.manifest.guide_from]
        guides = [level for level in trusted if scene.narrow_px(level) >= GUIDE_PX]
        for level in planned.levels:
            found = reference_level(level, guides)
            span = None if found is None else found[1]
            for window in planned.windows(level):
                if limit is not None and len(maps) >= limit:
                    return len(maps)
                (tile,) = window.tiles()
                left, top, width, height = window.pixel_box
                reference = None if span is None else reference_picture(window, span, maps)
                x, y, columns, rows = (v // factor for v in (left, top, width, height))
                sample = Sample(
                    key=0,
                    imagery=to_network(scene.read(level, left, top, width, height)),
                    reference=None if reference is None else to_network(reference),
                    noise=starting_noise(0, level, x, y, columns, rows, channels),
                    level=level,
                    span=span,
                )
                (drawn,) = peer.draw([sample])
                x, y, _, _ = window.tile_box(tile)
                picture = drawn[y : y + TILE_SIZE, x : x + TILE_SIZE]
                Image.fromarray(picture).save(folder / f"{level}-{tile.x}-{tile.y}.png")
                maps[tile] = with_alpha(picture)
    return len(maps)
