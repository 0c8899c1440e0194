"""The sampling loop: windows in rows of a batch, one DDIM step of all rows at a time.

Knows no files and no maps: what goes in is a `Sample` (pictures as the network sees them, noise,
a scale prompt), what comes out is a picture. Every row has its own time step, so that a window
which finishes makes room for the next one while the others go on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from c2gm.runtime.backends.base import Backend
from c2gm.runtime.batching import BUCKETS, Slot, Slots
from c2gm.runtime.bundle import Bundle, EarlyStop
from c2gm.runtime.errors import BundleError
from c2gm.runtime.pixels import Picture
from c2gm.runtime.progress import Stopwatch

Key = TypeVar("Key")

CALM_STEPS = 2
"""Consecutive steps below the tolerance that end a window (method, section 6)."""


@dataclass(frozen=True, slots=True)
class Sample(Generic[Key]):
    """One window to generate.

    `key`: what it is called when it comes out; `imagery`, `reference`: (3, H, H) float32 in
    [-1, 1], invalid pixels 0, reference None where there is none; `noise`: (c, H/8, H/8) float32;
    `level`, `span`: the scale prompt.
    """

    key: Key
    imagery: NDArray[np.float32]
    reference: NDArray[np.float32] | None
    noise: NDArray[np.float32]
    level: int
    span: int | None


@dataclass(frozen=True, slots=True)
class Finished(Generic[Key]):
    """A generated window: its RGB picture (H, H, 3) and the steps that it took."""

    key: Key
    picture: Picture
    steps: int


class Sampler(Generic[Key]):
    """Continuous batching over the graphs of a bundle.

    All windows of one sampler have the same side. The condition graph and the decoder run one
    window at a time, the denoiser always at the same bucket: so a window's arithmetic does not
    depend on its neighbours in the batch.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        *,
        side: int,
        batch: int,
        steps: int,
        buckets: Sequence[int] = BUCKETS,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        """Load the graphs and allocate all rows; `side` is the window's, in pixels.

        Raises BundleError, BackendError; ValueError for a side, batch or steps out of range.
        """
        manifest = bundle.manifest
        if side < 1 or side % manifest.window_multiple:
            raise ValueError(f"side is {side}, expected a multiple of {manifest.window_multiple}")
        self.steps = steps
        self.slots: Slots[_Row[Key]] = Slots(batch, buckets)
        self._manifest = manifest
        self._embeddings = bundle.embeddings
        self._stopwatch = stopwatch or Stopwatch()
        self._timesteps = manifest.schedule.timesteps(steps)
        self._coefficients = manifest.schedule.ddim_coefficients(steps).astype(np.float32)
        self._condition = backend.load("condition")
        self._denoise = backend.load("denoise")
        self._decoder = backend.load("vae_decoder")
        self._side = side
        self._features = tuple(spec.name for spec in manifest.graphs["condition"].outputs)
        rows, cells = self.slots.largest_bucket, side // manifest.latent_factor
        latents = (rows, manifest.latent_channels, cells, cells)
        self._buffers: dict[str, NDArray[Any]] = {
            "latents": np.zeros(latents, np.float32),
            "previous_x0": np.zeros(latents, np.float32),
            "timestep": np.zeros(rows, np.int64),
            "coefficients": np.zeros((rows, self._coefficients.shape[1]), np.float32),
            "active": np.zeros(rows, np.float32),
            "states": np.zeros((rows, *self._embeddings.states.shape[1:]), np.float32),
            "pooled": np.zeros((rows, *self._embeddings.pooled.shape[1:]), np.float32),
        }
        self._no_reference = np.zeros((1, 3, side, side), np.float32)

    @property
    def free(self) -> int:
        """How many samples `admit` takes now."""
        return self.slots.free

    @property
    def busy(self) -> int:
        """How many samples are being worked on."""
        return len(self.slots)

    def admit(self, sample: Sample[Key]) -> None:
        """Give a sample a free row and compute its conditions (once a window, eqs. 8 and 16-18).

        Raises BundleError where the model has no such scale prompt, ValueError for wrong shapes or
        a full batch.
        """
        expected = (3, self._side, self._side)
        if sample.imagery.shape != expected:
            raise ValueError(f"imagery is {sample.imagery.shape}, expected {expected}")
        prompt = self._embeddings.row(sample.level, sample.span)
        rule = self._manifest.early_stop_of(sample.level, sample.span)
        reference = sample.reference
        with self._stopwatch.part("condition"):
            features = self._condition.run(
                {
                    "imagery": sample.imagery[np.newaxis],
                    "reference": (
                        self._no_reference if reference is None else reference[np.newaxis]
                    ),
                    "has_reference": np.array([reference is not None], np.float32),
                }
            )
        row = self.slots.admit(_Row(sample.key, rule)).row
        buffers = self._buffers
        buffers["latents"][row] = sample.noise
        buffers["previous_x0"][row] = 0.0
        buffers["states"][row] = self._embeddings.states[prompt]
        buffers["pooled"][row] = self._embeddings.pooled[prompt]
        for name in self._features:
            values = features[name]
            if name not in buffers:  # the graph alone knows these shapes
                shape = (self.slots.largest_bucket, *values.shape[1:])
                buffers[name] = np.zeros(shape, values.dtype)
            buffers[name][row] = values[0]

    def step(self) -> list[Finished[Key]]:
        """One step of every row in use; returns what it finished, in row order, and frees rows."""
        if not self.busy:
            return []
        buffers, bucket = self._buffers, self.slots.bucket
        buffers["active"][:] = 0.0
        for slot in self.slots:
            buffers["active"][slot.row] = 1.0
            buffers["timestep"][slot.row] = self._timesteps[slot.steps_done]
            buffers["coefficients"][slot.row] = self._coefficients[slot.steps_done]
        with self._stopwatch.part("denoise"):
            outputs = self._denoise.run({name: array[:bucket] for name, array in buffers.items()})
            buffers["latents"][:bucket] = outputs["next_latents"]
            buffers["previous_x0"][:bucket] = outputs["x0"]
        change = outputs["change"]
        return [
            self._retire(slot)
            for slot in self.slots
            if self._advance(slot, float(change[slot.row]))
        ]

    def _advance(self, slot: "Slot[_Row[Key]]", change: float) -> bool:
        """Count the step; done after all steps, or when x0 has stopped moving."""
        if not math.isfinite(change):
            raise BundleError(
                f"the model computes values that are not numbers, at step {slot.steps_done + 1} of "
                f"{self.steps}; try a bundle of another precision, or export it again"
            )
        slot.steps_done += 1
        rule = slot.item.rule
        calm = rule.tolerance is not None and change < rule.tolerance
        slot.calm_steps = slot.calm_steps + 1 if calm else 0
        converged = slot.calm_steps >= CALM_STEPS and slot.steps_done >= rule.minimum_steps
        return converged or slot.steps_done == self.steps

    def _retire(self, slot: "Slot[_Row[Key]]") -> Finished[Key]:
        # x0, not the latents: after an early stop only x0 is free of noise; after all steps
        # they are equal.
        x0 = self._buffers["previous_x0"][slot.row : slot.row + 1]
        with self._stopwatch.part("decode"):
            image = self._decoder.run({"latents": x0})["image"][0]
            picture = np.ascontiguousarray(image.transpose(1, 2, 0))
        self.slots.retire(slot.row)
        return Finished(slot.item.key, picture, slot.steps_done)


@dataclass(frozen=True, slots=True)
class _Row(Generic[Key]):
    key: Key
    rule: EarlyStop
