"""The contract between export and runtime: what a bundle folder `NAME.c2gm/` says of itself.

A bundle holds `manifest.json` (`Manifest`), one ONNX file a graph (with external data beside it
where the graph is over 2 GB), `scale_embeddings.npz` and `parity.json`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from c2gm.runtime.levels import LEVELS, TILE_SIZE
from c2gm.runtime.schedule import NoiseSchedule

FORMAT_VERSION = 1

LATENT_FACTOR = 8
"""Pixels of a latent cell's side; the contract knows no other."""

GraphName = Literal["text_encoder", "condition", "denoise", "vae_decoder", "vae_encoder"]
GRAPHS: tuple[GraphName, ...] = get_args(GraphName)

WINDOW_GRAPHS: tuple[GraphName, ...] = ("condition", "denoise", "vae_decoder")
"""Those that a window passes through, in order."""

_FEATURES = ("feature_0", "feature_1", "feature_2", "reference_latent")
TENSORS: Mapping[GraphName, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "text_encoder": (("token_ids",), ("states", "pooled")),
    "condition": (("imagery", "reference", "has_reference"), _FEATURES),
    "denoise": (
        (
            *("latents", "previous_x0", "timestep", "coefficients", "active", "states", "pooled"),
            *_FEATURES,
        ),
        ("next_latents", "x0", "change"),
    ),
    "vae_decoder": (("latents",), ("image",)),
    "vae_encoder": (("image",), ("latents",)),
}
"""Inputs and outputs of every graph (docs/graphs.md)."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph; a string in `shape` is a symbolic dimension."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    value_range: tuple[float, float] | None = None

    def at(self, rows: int, side: int) -> tuple[int, ...]:
        """The shape for so many windows of `side` pixels: `b` rows, `H` side, `h` latent cells.

        Raises ValueError for a symbol that is none of b, H, h, h/2 and h/4.
        """
        cells = side // LATENT_FACTOR
        sizes = {"b": rows, "H": side, "h": cells, "h/2": cells // 2, "h/4": cells // 4}
        unknown = [size for size in self.shape if isinstance(size, str) and size not in sizes]
        if unknown:
            raise ValueError(f"{self.name} has the dimensions {unknown}, known are {list(sizes)}")
        return tuple(sizes[size] if isinstance(size, str) else size for size in self.shape)

    def bytes(self, rows: int, side: int) -> int:
        """Memory of the tensor for so many windows of `side` pixels."""
        return math.prod(self.at(rows, side)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class FileSpec:
    """A file of the bundle, by name inside the folder."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """An ONNX graph: its model file first, external data after it; FLOPs for one 256 px tile."""

    files: tuple[FileSpec, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    gflop_per_tile: float

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """Inputs, then outputs."""
        return self.inputs + self.outputs


Precision = Literal["fp32", "fp16", "int8"]
"""What most of a bundle's arithmetic is done in."""


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """Relative change of x0 below `tolerance` for two steps ends a window (None: never)."""

    tolerance: float | None = None
    minimum_steps: int = 4


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the weights come from; shown to users and written into every map's metadata."""

    weights: str
    licence: str
    attribution: str
    training_data: tuple[str, ...]
    c2gm_version: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that a run needs to know about a bundle.

    `window_sides`: of the windows that engines are built for, in pixels; the graphs themselves take
    any multiple of `window_multiple`. `guide_from`: coarsest level that the model reads well enough
    for finer ones to be drawn from it.
    """

    format_version: int
    name: str
    preset: str
    precision: Precision
    latent_channels: int
    latent_factor: int
    scaling_factor: float
    schedule: NoiseSchedule
    trained_levels: tuple[int, ...]
    cascade_spans: tuple[int, ...]
    default_steps: int
    early_stop: Mapping[str, EarlyStop]
    graphs: Mapping[str, GraphSpec]
    files: tuple[FileSpec, ...]
    provenance: Provenance
    window_multiple: int = 64
    window_sides: tuple[int, ...] = (TILE_SIZE,)
    guide_from: int = min(LEVELS)

    def early_stop_of(self, level: int, span: int | None) -> EarlyStop:
        """The early-stopping rule of one scale prompt; never stopping where none is given."""
        return self.early_stop.get(prompt_name(level, span), EarlyStop())


def prompt_name(level: int, span: int | None) -> str:
    """Key of a scale prompt in manifest and embeddings table: `14-4x`, `14-2x`, `14-none`."""
    return f"{level}-none" if span is None else f"{level}-{1 << span}x"
