"""A painter that is an exported bundle, run as `c2gm-infer` runs it."""

from collections.abc import Sequence

import numpy as np

from c2gm.model.data.pairs import Sample
from c2gm.model.evaluation.metrics import Pictures
from c2gm.model.evaluation.painter import noise_of
from c2gm.runtime.backends.base import Backend
from c2gm.runtime.bundle import Bundle
from c2gm.runtime.lanes import Lanes, open_sampler
from c2gm.runtime.levels import TILE_SIZE
from c2gm.runtime.pixels import to_network
from c2gm.runtime.sampler import Sample as RuntimeSample
from c2gm.runtime.sampler import Sampler


class BundlePainter:
    """Paints tiles with the graphs of a bundle on a backend; see `Painter`.

    `steps`: default the bundle's. Raises BundleError, BackendError.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, steps: int | None = None, seed: int = 0
    ) -> None:
        self._bundle, self._seed = bundle, seed
        self.sampler: Sampler[int] | Lanes[int] = open_sampler(
            bundle,
            backend,
            None,
            side=TILE_SIZE,
            steps=bundle.manifest.default_steps if steps is None else steps,
        )

    def paint(self, samples: Sequence[Sample]) -> Pictures:
        """See `Painter.paint`."""
        waiting = [
            runtime_sample(self._bundle, key, samples[key], self._seed)
            for key in reversed(range(len(samples)))
        ]
        pictures = np.zeros((len(samples), TILE_SIZE, TILE_SIZE, 3), np.uint8)
        while waiting or self.sampler.busy:
            while waiting and self.sampler.free:
                self.sampler.admit(waiting.pop())
            for out in self.sampler.step():
                assert out.picture is not None
                pictures[out.key] = out.picture
        return pictures

    def close(self) -> None:
        """Give back what the backend took."""
        self.sampler.close()


def runtime_sample(bundle: Bundle, key: int, sample: Sample, seed: int = 0) -> RuntimeSample[int]:
    """A dataset's sample as the runtime has it."""
    return RuntimeSample(
        key=key,
        imagery=to_network(sample.imagery),
        reference=None if sample.reference is None else to_network(sample.reference),
        noise=noise_of(sample, bundle.manifest.latent_channels, seed),
        level=sample.level,
        span=sample.span,
    )
