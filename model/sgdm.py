"""SGDM: the scale-guided diffusion model, its four parts put together (method, section 2)."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from c2gm.model.autoencoder import build_autoencoder
from c2gm.model.config import ModelConfig
from c2gm.model.mf_encoder import MFEncoder, ReferenceLatentEncoder
from c2gm.model.scale_encoder import ScaleEncoder
from c2gm.model.sf_adapter import SFAdapter
from c2gm.model.unet import UNet


class Condition(NamedTuple):
    """What depends on a window and not on the time step: computed once ("feature reuse")."""

    feature_0: Tensor
    """(b, c0, h, h)"""
    feature_1: Tensor
    """(b, c1, h/2, h/2)"""
    feature_2: Tensor
    """(b, c2, h/4, h/4)"""
    reference_latent: Tensor
    """(b, cr, h, h), eq. 8"""


class TrainingBatch(NamedTuple):
    """Input of `SGDM.training_loss`; pictures (b, 3, H, H) in [-1, 1] with invalid pixels 0."""

    imagery: Tensor
    reference: Tensor
    has_reference: Tensor
    """(b), 0 or 1"""
    token_ids: Tensor
    """int64 (b, n), of the scale prompts"""
    latents: Tensor | None = None
    """Scaled latents (b, c, h, h) of the map; without them `image` is encoded."""
    image: Tensor | None = None
    """The map (b, 3, H, H) in [-1, 1]."""


class SGDM(nn.Module):
    """Text tower, autoencoder, condition encoders and U-Net of one configuration.

    Parts that the configuration freezes have `requires_grad` False and stay in evaluation mode:
    the autoencoder always, the text tower with `freeze_text`, and of the U-Net, with
    `train_unet="attention"`, everything but the attention layers and what SD 2.1 does not have
    (the projection of the pooled text, the input convolution widened for eq. 8).
    """

    signal: Tensor
    noise: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.text_encoder = ScaleEncoder(config.text)
        self.autoencoder = build_autoencoder(config.autoencoder)
        self.mf_encoder = MFEncoder(config.condition)
        self.sf_adapter = SFAdapter(config.condition.output_channels, config.unet.channels[:3])
        self.reference_encoder = (
            ReferenceLatentEncoder(config.condition)
            if config.condition.reference_latent_channels
            else None
        )
        self.unet = UNet(config)
        alphas_cumprod = config.schedule.alphas_cumprod()
        for name, values in (("signal", alphas_cumprod), ("noise", 1.0 - alphas_cumprod)):
            root = torch.from_numpy(np.sqrt(values).astype(np.float32))
            self.register_buffer(name, root.to(torch.get_default_device()), persistent=False)
        self._freeze()

    def _freeze(self) -> None:
        self.autoencoder.requires_grad_(False)
        if self.config.freeze_text:
            self.text_encoder.requires_grad_(False)
        if self.config.train_unet == "attention":
            for name, parameter in self.unet.named_parameters():
                trained = (".attn1.", ".attn2.", ".class_embedding.", ".conv_in.")
                parameter.requires_grad_(any(part in f".{name}" for part in trained))
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, frozen parts staying in evaluation mode."""
        super().train(mode)
        self.autoencoder.eval()
        if self.config.freeze_text:
            self.text_encoder.eval()
        return self

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters to optimise under this configuration."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Scale prompts -> states (b, n, d), pooled (b, d), without gradients."""
        return self.text_encoder.encode_prompts(prompts)

    def condition(self, imagery: Tensor, reference: Tensor, has_reference: Tensor) -> Condition:
        """Everything of a window that its denoising steps share.

        `imagery`, `reference` (b, 3, H, H) in [-1, 1] with invalid pixels 0, H a multiple of 64;
        `has_reference` (b), 0 or 1: where it is 0 the reference's content plays no part.
        """
        return self._condition(imagery, reference, has_reference)[1]

    def _condition(
        self, imagery: Tensor, reference: Tensor, has_reference: Tensor
    ) -> tuple[Tensor, Condition]:
        """F_cond of the MFEncoder, and all that is made of it."""
        reference = self._given(reference, has_reference)
        f_cond = self.mf_encoder(imagery, reference)
        feature_0, feature_1, feature_2 = self.sf_adapter(f_cond)
        if self.reference_encoder is None:
            reference_latent = feature_0[:, :0]
        else:
            reference_latent = self.reference_encoder(reference)
        return f_cond, Condition(feature_0, feature_1, feature_2, reference_latent)

    def denoise(
        self,
        latents: Tensor,
        timestep: Tensor,
        states: Tensor,
        pooled: Tensor,
        condition: Condition,
    ) -> Tensor:
        """Network output (epsilon or v) for `latents` (b, c, h, h) at `timestep` int64 (b)."""
        *features, reference_latent = condition
        output: Tensor = self.unet(latents, reference_latent, timestep, states, pooled, features)
        return output

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps, for `timestep` int64 (b)."""
        return self._at(self.signal, timestep) * latents + self._at(self.noise, timestep) * noise

    def target(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """What the network is to predict: eps, or v = sqrt(abar) eps - sqrt(1 - abar) z_0."""
        if self.config.schedule.prediction_type == "epsilon":
            return noise
        return self._at(self.signal, timestep) * noise - self._at(self.noise, timestep) * latents

    def predicted(self, noised: Tensor, output: Tensor, timestep: Tensor) -> Tensor:
        """z_0 (b, c, h, h) as the network's `output` for `noised` at `timestep` int64 (b) has it.

        With epsilon prediction it is undefined where the signal is zero, and grows beyond all
        bounds near it: there only v prediction serves.
        """
        signal, noise = self._at(self.signal, timestep), self._at(self.noise, timestep)
        if self.config.schedule.prediction_type == "epsilon":
            return (noised - noise * output) / signal
        return signal * noised - noise * output

    def training_loss(
        self,
        batch: TrainingBatch,
        *,
        loss: Literal["l2", "l1"] = "l2",
        min_snr_gamma: float | None = None,
        draws: int = 1,
        noise_bias: float = 1.0,
        probe: Callable[[Tensor, Tensor], Tensor] | None = None,
        judge: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        cell_weights: Tensor | None = None,
        timestep: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Eq. 19, mean over the batch: a scalar in float32.

        `loss`: the paper has the square, the authors' code the absolute error.
        `min_snr_gamma`: weight time steps by min-SNR-gamma (Hang et al. 2023), None for none.
        `draws`: time steps a pair, one of each of as many equally likely parts of the schedule;
        they share the pair's condition, which costs more than a denoising step.
        `noise_bias`: density of time steps is proportional to t^(noise_bias - 1): 1 is uniform, 3
        dwells where the imagery decides what is drawn.
        `probe`: a loss of F_cond and the latents, which is added. It reaches the MFEncoder without
        noise and without the U-Net between; nothing of it is kept (class_probe.py).
        `judge`: a loss of the predicted z_0 (b * draws, c, h, h), the true one (b, c, h, h) and
        F_cond, which is added.
        `cell_weights` (b, 1, h, w): weights of latent cells in the mean.
        `timestep` int64 (n) and `noise` (n, c, h, h), n = b * draws with a pair's draws a batch
        apart, are drawn unless given (validation).
        Raises ValueError for a batch with neither latents nor image.
        """
        latents = self._target_latents(batch)
        if timestep is None:
            timestep = self._draw_timesteps(latents, draws, noise_bias)
        states, pooled = self.text_encoder(batch.token_ids)
        f_cond, condition = self._condition(batch.imagery, batch.reference, batch.has_reference)
        extra = None if probe is None else probe(f_cond, latents)
        truth = latents
        if draws > 1:
            latents, states, pooled = (_repeat(x, draws) for x in (latents, states, pooled))
            condition = Condition(*(_repeat(x, draws) for x in condition))
        if noise is None:
            noise = torch.randn_like(latents)
        noised = self.add_noise(latents, noise, timestep)
        output = self.denoise(noised, timestep, states, pooled, condition).float()
        error = output - self.target(latents, noise, timestep)
        error = error.square() if loss == "l2" else error.abs()
        if cell_weights is not None:
            error = error * _repeat(cell_weights, draws)
        per_sample = error.mean(dim=(1, 2, 3))
        if min_snr_gamma is not None:
            per_sample = per_sample * self._min_snr_weight(timestep, min_snr_gamma)
        total = per_sample.mean()
        if judge is not None:
            total = total + judge(self.predicted(noised, output, timestep), truth, f_cond)
        return total if extra is None else total + extra

    def _draw_timesteps(self, latents: Tensor, draws: int, noise_bias: float = 1.0) -> Tensor:
        """int64 (b * draws), draw k of a pair within part k of `draws` equally likely ones."""
        start = torch.arange(draws, device=latents.device)[:, None]
        place = torch.rand(draws, latents.shape[0], device=latents.device)
        quantile = ((start + place) / draws).flatten()
        last = self.config.schedule.train_timesteps - 1
        return (quantile ** (1.0 / noise_bias) * (last + 1)).long().clamp(max=last)

    def encoder_loss(
        self, batch: TrainingBatch, probe: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """The `probe` of `training_loss` alone: nothing behind the MFEncoder is computed."""
        reference = self._given(batch.reference, batch.has_reference)
        return probe(self.mf_encoder(batch.imagery, reference), self._target_latents(batch))

    @staticmethod
    def _given(reference: Tensor, has_reference: Tensor) -> Tensor:
        """The reference, 0 where there is none."""
        return reference * has_reference.to(reference.dtype)[:, None, None, None]

    def _target_latents(self, batch: TrainingBatch) -> Tensor:
        if batch.latents is not None:
            return batch.latents
        if batch.image is None:
            raise ValueError("the batch has neither latents nor image; give one of them")
        with torch.no_grad():
            latents: Tensor = self.autoencoder.encode(batch.image)
        return latents.float()

    def _min_snr_weight(self, timestep: Tensor, gamma: float) -> Tensor:
        """min(SNR, gamma) / SNR; for v, min(SNR + 1, gamma) / (SNR + 1) as diffusers has it.

        The paper's min(SNR, gamma) / (SNR + 1) would leave the first sampling step untrained where
        the terminal SNR is zero.
        """
        snr = (self.signal[timestep] / self.noise[timestep]).square()
        if self.config.schedule.prediction_type == "v_prediction":
            snr = snr + 1
        return snr.clamp(max=gamma) / snr

    @staticmethod
    def _at(table: Tensor, timestep: Tensor) -> Tensor:
        return table[timestep][:, None, None, None]


def _repeat(values: Tensor, count: int) -> Tensor:
    """(b, ...) -> (count * b, ...), whole batches one after the other."""
    return values.repeat(count, *[1] * (values.dim() - 1))
