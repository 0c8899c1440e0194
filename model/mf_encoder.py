"""MFEncoder: multi-modal feature fusion by SPADE (fig. 4, eqs. 16-18), and E_lr of eq. 8."""

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from c2gm.model.config import ConditionConfig

SLOPE = 0.1
"""Negative slope of every LeakyReLU of the condition encoders."""


def _convolution(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, padding=1), nn.LeakyReLU(SLOPE)
    )


class ResidualBlock(nn.Module):
    """x + conv(LeakyReLU(conv(x))), channels kept; starts as identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(cast(Tensor, self.second.bias))

    def forward(self, features: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        output: Tensor = features + self.second(self.first(features))
        return output


class SpadeBlock(nn.Module):
    """Eqs. 16-18: the imagery features, normalised, then scaled and shifted by both modalities.

    ``h = ReLU(Conv_share([F_imagery, F_reference]))``, ``gamma = Conv_gamma(h)``,
    ``beta = Conv_beta(h)``, ``F_imagery <- (1 + gamma) (F_imagery - mu) / sigma + beta``.
    With 1 + gamma (the usual implementation) an untrained block is close to plain normalisation.
    mu and sigma are those of the batch while training and running statistics in evaluation, so that
    a tile never depends on the tiles it is batched with.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(channels, affine=False)
        self.share = nn.Sequential(nn.Conv2d(2 * channels, hidden, 3, padding=1), nn.ReLU())
        self.gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, imagery: Tensor, reference: Tensor) -> Tensor:
        """Two feature maps (b, c, h, w) -> fused imagery features (b, c, h, w)."""
        hidden = self.share(torch.cat([imagery, reference], dim=1))
        fused: Tensor = (1 + self.gamma(hidden)) * self.normalise(imagery) + self.beta(hidden)
        return fused


class MFEncoder(nn.Module):
    """Imagery and reference -> F_cond on the latent grid (fig. 4).

    Two branches of three scales, each halving the side. A convolution's stride does the
    down-sampling, and it stands first in a scale, so that the residual block works on the smaller
    side: a quarter of the cost of the figure's order, with the same receptive field.
    """

    def __init__(self, config: ConditionConfig) -> None:
        super().__init__()
        steps = list(pairwise((config.stem_channels, *config.channels)))
        self.imagery_stem = _convolution(3, config.stem_channels)
        self.reference_stem = _convolution(3, config.stem_channels)
        self.imagery_scales = nn.ModuleList(
            nn.Sequential(_convolution(a, b, stride=2), ResidualBlock(b)) for a, b in steps
        )
        self.reference_scales = nn.ModuleList(_convolution(a, b, stride=2) for a, b in steps)
        self.fusions = nn.ModuleList(
            SpadeBlock(channels, hidden)
            for channels, hidden in zip(config.channels, config.spade_hidden, strict=True)
        )
        self.output = nn.Conv2d(2 * config.channels[-1], config.output_channels, 1)

    def forward(self, imagery: Tensor, reference: Tensor) -> Tensor:
        """Two pictures (b, 3, H, H) in [-1, 1] -> F_cond (b, output_channels, H/8, H/8)."""
        f_imagery, f_reference = self.imagery_stem(imagery), self.reference_stem(reference)
        scales = zip(self.imagery_scales, self.reference_scales, self.fusions, strict=True)
        for imagery_scale, reference_scale, fusion in scales:
            f_reference = reference_scale(f_reference)
            f_imagery = fusion(imagery_scale(f_imagery), f_reference)
        f_cond: Tensor = self.output(torch.cat([f_imagery, f_reference], dim=1))
        return f_cond


class ReferenceLatentEncoder(nn.Module):
    """f_up(E_lr(x_0^(k))) of eq. 8: the reference on the latent grid.

    E_lr goes down to half the latent grid (an enlarged reference holds no finer detail than that),
    f_up is nearest up-sampling by two and two convolutions.
    """

    def __init__(self, config: ConditionConfig) -> None:
        super().__init__()
        hidden = config.reference_hidden_channels
        self.encoder = nn.Sequential(
            nn.Conv2d(3, hidden // 2, 4, stride=4),
            nn.LeakyReLU(SLOPE),
            _convolution(hidden // 2, hidden, stride=2),
            _convolution(hidden, hidden, stride=2),
        )
        self.decoder = nn.Sequential(
            _convolution(hidden, hidden),
            nn.Conv2d(hidden, config.reference_latent_channels, 3, padding=1),
        )

    def forward(self, reference: Tensor) -> Tensor:
        """Picture (b, 3, H, H) in [-1, 1] -> (b, reference_latent_channels, H/8, H/8)."""
        low = self.encoder(reference)
        latent: Tensor = self.decoder(functional.interpolate(low, scale_factor=2.0, mode="nearest"))
        return latent
