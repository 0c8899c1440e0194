"""The f = 8 autoencoders behind one face: `encode` to scaled latents, `decode` to an image.

`full` uses diffusers' AutoencoderKL as Stable Diffusion 2.1 does. `nano` has a light one that does
all its work at or below a quarter of the resolution (pixel unshuffle in, pixel shuffles out).
It has no normalisation layers: every output pixel depends on its neighbourhood alone, never on the
rest of the window, so that a tile decodes to the same picture in whatever window it lies.
"""

from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from c2gm.model import _torchvision  # noqa: F401  (must precede diffusers)
from c2gm.model.config import AutoencoderConfig

PaddingMode = Literal["zeros", "replicate"]
DECODER_PADDING: PaddingMode = "replicate"
"""Zeros at a window's border showed in the picture as a dark rim around every tile."""


class Autoencoder(Protocol):
    """What the rest of the model knows of an autoencoder."""

    def encode(self, image: Tensor) -> Tensor:
        """Image (b, 3, H, H) in [-1, 1] -> scaled latents (b, c, H/8, H/8), about unit variance."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (b, c, h, h) -> image (b, 3, 8h, 8h), nominally in [-1, 1], unclamped."""
        ...


class KLAutoencoder(nn.Module):
    """diffusers' AutoencoderKL; latents are the posterior's mode times the scaling factor."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        from diffusers import AutoencoderKL

        count = len(config.encoder_channels)
        self.scaling_factor = config.scaling_factor
        self.vae = AutoencoderKL(
            latent_channels=config.latent_channels,
            block_out_channels=config.encoder_channels,
            down_block_types=("DownEncoderBlock2D",) * count,
            up_block_types=("UpDecoderBlock2D",) * count,
            layers_per_block=config.encoder_blocks,
            norm_num_groups=min(32, config.encoder_channels[0]),
            scaling_factor=config.scaling_factor,
        )

    def encode(self, image: Tensor) -> Tensor:
        """See `Autoencoder.encode`."""
        posterior = self.vae.encode(image).latent_dist
        return cast(Tensor, posterior.mode() * self.scaling_factor)

    def decode(self, latents: Tensor) -> Tensor:
        """See `Autoencoder.decode`."""
        return cast(Tensor, self.vae.decode(latents / self.scaling_factor).sample)


class ResidualBlock(nn.Module):
    """x + conv(SiLU(conv(SiLU(x)))); the second convolution starts at zero (identity)."""

    def __init__(self, channels: int, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, padding_mode=padding_mode)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, padding_mode=padding_mode)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(cast(Tensor, self.second.bias))

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, h, w) -> same shape."""
        return x + cast(Tensor, self.second(functional.silu(self.first(functional.silu(x)))))


class LightAutoencoder(nn.Module):
    """The small autoencoder of `nano`.

    Channels are given fine to coarse: index 0 at H/4, index 1 at H/8.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        shape = (config.latent_channels, 1, 1)
        self.register_buffer("latent_mean", torch.zeros(shape))
        self.register_buffer("latent_std", torch.ones(shape))
        quarter, eighth = config.encoder_channels
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, quarter, 3, padding=1),
            *(ResidualBlock(quarter) for _ in range(config.encoder_blocks)),
            nn.Conv2d(quarter, eighth, 3, stride=2, padding=1),
            *(ResidualBlock(eighth) for _ in range(config.encoder_blocks)),
            nn.Conv2d(eighth, config.latent_channels, 1),
        )
        quarter, eighth = config.decoder_channels
        half = quarter // 4

        def convolution(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode=DECODER_PADDING)

        self.decoder = nn.Sequential(
            convolution(config.latent_channels, eighth),
            *(ResidualBlock(eighth, DECODER_PADDING) for _ in range(config.decoder_blocks)),
            convolution(eighth, 4 * quarter),
            nn.PixelShuffle(2),
            *(ResidualBlock(quarter, DECODER_PADDING) for _ in range(config.decoder_blocks)),
            convolution(quarter, 4 * half),
            nn.PixelShuffle(2),
            nn.SiLU(),
            convolution(half, half),
            nn.SiLU(),
            convolution(half, 12),
            nn.PixelShuffle(2),
        )

    def encode(self, image: Tensor) -> Tensor:
        """See `Autoencoder.encode`."""
        return cast(Tensor, (self.encoder(image) - self.latent_mean) / self.latent_std)

    def decode(self, latents: Tensor) -> Tensor:
        """See `Autoencoder.decode`."""
        return cast(Tensor, self.decoder(latents * self.latent_std + self.latent_mean))

    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Set the latent statistics, each (c,): latents become N(0, 1) a channel.

        They are applied outside the convolutions and not folded into them: zero padding in the
        decoder must keep meaning what it meant in training, or tiles get a rim.
        """
        self.latent_mean.copy_(mean[:, None, None])
        self.latent_std.copy_(std[:, None, None])


def build_autoencoder(config: AutoencoderConfig) -> KLAutoencoder | LightAutoencoder:
    """The autoencoder that a configuration names."""
    return KLAutoencoder(config) if config.kind == "kl" else LightAutoencoder(config)


def reconstruction_loss(output: Tensor, image: Tensor) -> Tensor:
    """L1 + L1 of the image gradients + a little L2, for (b, 3, H, H) in [-1, 1].

    The gradients keep thin roads and casings, which a mean over flat areas hardly sees.
    """
    difference = output - image
    gradients = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    return difference.abs().mean() + gradients + 2.0 * difference.square().mean()
