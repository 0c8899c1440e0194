"""The protocol of a backend: rows of a batch on a device, and single graphs on the host."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from c2gm.runtime.contract import LATENT_FACTOR
from c2gm.runtime.pixels import Picture

Tensors = Mapping[str, NDArray[Any]]
"""Arrays by tensor name, C-contiguous, dtypes as the manifest's `TensorSpec` says."""


class Graph(Protocol):
    """A loaded graph."""

    def run(self, inputs: Tensors) -> Tensors:
        """Compute all outputs; rows of the batch are independent. Raises BackendError."""
        ...


@dataclass(frozen=True, slots=True)
class StepRows:
    """What the rows of a batch have of their own in a step: row r at index r of each.

    `timestep` (b) int64, `coefficients` (b, 4) float32, `active` (b) float32, 0 or 1.
    """

    timestep: NDArray[np.int64]
    coefficients: NDArray[np.float32]
    active: NDArray[np.float32]


STEP_INPUTS = tuple(field.name for field in fields(StepRows))
"""Inputs of the denoiser that are new in every step."""

WINDOW_INPUTS = ("latents", "states", "pooled")
"""Inputs of the denoiser that come with a window, beside what its conditions become."""


class Loop(Protocol):
    """The rows of one batch on a device: windows of one side, stepped together.

    What is decoded may have another side (`grid.Window.canvas`); then `paint` cannot be called.

    What one row computes does not depend on the others.
    """

    rows: int
    """Windows that it holds at a time."""

    lag: int
    """Steps that pass before `step` tells a step's changes: 0 where the host waits for each."""

    def admit(self, row: int, window: Tensors) -> None:
        """Put a window into a row: its conditions are computed and kept on the device.

        `window`: imagery, reference (3, H, H), has_reference (), latents (c, h, h) to begin with,
        states (n, d), pooled (d), without a batch dimension.
        """
        ...

    def step(self, rows: StepRows) -> NDArray[np.float32] | None:
        """One step of all active rows; returns the changes (b) of the step `lag` steps ago.

        None where there was no such step. Raises BackendError.
        """
        ...

    def paint(self, rows: Sequence[int]) -> tuple[list[Picture], NDArray[np.float32]]:
        """Pictures (H, H, 3) of the rows' x0, and the rows' changes in the latest step."""
        ...

    def take(self, row: int) -> tuple[NDArray[np.float32], np.float32]:
        """A row's x0 (c, h, h), and its change in the latest step."""
        ...

    def decode(self, latents: NDArray[np.float32]) -> Picture:
        """The picture (H, W, 3) of latents (c, h, w), no larger than what may be decoded."""
        ...

    def close(self) -> None:
        """Give the device's memory back; the loop cannot be used any more."""
        ...


def extend(latents: NDArray[np.float32], cells: int) -> NDArray[np.float32]:
    """Latents (c, h, w) as (c, cells, cells) for a decoder of one shape, their last ones repeated.

    Raises ValueError for more than fit.
    """
    _, height, width = latents.shape
    if max(height, width) > cells:
        raise ValueError(f"latents are {height} x {width}, expected no more than {cells}")
    around = ((0, 0), (0, cells - height), (0, cells - width))
    return np.pad(latents, around, mode="edge")


def cut_picture(image: NDArray[np.uint8], latents: NDArray[np.float32]) -> Picture:
    """Of a decoder's image (3, H, H) the picture (h, w, 3) that latents, extended, are shown in."""
    _, height, width = (size * LATENT_FACTOR for size in latents.shape)
    return np.ascontiguousarray(image[:, :height, :width].transpose(1, 2, 0))


class Backend(Protocol):
    """Runs the graphs of one bundle on one device.

    `windows` is how many the user wants at a time, None for what suits the device.
    """

    @property
    def name(self) -> str:
        """Name on the command line."""
        ...

    def identity(self, windows: int | None) -> str:
        """What decides, besides the model, which bits come out: runs go on only with the same."""
        ...

    def check(self, windows: int | None, side: int, painted: int | None = None) -> None:
        """Raise BackendError where `open_loops` would, as far as can be known without loading."""
        ...

    def open_loops(
        self, windows: int | None, side: int, painted: int | None = None
    ) -> tuple[Loop, ...]:
        """Load the graphs and make room for windows of `side` pixels, decoded at `painted`.

        None: as they are drawn.

        A GPU has one loop of many rows; a CPU a loop of one row for every core, and they may run at
        the same time. Raises BundleError for a broken graph, BackendError for the device.
        """
        ...

    def describe(self) -> str:
        """One line for users: library, version, device, threads."""
        ...
