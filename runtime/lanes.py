"""Windows side by side on the cores of a CPU: each runs alone, on one core, start to end.

One thread for every window keeps all cores at work without waiting for each other after every
operator, and a window's arithmetic depends neither on its neighbours nor on how many cores there
are.
"""

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Event
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from c2gm.runtime.backends.base import Backend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.progress import Stopwatch
from c2gm.runtime.sampler import Finished, Key, Sample, Sampler

PATIENCE_S = 1.0
"""`step` returns after so long, finished or not: a full-size model takes minutes for a window."""


class Lanes(Generic[Key]):
    """Samplers of one row, each on a thread of its own; the face of one `Sampler` of many rows."""

    def __init__(self, samplers: Sequence[Sampler[Key]]) -> None:
        self.rows = len(samplers)
        self._samplers = tuple(samplers)
        self._idle = list(reversed(samplers))
        self._running: dict[Future[Finished[Key] | None], Sampler[Key]] = {}
        self._stopping = Event()
        self._threads = ThreadPoolExecutor(self.rows, "c2gm-lane")

    @property
    def free(self) -> int:
        """How many samples `admit` takes now."""
        return len(self._idle)

    @property
    def busy(self) -> int:
        """How many samples are being worked on."""
        return len(self._running)

    @property
    def steps_run(self) -> int:
        """Steps that windows have taken until now."""
        return sum(sampler.steps_run for sampler in self._samplers)

    def admit(self, sample: Sample[Key]) -> None:
        """Begin with a sample; what is wrong with it shows in `step`."""
        sampler = self._idle.pop()
        self._running[self._threads.submit(self._draw, sampler, sample)] = sampler

    def decode(self, key: Key, latents: NDArray[np.float32]) -> None:
        """Have latents decoded, in a lane of their own: `free` must not be 0."""
        sampler = self._idle.pop()
        self._running[self._threads.submit(self._decode, sampler, key, latents)] = sampler

    def step(self) -> list[Finished[Key]]:
        """Wait a while for windows to finish; returns those that have, oldest first.

        Raises what their samplers raise; a lane that failed is not used again.
        """
        wait(self._running, PATIENCE_S, FIRST_COMPLETED)
        done = [future for future in self._running if future.done()]
        finished: list[Finished[Key]] = []
        for future in done:
            sampler = self._running.pop(future)
            if (out := future.result()) is not None:  # None: closed before it was finished
                self._idle.append(sampler)
                finished.append(out)
        return finished

    def close(self) -> None:
        """Leave windows as they are after their current step, and give back what they took."""
        self._stopping.set()
        self._idle.clear()
        self._threads.shutdown(cancel_futures=True)
        for sampler in self._samplers:
            sampler.close()

    def _decode(
        self, sampler: Sampler[Key], key: Key, latents: NDArray[np.float32]
    ) -> Finished[Key]:
        sampler.decode(key, latents)
        return sampler.step()[0]

    def _draw(self, sampler: Sampler[Key], sample: Sample[Key]) -> Finished[Key] | None:
        sampler.admit(sample)
        while not self._stopping.is_set():
            if finished := sampler.step():
                return finished[0]
        return None


def open_sampler(
    bundle: Bundle,
    backend: Backend,
    windows: int | None,
    *,
    side: int,
    painted: int | None = None,
    steps: int,
    early_stop: bool = True,
    stopwatch: Stopwatch | None = None,
) -> Sampler[Key] | Lanes[Key]:
    """The sampling loop that a backend wants: rows of one batch on a GPU, lanes on a CPU.

    `side` in pixels; `painted`: of what is decoded, if another. See `Backend.open_loops` for
    `windows` and what is raised, `Sampler` for the rest.
    """
    samplers: list[Sampler[Key]] = [
        Sampler(bundle, loop, side=side, steps=steps, early_stop=early_stop, stopwatch=stopwatch)
        for loop in backend.open_loops(windows, side, painted)
    ]
    return samplers[0] if samplers[0].rows > 1 else Lanes(samplers)
