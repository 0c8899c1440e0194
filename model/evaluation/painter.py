"""What can be evaluated: anything that paints maps of tiles; here, the torch model."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from c2gm.model.data.dataset import Sample, collate
from c2gm.model.evaluation.metrics import Pictures
from c2gm.model.sampling import sample_latents, to_pictures
from c2gm.model.sgdm import SGDM
from c2gm.runtime.contract import LATENT_FACTOR
from c2gm.runtime.errors import OptionError
from c2gm.runtime.levels import prompt_keys, scale_prompt
from c2gm.runtime.noise import starting_noise


class Painter(Protocol):
    """What is evaluated: anything that draws maps of tiles."""

    def paint(self, samples: Sequence[Sample]) -> Pictures:
        """One picture (256, 256, 3) a sample, drawn from its imagery and, if any, reference."""
        ...


class SGDMPainter:
    """The torch model, sampled with DDIM from the noise that the runtime would use."""

    def __init__(self, model: SGDM, steps: int, seed: int) -> None:
        if not 1 <= steps <= model.config.schedule.max_steps or seed < 0:
            raise OptionError(
                f"--steps {steps} must be 1 to {model.config.schedule.max_steps}, "
                f"--seed {seed} must be 0 or more"
            )
        self._model, self._steps, self._seed = model, steps, seed
        self._device = next(model.parameters()).device
        with torch.inference_mode():
            prompts = [scale_prompt(*key) for key in prompt_keys()]
            self._states, self._pooled = model.encode_prompts(prompts)

    @torch.inference_mode()
    def paint(self, samples: Sequence[Sample]) -> Pictures:
        """See `Painter.paint`; a picture does not depend on those beside it."""
        model = self._model
        batch = {name: tensor.to(self._device) for name, tensor in collate(samples).items()}
        condition = model.condition(batch["imagery"], batch["reference"], batch["has_reference"])
        rows = batch["prompt"].to(self._states.device)
        channels = model.config.autoencoder.latent_channels
        noise = np.stack([noise_of(sample, channels, self._seed) for sample in samples])
        latents = sample_latents(
            model,
            condition,
            self._states[rows],
            self._pooled[rows],
            torch.from_numpy(noise).to(self._device),
            self._steps,
        )
        pictures: Pictures = to_pictures(model.autoencoder.decode(latents)).cpu().numpy()
        return pictures


def noise_of(sample: Sample, channels: int, seed: int = 0) -> NDArray[np.float32]:
    """The starting noise (channels, H/8, H/8) that the runtime would use for a sample."""
    extent = sample.window.extent
    cells = (extent.left, extent.top, extent.width, extent.height)
    left, top, width, height = (pixels // LATENT_FACTOR for pixels in cells)
    return starting_noise(seed, sample.level, left, top, width, height, channels)
