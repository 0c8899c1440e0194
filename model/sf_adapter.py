"""SFAdapter: F_cond -> one feature map per U-Net level (method, section 3)."""

from itertools import pairwise

import torch
from torch import Tensor, nn

import c2gm.model._torchvision  # noqa: F401  (diffusers may import torchvision)

# isort: split
from diffusers.models.adapter import AdapterResnetBlock


class SFAdapter(nn.Module):
    """A 3x3 convolution to the first width; per further scale a stride-2 convolution and two
    residual blocks (diffusers' T2I-Adapter block: 3x3, ReLU, 1x1).

    Every map is multiplied by a learnt gain per channel, where the authors' code multiplies by the
    latents' scale factor. It starts at one; at zero the U-Net is left untouched, which is how a
    pre-trained U-Net is started from.
    """

    def __init__(self, channels_in: int, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels[0], 3, padding=1)
        self.scales = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, stride=2, padding=1),
                AdapterResnetBlock(b),
                AdapterResnetBlock(b),
            )
            for a, b in pairwise(channels)
        )
        self.gains = nn.ParameterList(torch.ones(1, c, 1, 1) for c in channels)

    def forward(self, f_cond: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(b, channels_in, h, h) -> (b, c0, h, h), (b, c1, h/2, h/2), (b, c2, h/4, h/4)."""
        feature_0 = self.first(f_cond)
        feature_1 = self.scales[0](feature_0)
        feature_2 = self.scales[1](feature_1)
        gain_0, gain_1, gain_2 = self.gains
        return feature_0 * gain_0, feature_1 * gain_1, feature_2 * gain_2
