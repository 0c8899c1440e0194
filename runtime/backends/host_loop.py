"""A `Loop` over graphs that take and give host arrays: rows are numpy arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2gm.runtime.backends.base import (
    STEP_INPUTS,
    WINDOW_INPUTS,
    Graph,
    StepRows,
    Tensors,
    cut_picture,
    extend,
)
from c2gm.runtime.contract import LATENT_FACTOR, GraphName, Manifest
from c2gm.runtime.pixels import Picture


class HostLoop:
    """Conditions and decoder run one window at a time, the denoiser always all rows.

    So a window's arithmetic does not depend on its neighbours in the batch.
    """

    lag = 0

    def __init__(
        self,
        manifest: Manifest,
        load: Callable[[GraphName], Graph],
        rows: int,
        side: int,
        painted: int | None = None,
    ) -> None:
        """Load the graphs and allocate the rows; `painted`: the one side that the decoder takes.

        None: it takes any. Raises BundleError, BackendError.
        """
        self._painted = None if painted is None else painted // LATENT_FACTOR
        self.rows = rows
        self._condition, self._denoise = load("condition"), load("denoise")
        self._decoder = load("vae_decoder")
        self._features = tuple(spec.name for spec in manifest.graphs["condition"].outputs)
        self._conditions = tuple(spec.name for spec in manifest.graphs["condition"].inputs)
        self._inputs: dict[str, NDArray[Any]] = {
            spec.name: np.zeros(spec.at(rows, side), spec.dtype)
            for spec in manifest.graphs["denoise"].inputs
        }
        self._change = np.zeros(rows, np.float32)

    def admit(self, row: int, window: Tensors) -> None:
        """See `Loop.admit`."""
        inputs = {name: window[name][np.newaxis] for name in self._conditions}
        features = self._condition.run(inputs)
        for name in self._features:
            self._inputs[name][row] = features[name][0]
        for name in WINDOW_INPUTS:
            self._inputs[name][row] = window[name]
        self._inputs["previous_x0"][row] = 0.0

    def step(self, rows: StepRows) -> NDArray[np.float32]:
        """See `Loop.step`."""
        for name in STEP_INPUTS:
            self._inputs[name][:] = getattr(rows, name)
        outputs = self._denoise.run(self._inputs)
        self._inputs["latents"][:] = outputs["next_latents"]
        self._inputs["previous_x0"][:] = outputs["x0"]
        self._change = outputs["change"]
        return self._change

    def paint(self, rows: Sequence[int]) -> tuple[list[Picture], NDArray[np.float32]]:
        """See `Loop.paint`."""
        pictures = [self.decode(self._inputs["previous_x0"][row]) for row in rows]
        return pictures, self._change[list(rows)]

    def take(self, row: int) -> tuple[NDArray[np.float32], np.float32]:
        """See `Loop.take`."""
        return self._inputs["previous_x0"][row].copy(), self._change[row]

    def decode(self, latents: NDArray[np.float32]) -> Picture:
        """See `Loop.decode`."""
        whole = latents if self._painted is None else extend(latents, self._painted)
        image = self._decoder.run({"latents": whole[np.newaxis]})["image"]
        return cut_picture(image[0], latents)

    def close(self) -> None:
        """See `Loop.close`: nothing that Python does not give back itself."""
