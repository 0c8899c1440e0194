"""The sampling loop: windows in rows of a batch, one DDIM step of all rows at a time.

Knows no files and no maps: what goes in is a `Sample` (pictures as the network sees them, noise,
a scale prompt), what comes out is a picture. Every row has its own time step, so that a window
which finishes makes room for the next one while the others go on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from c2gm.runtime.backends.base import Loop, StepRows, Tensors
from c2gm.runtime.batching import Slot, Slots
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.contract import EarlyStop
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
    `level`, `span`: the scale prompt; `decode`: whether a picture is wanted, or latents.
    """

    key: Key
    imagery: NDArray[np.float32]
    reference: NDArray[np.float32] | None
    noise: NDArray[np.float32]
    level: int
    span: int | None
    decode: bool = True


@dataclass(frozen=True, slots=True)
class Finished(Generic[Key]):
    """A generated window: its RGB picture (H, H, 3), and the steps that it took.

    Where the sample was not to be decoded there are latents (c, H/8, H/8) instead of a picture.
    """

    key: Key
    picture: Picture | None
    steps: int
    latents: NDArray[np.float32] | None = None


class Sampler(Generic[Key]):
    """Continuous batching over the rows of a backend's loop.

    All windows of one sampler have the same side.
    """

    def __init__(
        self,
        bundle: Bundle,
        loop: Loop,
        *,
        side: int,
        steps: int,
        early_stop: bool = True,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        """`loop` was opened for windows of `side` pixels; `early_stop`: by the bundle's rules.

        Raises ValueError for a side or steps out of range.
        """
        manifest = bundle.manifest
        if side < 1 or side % manifest.window_multiple:
            raise ValueError(f"side is {side}, expected a multiple of {manifest.window_multiple}")
        self.steps = steps
        self.rows = loop.rows
        self.steps_run = 0
        """Steps that windows have taken until now."""
        self.slots: Slots[_Row[Key]] = Slots(loop.rows)
        self._decoded: list[Finished[Key]] = []
        self._manifest = manifest
        self._bundle, self._early_stop = bundle, early_stop
        self._stopwatch = stopwatch or Stopwatch()
        self._timesteps = manifest.schedule.timesteps(steps)
        self._coefficients = manifest.schedule.ddim_coefficients(steps).astype(np.float32)
        self._side = side
        self._loop, rows = loop, loop.rows
        self._rows = StepRows(
            timestep=np.zeros(rows, np.int64),
            coefficients=np.zeros((rows, self._coefficients.shape[1]), np.float32),
            active=np.zeros(rows, np.float32),
        )

    @property
    def free(self) -> int:
        """How many samples `admit` takes now."""
        return self.slots.free

    @property
    def busy(self) -> int:
        """How many samples are being worked on."""
        return len(self.slots) + len(self._decoded)

    def admit(self, sample: Sample[Key]) -> None:
        """Give a sample a free row and compute its conditions (once a window, eqs. 8 and 16-18).

        Raises BundleError where the model has no such scale prompt, ValueError for wrong shapes or
        a full batch.
        """
        expected = (3, self._side, self._side)
        if sample.imagery.shape != expected:
            raise ValueError(f"imagery is {sample.imagery.shape}, expected {expected}")
        window = window_inputs(self._bundle, sample)
        rule = EarlyStop()
        if self._early_stop:
            rule = self._manifest.early_stop_of(sample.level, sample.span)
        row = self.slots.admit(_Row(sample.key, rule, sample.decode)).row
        with self._stopwatch.part("condition"):
            self._loop.admit(row, window)

    def decode(self, key: Key, latents: NDArray[np.float32]) -> None:
        """Have latents decoded, which takes no row; the picture comes out of the next `step`."""
        with self._stopwatch.part("decode"):
            self._decoded.append(Finished(key, self._loop.decode(latents), 0))

    def step(self) -> list[Finished[Key]]:
        """One step of every row in use; returns what it finished, in row order, and frees rows."""
        decoded, self._decoded = self._decoded, []
        if not len(self.slots):
            return decoded
        rows = self._rows
        rows.active[:] = 0.0
        for slot in self.slots:
            rows.active[slot.row] = 1.0
            rows.timestep[slot.row] = self._timesteps[slot.steps_done]
            rows.coefficients[slot.row] = self._coefficients[slot.steps_done]
        with self._stopwatch.part("denoise"):
            change = self._loop.step(rows)
        return decoded + self._retire([s for s in self.slots if self._advance(s, change)])

    def close(self) -> None:
        """Give back what the rows took; nothing can be admitted any more."""
        self._loop.close()

    def _advance(self, slot: "Slot[_Row[Key]]", change: NDArray[np.float32] | None) -> bool:
        """Count the step; done after all steps, or when x0 has stopped moving.

        `change` is of the step `lag` steps ago: of another window where this one is younger.
        """
        slot.steps_done += 1
        self.steps_run += 1
        judged = slot.steps_done - self._loop.lag
        if change is not None and judged >= 1:
            moved, rule = float(change[slot.row]), slot.item.rule
            self._check_number(moved, judged)
            calm = rule.tolerance is not None and moved < rule.tolerance
            slot.calm_steps = slot.calm_steps + 1 if calm else 0
            if slot.calm_steps >= CALM_STEPS and judged >= rule.minimum_steps:
                return True
        return slot.steps_done == self.steps

    def _check_number(self, change: float, step: int) -> None:
        if not math.isfinite(change):
            raise BundleError(
                f"the model computes values that are not numbers, at step {step} of "
                f"{self.steps}; try a bundle of another precision, or export it again"
            )

    def _retire(self, slots: Sequence["Slot[_Row[Key]]"]) -> list[Finished[Key]]:
        # x0, not the latents: after an early stop only x0 is free of noise; after all steps
        # they are equal.
        if not slots:
            return []
        pictures: dict[int, Picture] = {}
        latents: dict[int, NDArray[np.float32]] = {}
        changes: dict[int, np.float32] = {}
        if decoded := [slot.row for slot in slots if slot.item.decode]:
            with self._stopwatch.part("decode"):
                painted, moved = self._loop.paint(decoded)
            pictures |= zip(decoded, painted, strict=True)
            changes |= zip(decoded, moved, strict=True)
        for slot in slots:
            if not slot.item.decode:
                latents[slot.row], changes[slot.row] = self._loop.take(slot.row)
        finished: list[Finished[Key]] = []
        for slot in slots:
            row = slot.row
            self._check_number(float(changes[row]), slot.steps_done)
            self.slots.retire(row)
            out = Finished(slot.item.key, pictures.get(row), slot.steps_done, latents.get(row))
            finished.append(out)
        return finished


def window_inputs(bundle: Bundle, sample: Sample[Key]) -> Tensors:
    """What `Loop.admit` takes of a sample.

    Raises BundleError where the model has no such scale prompt.
    """
    prompt, reference = bundle.embeddings.row(sample.level, sample.span), sample.reference
    return {
        "imagery": sample.imagery,
        "reference": np.zeros_like(sample.imagery) if reference is None else reference,
        "has_reference": np.array(reference is not None, np.float32),
        "latents": sample.noise,
        "states": bundle.embeddings.states[prompt],
        "pooled": bundle.embeddings.pooled[prompt],
    }


@dataclass(frozen=True, slots=True)
class _Row(Generic[Key]):
    key: Key
    rule: EarlyStop
    decode: bool
